"""A source that passes a still listener on a straight line: retarded time, level, Doppler ratio, exactly.

The listener hears at `t` what the source gave off at `t_e = t - r(t_e) / c`. For a straight line at constant
speed `v` and nearest distance `d`, with times counted from the moment of nearest distance,
`c^2 (t - t_e)^2 = d^2 + v^2 t_e^2` is quadratic in `t_e`, so nothing is approximated: any sound that is
known as a function of time is heard right by evaluating it at `t_e`. The pitch ratio is `dt_e / dt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sora2.toybox.config import check_range

#: Metres per second.
SPEED_OF_SOUND = 340.0

Time = TypeVar("Time", float, np.ndarray)


@dataclass(frozen=True)
class PassBy:
    """A straight line at constant speed past a listener at the origin."""

    closest_seconds: float  # when the source itself is nearest
    closest_metres: float  # nearest distance between source and listener, above 0
    speed: float  # metres per second, positive to the right

    def __post_init__(self) -> None:
        check_range("closest_metres", self.closest_metres, 0.1)
        check_range("speed", abs(self.speed), 0.0, 0.9 * SPEED_OF_SOUND)

    def along(self, seconds: Time) -> Time:
        """Metres to the right of the nearest point, at the source's own time."""
        return self.speed * (seconds - self.closest_seconds)

    def distance(self, seconds: Time) -> Time:
        """Metres between source and listener, at the source's own time."""
        return (self.closest_metres**2 + self.along(seconds) ** 2) ** 0.5

    def heard_seconds(self, emitted: Time) -> Time:
        """When the listener hears what is given off at `emitted`."""
        return emitted + self.distance(emitted) / SPEED_OF_SOUND

    def emitted_seconds(self, heard: Time) -> Time:
        """When that was given off which is heard at `heard`: the inverse of `heard_seconds`."""
        c, v = SPEED_OF_SOUND, self.speed
        late = heard - self.closest_seconds
        return self.closest_seconds + (c * c * late - self._root(late)) / (c * c - v * v)

    def pitch_ratio(self, heard: Time) -> Time:
        """Heard over given-off frequency, at the listener's time `heard`."""
        c, v = SPEED_OF_SOUND, self.speed
        late = heard - self.closest_seconds
        return (c * c - (c * v) ** 2 * late / self._root(late)) / (c * c - v * v)

    def _root(self, late: Time) -> Time:
        c, v = SPEED_OF_SOUND, self.speed
        return ((c * v * late) ** 2 + self.closest_metres**2 * (c * c - v * v)) ** 0.5

    @property
    def pitch_ratios(self) -> tuple[float, float]:
        """The ratio long before and long after the pass."""
        c, v = SPEED_OF_SOUND, abs(self.speed)
        return c / (c - v), c / (c + v)
