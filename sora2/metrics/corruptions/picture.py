"""Damage to the picture as a signal."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from sora2.media import clip_to_bytes, read_clip
from sora2.metrics.corruptions.registry import Subject, corruption
from sora2.types import Clip


def _with(subject: Subject, video: np.ndarray) -> Clip:
    """The clip with other pictures (T, H, W, 3)."""
    whole = np.clip(np.rint(video), 0, 255).astype(np.uint8)
    return subject.clip.replace(video=torch.from_numpy(np.ascontiguousarray(whole)))


def _video(subject: Subject) -> np.ndarray:
    return subject.clip.video.numpy().astype(np.float32)


def _chosen(subject: Subject, salt: str, share: float) -> np.ndarray:
    """Frames from 1 on that damage falls on: more of the same ones with a larger share."""
    order = subject.rng(salt).permutation(np.arange(1, len(subject.clip.video)))
    return np.sort(order[: round(share * len(order))])


@corruption("blur", unit="pixels of 64", severities=(0, 0.5, 1, 1.5, 2.5), neutral=0, streams=("video",))
def blur(subject: Subject, sigma: float) -> Clip:
    """Gaussian blur."""
    scaled = sigma * min(subject.clip.video.shape[1:3]) / 64
    return _with(subject, np.stack([cv2.GaussianBlur(f, (0, 0), scaled) for f in _video(subject)]))


@corruption("picture noise", unit="levels", severities=(0, 2, 4, 8, 16), neutral=0, streams=("video",))
def picture_noise(subject: Subject, deviation: float) -> Clip:
    """White noise, new in every frame."""
    video = _video(subject)
    grain = subject.rng("picture noise").standard_normal(video.shape).astype(np.float32)
    return _with(subject, video + deviation * grain)


@corruption("compression", unit="crf", severities=(0, 18, 28, 36, 44), neutral=0, streams=("video",))
def compression(subject: Subject, crf: float) -> Clip:
    """H.264 at a constant rate factor."""
    silent = subject.clip.replace(audio=None, sample_rate=0)
    back = read_clip(clip_to_bytes(silent, crf=round(crf)), audio="ignore").video
    return subject.clip.replace(video=back[: len(silent.video)])


@corruption("flicker", unit="levels", severities=(0, 2, 4, 8, 16), neutral=0, streams=("video",))
def flicker(subject: Subject, amplitude: float) -> Clip:
    """The brightness of every frame changed at random."""
    video = _video(subject)
    gain = subject.rng("flicker").standard_normal(len(video)).astype(np.float32)
    return _with(subject, video + amplitude * gain[:, None, None, None])


@corruption("ghosting", unit="", severities=(0, 0.1, 0.2, 0.35, 0.5), neutral=0, streams=("video",))
def ghosting(subject: Subject, share: float) -> Clip:
    """Every frame mixed with the one before."""
    video = _video(subject)
    return _with(subject, (1 - share) * video + share * np.concatenate([video[:1], video[:-1]]))


@corruption("banding", unit="levels", severities=(1, 4, 6, 8, 12), neutral=1, streams=("video",))
def banding(subject: Subject, step: float) -> Clip:
    """Brightness rounded to coarse steps."""
    return _with(subject, np.floor(_video(subject) / step + 0.5) * step)


@corruption("picture seam", unit="levels", severities=(0, 4, 8, 16, 32), neutral=0, streams=("video",))
def picture_seam(subject: Subject, levels: float) -> Clip:
    """The second half brighter, as where two chunks meet."""
    video = _video(subject)
    video[len(video) // 2 :] += levels
    return _with(subject, video)


@corruption(
    "frames dropped", unit="of frames", severities=(0, 0.1, 0.2, 0.4, 0.6), neutral=0, streams=("video",)
)
def frames_dropped(subject: Subject, share: float) -> Clip:
    """Frames at random replaced by the one shown before."""
    video = _video(subject)
    for k in _chosen(subject, "frames dropped", share):
        video[k] = video[k - 1]
    return _with(subject, video)


@corruption(
    "frames frozen", unit="of the clip", severities=(0, 0.15, 0.3, 0.5, 0.75), neutral=0, streams=("video",)
)
def frames_frozen(subject: Subject, share: float) -> Clip:
    """The end stands still."""
    video = _video(subject)
    last = max(1, round((1 - share) * len(video)))
    video[last:] = video[last - 1]
    return _with(subject, video)


@corruption(
    "frames swapped", unit="of frames", severities=(0, 0.1, 0.2, 0.4, 0.8), neutral=0, streams=("video",)
)
def frames_swapped(subject: Subject, share: float) -> Clip:
    """Neighbouring frames exchanged."""
    video = _video(subject)
    pairs = subject.rng("frames swapped").permutation(np.arange(0, len(video) - 1, 2))
    for k in pairs[: round(share * len(pairs))]:
        video[[k, k + 1]] = video[[k + 1, k]]
    return _with(subject, video)


@corruption("black", unit="of the clip", severities=(0, 0.25, 0.5, 0.75, 1), neutral=0, streams=("video",))
def black(subject: Subject, share: float) -> Clip:
    """The end is black."""
    video = _video(subject)
    video[round((1 - share) * len(video)) :] = 0
    return _with(subject, video)


@corruption("backwards", unit="", severities=(0, 1), neutral=0, streams=("video",))
def backwards(subject: Subject, share: float) -> Clip:
    """The pictures in the opposite order."""
    return _with(subject, _video(subject)[::-1])
