"""How far a talking mouth is open, from the pixels where the truth says the mouth is."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sora2.metrics.values import Unmeasurable
from sora2.types import Clip

Array = NDArray[np.float64]

#: Luma of RGB (Rec. 601).
LUMA = np.array([0.299, 0.587, 0.114])
#: Half height of the looked-at strip, world units: the widest mouth with its lips fits, the chin does not.
REACH = 0.125
#: Half width of the strip: less than any mouth, so that its width hardly counts.
HALF_STRIP = 0.03
#: Luma of skin and lips, and of the inside of a mouth, as quantiles over the strip and all frames.
LIGHT, DARK = 0.7, 0.001
#: Share of that contrast that is taken for texture and shading.
MARGIN = 0.25
#: Points looked at along the height of the strip and across.
ROWS, COLUMNS = 41, 5
#: Standard deviation of the opening below which a mouth counts as shut throughout.
STILL = 0.01


def seen_opening(clip: Clip, truth: dict[str, Any]) -> Array:
    """(T,) how far the mouth looks open in every frame, without a unit: compare by correlation.

    The inside of a mouth is darker than skin and lips, whatever the style. In a strip of fixed height across the
    mouth, its darkness summed over the height grows by the opening. Only the places of mouth and camera are read from
    the truth, not the opening.

    Raises:
        Unmeasurable: a clip without video.
    """
    video = clip.video.numpy() if clip.video is not None else None
    if video is None:
        raise Unmeasurable("the clip has no video")
    luma = (video @ LUMA).astype(np.float32)  # (T, H, W)
    mouth, camera = truth["mouth"], truth["camera"]
    x, y = (np.asarray(mouth[name])[: len(luma)] for name in ("x", "y"))
    down, across = np.linspace(-REACH, REACH, ROWS), np.linspace(-1, 1, COLUMNS)
    strip = _look(luma, camera, x, y, HALF_STRIP * across, down).mean(axis=2)  # (T, ROWS)
    light, dark = np.quantile(strip, (LIGHT, DARK))
    contrast = max(float(light - dark), 1.0)
    return np.clip(light - MARGIN * contrast - strip, 0, None).mean(axis=1) / contrast


def opening_correlation(clip: Clip, truth: dict[str, Any]) -> float:
    """Pearson correlation over frames of the seen opening with the true one; NaN for a mouth that stays shut."""
    seen = seen_opening(clip, truth)
    true = np.asarray(truth["mouth"]["opening"])[: len(seen)]
    if true.std() < STILL:
        return float("nan")
    return float(np.corrcoef(seen, true)[0, 1]) if seen.std() > 0 else 0.0


def _look(luma: NDArray[np.float32], camera: dict, x: Array, y: Array, right: Array, down: Array) -> Array:
    """Luma (T, ROWS, COLUMNS) at offsets, in world units, from the world points (x, y) of each frame."""
    frames, height, width = luma.shape
    scale = np.asarray(camera["zoom"])[:frames] * min(height, width)  # pixels of a world unit
    column = (x - np.asarray(camera["x"])[:frames]) * scale + (width - 1) / 2
    row = (y - np.asarray(camera["y"])[:frames]) * scale + (height - 1) / 2
    return np.stack(
        [
            cv2.remap(
                picture,
                np.broadcast_to(c + s * right, (len(down), len(right))).astype(np.float32),
                np.broadcast_to((r + s * down)[:, None], (len(down), len(right))).astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for picture, c, r, s in zip(luma, column, row, scale, strict=True)
        ]
    )
