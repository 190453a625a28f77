"""The units of a generated clip, and the limits of the checkpoint that generates it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sora2.generate.request import SamplingConfig


@dataclass(frozen=True)
class Grid:
    """The units of a generated clip."""

    height: int
    width: int
    fps: float
    sample_rate: int
    channels: int

    def samples(self, frames: int) -> int:
        """Sound samples that belong to the first `frames` frames."""
        return round(frames / self.fps * self.sample_rate)

    def frames_of(self, seconds: float) -> int:
        return max(1, round(seconds * self.fps))


@dataclass(frozen=True)
class World:
    """What a checkpoint was trained on: the defaults of a request, and the longest window."""

    grid: Grid
    frames: int  # of the trained clip: the longest window
    temporal_stride: int  # of the video codec
    cell: int  # pixels per side of a token
    sampling: SamplingConfig
    chunk_seconds: float | None = (
        None  # of a causal model: long clips are streamed, instead of cut into windows
    )
    reads_times: bool = False  # prompts may say when words are said
    references: bool = False  # a person's face and voice may be given

    @property
    def causal(self) -> bool:
        return self.chunk_seconds is not None

    @property
    def seconds(self) -> float:
        """Of the trained clip."""
        return self.frames / self.grid.fps

    def at(self, fps: float) -> World:
        """The same at another frame rate: windows as long as those of training at most, in frames and in seconds, so
        that no position leaves the trained range."""
        frames = self.frames
        if fps < self.grid.fps and frames > 1:
            most = int(self.seconds * fps + 1e-6)
            frames = 1 + max(1, (most - 1) // self.temporal_stride) * self.temporal_stride
        return replace(self, grid=replace(self.grid, fps=fps), frames=frames)

    def whole(self, frames: int) -> int:
        """The smallest legal number of frames, 1 + k * temporal_stride, that holds `frames`."""
        return 1 + math.ceil((frames - 1) / self.temporal_stride) * self.temporal_stride
