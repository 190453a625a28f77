"""Published metrics re-implemented for comparison; none of them is claimed to be trustworthy. See the calibration."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sora2.metrics.evidence import Evidence
from sora2.metrics.matching import match
from sora2.metrics.registry import metric
from sora2.metrics.values import Unmeasurable


@metric("published_av_align", unit="", direction="higher", needs=("video", "audio"), tolerance=0.4)
def published_av_align(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """AV-Align of TempoTokens (Yariv et al. 2023): onsets and peaks of the mean optical flow that lie within one frame
    of each other, one to one, over the union of both. Flow is DIS here, onsets are this project's."""
    magnitude = np.linalg.norm(evidence.flow, axis=-1).mean(axis=(1, 2))
    if len(magnitude) < 3:
        raise Unmeasurable("too few frames for a peak of the flow")
    peak = (magnitude[1:-1] > magnitude[:-2]) & (magnitude[1:-1] >= magnitude[2:])
    seen = (np.flatnonzero(peak) + 1) / evidence.clip.fps
    heard = evidence.onsets.seconds
    if not len(seen) and not len(heard):
        raise Unmeasurable("neither the flow nor the sound has a peak")
    both = len(match(seen, heard, 1 / evidence.clip.fps)[0])
    return both / (len(seen) + len(heard) - both), {"seen": len(seen), "heard": len(heard), "both": both}


@metric("vbench_temporal_flickering", unit="", direction="higher", needs=("video",), tolerance=0.97)
def vbench_temporal_flickering(evidence: Evidence) -> float:
    """Temporal flickering of VBench (Huang et al. 2024): (255 - mean |I_t - I_t+1|) / 255, without its static filter.
    A frozen clip is perfect."""
    video = evidence.clip.video.numpy().astype(np.float32)
    if len(video) < 2:
        raise Unmeasurable("one frame")
    return float(255 - np.abs(np.diff(video, axis=0)).mean()) / 255


@metric("vbench_dynamic_degree_dis", unit="", direction="higher", needs=("video",), tolerance=1.0)
def vbench_dynamic_degree_dis(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Dynamic degree in the manner of VBench, with DIS optical flow in place of RAFT: 1 when the fastest twentieth of
    pixels moves by more than 6 / 256 of the shorter side in at least a quarter of the frame pairs, at about 8 fps."""
    step = max(1, round(evidence.clip.fps / 8))
    flow = evidence.flow[::step] * step
    if not len(flow):
        raise Unmeasurable("one frame")
    speed = np.linalg.norm(flow, axis=-1).reshape(len(flow), -1)
    top = np.sort(speed, axis=1)[:, -max(1, speed.shape[1] // 20) :].mean(axis=1)
    moving = int((top > 6 * evidence.pixels_per_unit / 256).sum())
    return float(moving >= max(1, round(len(flow) / 4))), {"moving": moving, "pairs": len(flow)}


@metric(
    "published_physics_iq", unit="", direction="higher", needs=("video", "reference"), tolerance=80, best=100
)
def published_physics_iq(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Physics-IQ style score (Motamed et al. 2025): 100 x clip(mean of three motion-mask IoUs - mean squared error),
    against the reference, with a second take taken to be perfect."""
    own, other = evidence.clip.video, evidence.reference.video
    if other is None or own.shape != other.shape:
        raise Unmeasurable("the reference has no video of the same size")
    a, b = motion_masks(evidence.luma), motion_masks(evidence.of_reference().luma)
    weight_a, weight_b = a.mean(axis=0), b.mean(axis=0)
    spatial = _iou(a.any(axis=0), b.any(axis=0))
    spatiotemporal = _iou(a, b)
    weighted = float(np.minimum(weight_a, weight_b).sum() / max(np.maximum(weight_a, weight_b).sum(), 1e-9))
    square = float((((evidence.luma - evidence.of_reference().luma) / 255) ** 2).mean())
    score = 100 * float(np.clip(np.mean([spatial, spatiotemporal, weighted]) - square, 0, 1))
    return score, {"spatial": spatial, "spatiotemporal": spatiotemporal, "weighted": weighted, "mse": square}


def motion_masks(luma: NDArray[np.float32], rate: float = 0.3, threshold: float = 10.0) -> NDArray[np.bool_]:
    """(T, H, W) where a frame departs from the running mean of those before it."""
    mean, masks = luma[0].copy(), []
    for frame in luma:
        soft = cv2.GaussianBlur(frame, (5, 5), 0)
        masks.append(np.abs(soft - mean) > threshold)
        mean += rate * (soft - mean)
    return np.stack(masks)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0
