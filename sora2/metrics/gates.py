"""Gates: what a clip must be before anything it shows is worth measuring.

A clip that fails a gate counts as a failure in every metric, for the reason that the gate gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sora2.metrics.evidence import Evidence

#: A picture whose brightest percent stays below this (of 255) shows nothing.
BLACK_LUMA = 16.0
#: Largest change (of 255) of a frame that is the same as the one before: coding noise.
SAME_FRAME = 2.0
#: Share of a clip's frames that may be black; longest run of unchanged frames that may be, of the clip.
BLACK_SHARE, FROZEN_SHARE = 0.5, 0.8
#: A peak below this (-60 dBFS) is silence.
SILENT_PEAK = 1e-3
#: Full scale, the shortest run of it that is clipping, and the share of samples that may be.
FULL_SCALE, CLIPPED_RUN, CLIPPED_SHARE = 0.999, 3, 0.01
#: Samples by which a soundtrack may miss the picture's end whatever the frame rate: one AAC frame.
AAC_FRAME = 1024


@dataclass(frozen=True)
class Expected:
    """What all clips of a row should be; None asks for nothing. A full truth overrides it."""

    seconds: float | None = None
    fps: float | None = None
    audio: bool = False  # whether a clip without a soundtrack fails


def failed_gates(evidence: Evidence, expected: Expected | None = None) -> dict[str, str]:
    """Gate -> reason for every gate that the clip fails; empty for a clip that passes.

    "decodes" is for the reader of the file: a clip that could not be decoded never gets here.
    """
    asked = Expected() if expected is None else expected
    truth: dict[str, Any] = {} if evidence.truth is None else evidence.truth
    seconds, fps = truth.get("seconds", asked.seconds), truth.get("fps", asked.fps)
    failed: dict[str, str] = {}
    if asked.audio and not evidence.offers("audio"):
        failed["sound"] = "has no soundtrack"
    for name, gate in _GATES.items():
        reason = gate(evidence, seconds, fps)
        if reason:
            failed[name] = reason
    return failed


def _video_length(evidence: Evidence, seconds: float | None, fps: float | None) -> str:
    clip = evidence.clip
    if (
        seconds is None
        or not evidence.offers("video")
        or abs(clip.video_seconds - seconds) <= 1 / clip.fps + 1e-6
    ):
        return ""
    return f"lasts {clip.video_seconds:.2f} s instead of {seconds:.2f} s"


def _fps(evidence: Evidence, seconds: float | None, fps: float | None) -> str:
    if fps is None or not evidence.offers("video") or abs(evidence.clip.fps / fps - 1) < 0.005:
        return ""
    return f"has {evidence.clip.fps:g} frames per second instead of {fps:g}"


def _stream_lengths(evidence: Evidence, seconds: float | None, fps: float | None) -> str:
    clip = evidence.clip
    if not (evidence.offers("video") and evidence.offers("audio")) or len(clip.video) == 1:
        return ""
    slack = max(1 / clip.fps, AAC_FRAME / clip.sample_rate) + 1e-6
    if abs(clip.video_seconds - clip.audio_seconds) <= slack:
        return ""
    return f"has {clip.video_seconds:.2f} s of picture but {clip.audio_seconds:.2f} s of sound"


def _finite(evidence: Evidence, seconds: float | None, fps: float | None) -> str:
    if not evidence.offers("audio") or np.isfinite(evidence.clip.audio.numpy()).all():
        return ""
    return "has sound that is not finite"


def _black(evidence: Evidence, seconds: float | None, fps: float | None) -> str:
    if not evidence.offers("video"):
        return ""
    pixels = evidence.luma.reshape(len(evidence.luma), -1)
    rank = int(0.99 * (pixels.shape[1] - 1))
    share = float((np.partition(pixels, rank, axis=1)[:, rank] < BLACK_LUMA).mean())
    return f"is black in {share:.0%} of its frames" if share > BLACK_SHARE else ""


def _frozen(evidence: Evidence, seconds: float | None, fps: float | None) -> str:
    if not evidence.offers("video") or len(evidence.luma) < 2:
        return ""
    share = longest_run(~changed_frames(evidence)) / (len(evidence.luma) - 1)
    return f"shows a still picture for {share:.0%} of its length" if share > FROZEN_SHARE else ""


def _silent(evidence: Evidence, seconds: float | None, fps: float | None) -> str:
    if not evidence.offers("audio") or np.nanmax(np.abs(evidence.clip.audio.numpy())) >= SILENT_PEAK:
        return ""
    truth = evidence.truth
    if truth is not None and truth.get("ambience") == "silence" and truth.get("events") == []:
        return ""
    return "is silent"


def _clipped(evidence: Evidence, seconds: float | None, fps: float | None) -> str:
    if not evidence.offers("audio"):
        return ""
    share = clipped_share(evidence.clip.audio.numpy())
    return f"is clipped in {share:.1%} of its samples" if share > CLIPPED_SHARE else ""


_GATES: dict[str, Callable[[Evidence, float | None, float | None], str]] = {
    "duration": _video_length,
    "frame rate": _fps,
    "equal lengths": _stream_lengths,
    "finite": _finite,
    "not black": _black,
    "not frozen": _frozen,
    "not silent": _silent,
    "not clipped": _clipped,
}

#: All gates by name, in the order of the table.
GATES = ("decodes", "sound", *_GATES)


def changed_frames(evidence: Evidence) -> np.ndarray:
    """(T - 1,) whether each frame differs from the one before in more than coding noise."""
    change = np.abs(np.diff(evidence.luma, axis=0)).reshape(len(evidence.luma) - 1, -1)
    rank = int(0.999 * (change.shape[1] - 1))
    return np.partition(change, rank, axis=1)[:, rank] > SAME_FRAME


def longest_run(flags: np.ndarray) -> int:
    """Length of the longest run of True."""
    padded = np.concatenate([[0], flags.astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(padded))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def clipped_share(audio: np.ndarray) -> float:
    """Share of samples (channels, S) in runs of full scale."""
    full = np.abs(audio) >= FULL_SCALE
    if not full.any():
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(full, min(CLIPPED_RUN, full.shape[1]), axis=1).all(
        axis=-1
    )
    inside = np.zeros(full.shape, np.bool_)
    for k in range(min(CLIPPED_RUN, full.shape[1])):
        inside[:, k : k + windows.shape[1]] |= windows
    return float(inside.mean())
