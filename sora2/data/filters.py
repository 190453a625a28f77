"""Clips not worth training on, each for a named reason with the number that decided."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.types import Clip

#: What every reason means; the report counts them by these names.
REASONS = {
    "short_shot": "the shot is shorter than the clip (seconds)",
    "no_audio": "the file has no soundtrack",
    "silent": "the sound is quieter than the threshold (dB full scale, RMS)",
    "black": "more than half of the frames are black (share of black frames)",
    "frozen": "the picture stands still (share of frames equal to the one before)",
}
_LUMA = torch.tensor([0.2126, 0.7152, 0.0722])  # BT.709


@dataclass(frozen=True)
class Filters:
    """Thresholds; None switches a filter off."""

    silent_below_db: float | None = -60.0  # RMS over clip and channels, 0 dB = full scale
    black_share: float | None = 0.5
    frozen_share: float | None = 0.9
    black_luma: float = 0.1  # a black frame has 98 % of its pixels below this (0 black, 1 white)
    frozen_change: float = 3.0  # of 255: no 4 x 4 block of a frozen frame changes by more


def loudness_db(audio: Tensor) -> float:
    """RMS of (channels, S) over all samples and channels in dB full scale; -inf for digital silence."""
    rms = float(audio.pow(2).mean().sqrt())
    return 20 * math.log10(rms) if rms > 0 else -math.inf


def black_share(video: Tensor, black_luma: float) -> float:
    """Share of the frames of (T, H, W, 3) of which 98 % of the pixels are darker than `black_luma`."""
    luma = (video.float() / 255) @ _LUMA  # (T, H, W)
    dark = (luma < black_luma).float().flatten(1).mean(dim=1)  # (T,)
    return float((dark >= 0.98).float().mean())


def frozen_share(video: Tensor, frozen_change: float) -> float:
    """Share of the frames of (T, H, W, 3) that equal the one before, but for coding noise; 0 for a single
    frame.

    Judged on the block that changes most, so that a small moving thing on a still background counts as
    motion.
    """
    if video.shape[0] < 2:
        return 0.0
    luma = video.float() @ _LUMA  # (T, H, W)
    change = (luma[1:] - luma[:-1])[:, None]  # (T - 1, 1, H, W)
    blocks = torch.nn.functional.avg_pool2d(change, 4, ceil_mode=True).abs()
    return float((blocks.flatten(1).amax(dim=1) <= frozen_change).float().mean())


def reject(clip: Clip, filters: Filters) -> tuple[str, float] | None:
    """(reason, value) of the first filter that refuses the clip, or None."""
    if clip.audio is not None and filters.silent_below_db is not None:
        level = loudness_db(clip.audio)
        if level < filters.silent_below_db:
            return "silent", max(level, -999.0)  # JSON has no infinity
    if clip.video is not None and filters.black_share is not None:
        share = black_share(clip.video, filters.black_luma)
        if share > filters.black_share:
            return "black", share
    if clip.video is not None and filters.frozen_share is not None:
        share = frozen_share(clip.video, filters.frozen_change)
        if share >= filters.frozen_share:
            return "frozen", share
    return None
