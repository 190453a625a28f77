"""EfficientNet-Lite0 (Tan and Le 2019), trained on ImageNet: features of pictures, from a package that ships them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sora2.metrics.values import MetricError
from sora2.metrics.weights import find_weights

SIDE = 224


def image_features(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 1280) mean over the last feature map of pictures (N, H, W, 3), scaled to 224 x 224."""
    scaled = np.stack([_scaled(p) for p in pictures])
    x = (torch.from_numpy(scaled).permute(0, 3, 1, 2).float() - 127) / 128  # (N, 3, 224, 224)
    with torch.no_grad():
        maps = _network(find_weights("efficientnet-lite0")).extract_features(x)  # (N, 1280, 7, 7)
    return maps.mean(dim=(2, 3)).double().numpy()


def _scaled(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if picture.shape[:2] == (SIDE, SIDE):
        return picture
    way = cv2.INTER_AREA if min(picture.shape[:2]) > SIDE else cv2.INTER_CUBIC
    return cv2.resize(picture, (SIDE, SIDE), interpolation=way)


@functools.lru_cache(maxsize=1)
def _network(path: Path) -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        raise MetricError(f"{path} holds no EfficientNet-Lite0: {error}") from error
    return network.eval()
