"""What a toybox is asked for: seed, split, scenes, and the shape of its clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from sora2.errors import UserError
from sora2.toybox.vocabulary import (
    AMBIENCE_LEVELS,
    CAMERAS,
    LIGHTS,
    OBSTACLES,
    PACINGS,
    STYLES,
)

Number = TypeVar("Number", float, np.ndarray)

#: train, validation and test share one distribution without the held-out combinations. Every clip of
#: `test_compositional` has at least one held-out combination; `test_physics_ood` leaves the ranges of speed and
#: gravity (scenes with physics only); `cameo` shows identities never seen in the others (scenes with people).
SPLITS = ("train", "validation", "test", "test_compositional", "test_physics_ood", "cameo")
#: What `Clip.caption` holds: a label, a sentence, a director's paragraph, or what a person would type, which leaves
#: things out. Several joined by "+" are drawn by chance.
CAPTIONS = ("label", "sentence", "paragraph", "prompt")


class ToyboxError(UserError):
    """An impossible world was asked for. The message names the parameter and its range."""


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `ToyboxError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ToyboxError(f"{name}={value!r} is unknown: choose from {', '.join(choices)}")


def caption_kinds(caption: str) -> tuple[str, ...]:
    """The kinds of caption that `ToyboxConfig.caption` names."""
    return tuple(caption.split("+"))


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise `ToyboxError` unless `low <= value <= high`."""
    if not low <= value <= high:
        limit = f"at least {low:g}" if high == float("inf") else f"in [{low:g}, {high:g}]"
        raise ToyboxError(f"{name}={value} must be {limit}")


@dataclass(frozen=True)
class ToyboxConfig:
    """Identity (seed, split, scenes), shape, and allowed controls of a family of clips.

    The defaults are the narrow world: balls in an empty box, two styles, a camera that stands still, even
    light. `whole_world` allows everything.

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
    styles: tuple[str, ...] = ("cartoon", "cinematic")
    cameras: tuple[str, ...] = ("static",)
    pacings: tuple[str, ...] = ("normal",)
    lights: tuple[str, ...] = ("day",)
    ambience_levels: tuple[str, ...] = ("normal",)
    obstacles: tuple[str, ...] = ("none",)
    rolling: bool = False  # balls on the floor roll with friction and are heard; else they glide, silent
    caption: str = "sentence"
    takes: int = 1  # clips in a row that show one person, where each would have one of its own

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0)
        check_choice("split", self.split, SPLITS)
        for kind in caption_kinds(self.caption):
            check_choice("caption", kind, CAPTIONS)
        object.__setattr__(self, "scenes", tuple(self.scenes))
        if not self.scenes:
            raise ToyboxError("scenes is empty: name at least one scene")
        for name, choices in _ALLOWED.items():
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values:
                raise ToyboxError(f"{name} is empty: choose from {', '.join(choices)}")
            for value in values:
                check_choice(name, value, choices)
        check_range("takes", self.takes, 1)
        check_range("frames", self.frames, 1, 100_000)
        check_range("height", self.height, 16, 1024)
        check_range("width", self.width, 16, 1024)
        check_range("fps", self.fps, 1, 120)
        check_range("sample_rate", self.sample_rate, 4000, 96_000)
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


_ALLOWED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "styles": STYLES,
        "cameras": CAMERAS,
        "pacings": PACINGS,
        "lights": LIGHTS,
        "ambience_levels": AMBIENCE_LEVELS,
        "obstacles": OBSTACLES,
    }
)

#: The scenes of the whole world. Clip i shows scene i mod their number.
WHOLE_SCENES = ("bounce", "occlude", "cradle", "pendulum", "strike", "talk", "weather", "street", "story")


def whole_world(**changes: Any) -> ToyboxConfig:
    """Every scene, style, camera, pacing, light and obstacle; `changes` are fields of `ToyboxConfig`."""
    everything: dict[str, Any] = dict(_ALLOWED) | {
        "scenes": WHOLE_SCENES,
        "rolling": True,
        "caption": "label+sentence+paragraph",
    }
    return ToyboxConfig(**(everything | changes))


def world_to_pixel(position: Number, pixels_per_unit: float) -> Number:
    """World coordinate -> pixel index (integers are pixel centres) under the camera that stands still.

    World 0 is index -0.5. For other cameras see `Camera.to_pixel`.
    """
    return position * pixels_per_unit - 0.5


def pixel_to_world(index: Number, pixels_per_unit: float) -> Number:
    """Pixel index (integers at pixel centres) -> world coordinate, the inverse of `world_to_pixel`."""
    return (index + 0.5) / pixels_per_unit
