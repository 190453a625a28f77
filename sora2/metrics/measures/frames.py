"""Consistency of frames in the embeddings of published networks, in the manner of VBench. Weights are given by path."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import metric
from sora2.metrics.values import MetricError, Unmeasurable
from sora2.metrics.weights import find_weights

Array = NDArray[np.float64]


@metric(
    "vbench_subject_consistency",
    unit="",
    direction="higher",
    needs=("video",),
    tolerance=0.9,
    weights=("dino-b16",),
)
def vbench_subject_consistency(evidence: Evidence) -> float:
    """Subject consistency of VBench (Huang et al. 2024): mean cosine of the DINO ViT-B/16 embedding of each frame with
    that of the frame before and of the first. A frozen clip is perfect."""
    return consistency(embed(evidence, "dino-b16"))


@metric(
    "vbench_background_consistency",
    unit="",
    direction="higher",
    needs=("video",),
    tolerance=0.9,
    weights=("clip-b32",),
)
def vbench_background_consistency(evidence: Evidence) -> float:
    """Background consistency of VBench: the same of CLIP ViT-B/32 embeddings, of whole frames, as published. A frozen
    clip is perfect."""
    return consistency(embed(evidence, "clip-b32"))


def consistency(embeddings: Array) -> float:
    """(T, D) -> mean over t >= 2 of (max(0, cos(f_t, f_t-1)) + max(0, cos(f_t, f_1))) / 2.

    Raises:
        Unmeasurable: fewer than two frames.
    """
    if len(embeddings) < 2:
        raise Unmeasurable("one frame")
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    previous, first = (unit[1:] * unit[:-1]).sum(axis=1), unit[1:] @ unit[0]
    return float((np.maximum(previous, 0) + np.maximum(first, 0)).mean() / 2)


def embed(evidence: Evidence, weights: str) -> Array:
    """(T, D) embeddings of all frames.

    Raises:
        MetricError: the weights are missing or cannot be read.
    """
    processor, model = load_image_model(find_weights(weights))
    frames = list(evidence.clip.video.numpy())
    with torch.no_grad():
        inputs = processor(images=frames, return_tensors="pt")
        if hasattr(model, "get_image_features"):
            found = model.get_image_features(**inputs)
        else:
            found = model(**inputs).last_hidden_state[:, 0]
    return found.double().numpy()


@functools.lru_cache(maxsize=2)
def load_image_model(folder: Path) -> tuple[Any, Any]:
    """(processor, model) of a folder that transformers reads.

    Raises:
        MetricError: transformers is not installed, or the folder holds no such model.
    """
    try:
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise MetricError("these metrics need transformers: install sora2[hub]") from error
    try:
        return (
            AutoImageProcessor.from_pretrained(folder, local_files_only=True),
            AutoModel.from_pretrained(folder, local_files_only=True).eval(),
        )
    except (OSError, ValueError) as error:
        raise MetricError(f"{folder} holds no image model that transformers can read: {error}") from error
