"""What a toybox is asked for: seed, split, scenes, and the shape of its clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sora2.errors import UserError

Number = TypeVar("Number", float, np.ndarray)

#: train, validation and test share one distribution without the held-out combinations; every clip of
#: `compositional` has at least one held-out combination; `extrapolation` leaves the ranges of speed and
#: gravity.
SPLITS = ("train", "validation", "test", "compositional", "extrapolation")


class ToyboxError(UserError):
    """An impossible world was asked for. The message names the parameter and its range."""


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `ToyboxError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ToyboxError(f"{name}={value!r} is unknown: choose from {', '.join(choices)}")


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise `ToyboxError` unless `low <= value <= high`."""
    if not low <= value <= high:
        limit = f"at least {low:g}" if high == float("inf") else f"in [{low:g}, {high:g}]"
        raise ToyboxError(f"{name}={value} must be {limit}")


@dataclass(frozen=True)
class ToyboxConfig:
    """Identity (seed, split, scenes) and shape of a family of clips.

    World coordinates: one unit is the picture's shorter side, x to the right, y **down**, origin at the top
    left corner of the picture. Frame k shows the instant `k / fps`; audio sample n is the instant `n /
    sample_rate`.
    """

    seed: int = 0
    split: str = "train"
    scenes: tuple[str, ...] = ("bounce",)
    frames: int = 33
    height: int = 64
    width: int = 64
    fps: float = 16.0
    sample_rate: int = 16000
    channels: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenes", tuple(self.scenes))
        check_range("seed", self.seed, 0)
        check_choice("split", self.split, SPLITS)
        if not self.scenes:
            raise ToyboxError("scenes is empty: name at least one scene")
        check_range("frames", self.frames, 1)
        check_range("height", self.height, 16)
        check_range("width", self.width, 16)
        check_range("fps", self.fps, 1e-3)
        check_range("sample_rate", self.sample_rate, 4000)
        if self.channels not in (1, 2):
            raise ToyboxError(f"channels={self.channels} must be 1 (mono) or 2 (stereo)")

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def samples(self) -> int:
        """Audio samples of one clip."""
        return max(1, round(self.seconds * self.sample_rate))

    @property
    def pixels_per_unit(self) -> int:
        """Pixels of one world unit: the picture's shorter side."""
        return min(self.height, self.width)

    @property
    def world_size(self) -> tuple[float, float]:
        """(width, height) of the picture in world units."""
        return self.width / self.pixels_per_unit, self.height / self.pixels_per_unit

    @property
    def frame_seconds(self) -> np.ndarray:
        """(T,) float64 instants that the frames show."""
        return np.arange(self.frames) / self.fps


def world_to_pixel(position: Number, pixels_per_unit: float) -> Number:
    """World coordinate -> pixel index; integer indices are pixel centres, so world 0 is index -0.5."""
    return position * pixels_per_unit - 0.5


def pixel_to_world(index: Number, pixels_per_unit: float) -> Number:
    """Pixel index (integers at pixel centres) -> world coordinate, the inverse of `world_to_pixel`."""
    return (index + 0.5) / pixels_per_unit
