"""Training windows cut out of raw clips, where things move, and mirrored clips: what the codecs train on.

Most of a picture stands still and is easy. A window of a moving place gives a codec several times the information
of a whole clip for the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sora2.data.errors import DataError
from sora2.data.order import uniform
from sora2.types import Clip

#: Windows begin at multiples of this many pixels, so that the grid of a codec's patches stays where it was.
GRID = 8
#: A place where nothing moves is drawn with this share of the mean weight.
STILL_SHARE = 0.1


@dataclass(frozen=True)
class WindowConfig:
    """A share of the batches holds windows of `frames` x `height` x `width`, the others whole clips."""

    frames: int
    height: int
    width: int
    share: float = 0.75

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) < GRID or getattr(self, name) % GRID:
                raise DataError(f"data.window.{name}={getattr(self, name)} must be a multiple of {GRID}")
        if self.frames < 1:
            raise DataError(f"data.window.frames={self.frames} must be at least 1")
        if not 0 <= self.share <= 1:
            raise DataError(f"data.window.share={self.share} must be in [0, 1]")


def is_window_batch(config: WindowConfig, seed: int, batch_start: int) -> bool:
    """Whether the global batch that starts at sample `batch_start` holds windows: the same on every rank."""
    return bool(uniform(seed, "window batch", batch_start, 1)[0] < config.share)


def cut_windows(clips: Sequence[Clip], config: WindowConfig, seed: int, start: int) -> list[Clip]:
    """One window of each clip; sample `start + i` of the global order decides where. The sound is left out."""
    when = uniform(seed, "window frame", start, len(clips))
    where = uniform(seed, "window place", start, len(clips))
    return [_cut(clip, config, float(a), float(b)) for clip, a, b in zip(clips, when, where, strict=True)]


def _cut(clip: Clip, config: WindowConfig, when: float, where: float) -> Clip:
    if clip.video is None:
        raise DataError(f"{clip.key} has no video: data.window cuts pictures; set data.require_video=true")
    frames, height, width, _ = clip.video.shape
    if frames < config.frames or height < config.height or width < config.width:
        raise DataError(
            f"{clip.key} has {frames} frames of {height} x {width}, fewer than data.window asks for "
            f"({config.frames} of {config.height} x {config.width})"
        )
    first = min(int(when * (frames - config.frames + 1)), frames - config.frames)
    piece = clip.video[first : first + config.frames]  # (t, H, W, 3)
    weights = window_weights(piece, config.height, config.width)  # (rows, columns)
    cumulative = np.cumsum(weights.ravel())
    place = min(int(np.searchsorted(cumulative, where * cumulative[-1], side="right")), weights.size - 1)
    row, column = divmod(place, weights.shape[1])
    top, left = row * GRID, column * GRID
    return clip.replace(
        video=piece[:, top : top + config.height, left : left + config.width], audio=None, sample_rate=0
    )


def window_weights(video: Tensor, height: int, width: int) -> np.ndarray:
    """(t, H, W, 3) uint8 -> (rows, columns) weight of each window on the grid: how much moves in it."""
    pixels = video.numpy().astype(np.int16)
    motion = np.abs(np.diff(pixels, axis=0)).mean((0, 3)) if len(pixels) > 1 else np.zeros(video.shape[1:3])
    rows, columns = motion.shape[0] // GRID, motion.shape[1] // GRID
    cells = motion[: rows * GRID, : columns * GRID].reshape(rows, GRID, columns, GRID).mean((1, 3))
    windows = np.lib.stride_tricks.sliding_window_view(cells, (height // GRID, width // GRID)).mean((2, 3))
    return windows + STILL_SHARE * windows.mean() + 1e-3


def mirror(clip: Clip) -> Clip:
    """The clip seen in a mirror: left and right exchanged, in the sound too."""
    video = None if clip.video is None else clip.video.flip(2)
    audio = None if clip.audio is None else clip.audio.flip(0)
    return clip.replace(video=video, audio=audio)
