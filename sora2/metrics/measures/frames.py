"""Consistency of frames in the embeddings of published networks, in the manner of VBench. Weights are given by path."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.evidence import Evidence
from sora2.metrics.networks.published import picture_embeddings
from sora2.metrics.registry import metric
from sora2.metrics.values import Unmeasurable

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
    return picture_embeddings(weights, evidence.clip.video.numpy())
