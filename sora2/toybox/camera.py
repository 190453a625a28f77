"""The camera: where the picture's middle is in the world, and how much it magnifies, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from sora2.toybox.config import ToyboxConfig, check_choice
from sora2.toybox.vocabulary import CAMERAS

#: Seconds of one sweep (pan, zoom) at each pacing, and how far it goes.
_SWEEP_SECONDS: Mapping[str, float] = MappingProxyType({"slow": 3.5, "normal": 2.0, "fast": 1.1})
_PAN_REACH: Mapping[str, float] = MappingProxyType({"slow": 0.07, "normal": 0.10, "fast": 0.12})
_ZOOM_RANGE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"slow": (0.84, 1.0), "normal": (0.78, 1.0), "fast": (0.74, 1.0)}
)
_SHAKE_REACH: Mapping[str, float] = MappingProxyType({"slow": 0.010, "normal": 0.0145, "fast": 0.019})
_PAN_ZOOM, _SHAKE_ZOOM = 0.8, 0.92
_SHAKE_HERTZ = (1.3, 2.1, 3.7)


@dataclass(frozen=True)
class Camera:
    """Per frame (T,), or (1,) when it stands still: the world point at the picture's middle, and the zoom.

    A world point is seen at pixel ((x - camera.x) * s + (width - 1) / 2, (y - camera.y) * s + (height - 1) / 2)
    with s = zoom * pixels_per_unit; integer pixel indices are pixel centres.
    """

    x: np.ndarray
    y: np.ndarray
    zoom: np.ndarray

    @property
    def still(self) -> bool:
        return self.x.size == 1

    def part(self, frames: np.ndarray) -> Camera:
        """The camera at some of its frames (indices)."""
        return self if self.still else Camera(self.x[frames], self.y[frames], self.zoom[frames])

    def scale(self, config: ToyboxConfig) -> np.ndarray:
        """Pixels of one world unit, per frame."""
        return self.zoom * config.pixels_per_unit

    def to_pixel(
        self, config: ToyboxConfig, x: np.ndarray | float, y: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixel indices (column, row) of world points, one per frame."""
        scale = self.scale(config)
        return (
            (x - self.x) * scale + (config.width - 1) / 2,
            (y - self.y) * scale + (config.height - 1) / 2,
        )

    def truth(self, kind: str, frames: int) -> dict[str, Any]:
        """Plain lists of one value per frame."""
        paths = {
            name: np.broadcast_to(getattr(self, name), frames).round(7).tolist()
            for name in ("x", "y", "zoom")
        }
        return {"kind": kind, **paths}


@dataclass(frozen=True)
class CameraMove:
    """A way of moving. Unframed, the whole world box 0..width, 0..height stays in the picture."""

    kind: str = "static"
    pacing: str = "normal"
    direction: float = 1.0  # -1 or 1: first to the left or right, in or out
    phases: tuple[float, ...] = (0.0,) * 6  # of the shake
    #: Framing: the share of the picture's size by which the middle is moved, and what all zooms are multiplied by.
    offset: tuple[float, float] = (0.0, 0.0)
    closeness: float = 1.0

    def at(self, config: ToyboxConfig, seconds: np.ndarray) -> Camera:
        """The camera at `seconds` (T,)."""
        camera = self._unframed(config, seconds)
        width, height = config.world_size
        return Camera(
            camera.x + self.offset[0] * width,
            camera.y + self.offset[1] * height,
            camera.zoom * self.closeness,
        )

    def _unframed(self, config: ToyboxConfig, seconds: np.ndarray) -> Camera:
        check_choice("camera", self.kind, CAMERAS)
        width, height = config.world_size
        x, y = width / 2, height / 2
        if self.kind == "static":
            return Camera(np.array([x]), np.array([y]), np.ones(1))
        sweep = -self.direction * np.cos(math.pi * seconds / _SWEEP_SECONDS[self.pacing])  # (T,)
        still = np.zeros(seconds.size)
        if self.kind == "pan":
            return Camera(x + width * _PAN_REACH[self.pacing] * sweep, y + still, _PAN_ZOOM + still)
        if self.kind == "zoom":
            low, high = _ZOOM_RANGE[self.pacing]
            return Camera(x + still, y + still, low + (high - low) * (0.5 + 0.5 * sweep))
        reach = _SHAKE_REACH[self.pacing]
        wobble = [
            reach
            * sum(
                math.sqrt(1 / (1 + k)) * np.sin(2 * math.pi * hertz * seconds + phase)
                for k, (hertz, phase) in enumerate(zip(_SHAKE_HERTZ, phases, strict=True))
            )
            for phases in (self.phases[:3], self.phases[3:])
        ]
        return Camera(x + wobble[0], y + wobble[1], _SHAKE_ZOOM + still)


def draw_move(kind: str, pacing: str, rng: np.random.Generator) -> CameraMove:
    """A move of this kind; its direction and phases are drawn."""
    direction = 1.0 if rng.random() < 0.5 else -1.0
    return CameraMove(kind, pacing, direction, tuple(rng.uniform(0, 2 * math.pi, 6).tolist()))
