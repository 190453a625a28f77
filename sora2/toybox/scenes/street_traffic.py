"""The street of scene `street`: a camera that sees and hears two lanes, and the vehicles that pass.

Metres: X to the right of the camera, Z away from it, Y up from the road. The camera is the listener. It sees
in perspective: a point is drawn at `x = centre + FOCAL * X / Z`, `y = horizon + FOCAL * (CAMERA_HEIGHT - Y) /
Z` world units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sora2.toybox.doppler import PassBy

FOCAL = 0.77  # world units per unit slope: 1 world unit of the near lane is 11 m
HORIZON = 0.46  # world units from the top, of a picture of height 1
CAMERA_HEIGHT, SOURCE_HEIGHT = 4.2, 0.5  # metres
#: lane -> metres from the camera to the side of the vehicles that it sees.
LANES: Mapping[str, float] = MappingProxyType({"near": 8.5, "far": 12.0})
#: pacing -> metres per second.
SPEEDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"slow": (8.0, 11.0), "normal": (14.0, 18.0), "fast": (22.0, 28.0)}
)
#: The same for split `test_physics_ood`.
OUTSIDE_SPEEDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"slow": (4.0, 6.5), "normal": (32.0, 38.0), "fast": (38.0, 46.0)}
)
#: Seconds between vehicles of one lane in a long clip.
HEADWAY_SECONDS = (3.0, 6.0)
#: Sign of the speed.
DIRECTIONS: Mapping[str, int] = MappingProxyType({"right": 1, "left": -1})
#: kind -> (length, height) in metres.
VEHICLES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"car": (4.2, 1.5), "truck": (7.2, 3.0), "motorbike": (2.1, 1.5)}
)


@dataclass(frozen=True)
class Vehicle:
    """One vehicle: looks, lane, and the straight line that it drives."""

    kind: str
    color: str
    lane: str
    direction: str
    speed: float  # metres per second, above 0
    closest_seconds: float  # when it is straight ahead of the camera
    horn_seconds: float | None = None  # when its horn begins, by its own time

    @property
    def metres(self) -> float:
        """Z: distance between camera and lane."""
        return LANES[self.lane]

    @property
    def length(self) -> float:
        return VEHICLES[self.kind][0]

    @property
    def height(self) -> float:
        return VEHICLES[self.kind][1]

    def pass_by(self) -> PassBy:
        """The line of its source of sound past the camera."""
        nearest = math.hypot(self.metres, CAMERA_HEIGHT - SOURCE_HEIGHT)
        return PassBy(self.closest_seconds, nearest, DIRECTIONS[self.direction] * self.speed)

    @property
    def scale(self) -> float:
        """World units per metre in its lane."""
        return FOCAL / self.metres

    def picture_x(self, along_metres: np.ndarray, centre: float) -> np.ndarray:
        """x in world units of points `along_metres` to the right of straight ahead."""
        return centre + self.scale * along_metres

    @property
    def picture_ground(self) -> float:
        """y in world units where its wheels touch the road."""
        return HORIZON + self.scale * CAMERA_HEIGHT


def visible(x: np.ndarray, half_length: float, width: float) -> np.ndarray:
    """(T,) whether any part of a vehicle centred at x (T,) is in a picture of `width` world units."""
    return np.asarray((x + half_length > 0) & (x - half_length < width))
