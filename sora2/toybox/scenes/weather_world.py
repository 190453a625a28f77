"""The world of scene `weather`: drops that fall and land, gusts that bend what grows, lightning far away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sora2.toybox.thunder import thunder_seconds
from sora2.toybox.weather_sound import DROP_HZ

#: World units from the top: where the meadow begins, and where near drops land.
HORIZON, NEAR_GROUND = 0.60, (0.84, 0.97)


@dataclass(frozen=True)
class RainLevel:
    """`intensity` scales the hiss; drops per second and per world unit of width."""

    intensity: float
    far_rate: float
    near_rate: float


RAINS: Mapping[str, RainLevel] = MappingProxyType(
    {
        "none": RainLevel(0.0, 0.0, 0.0),
        "light": RainLevel(0.25, 25.0, 6.0),
        "heavy": RainLevel(1.0, 80.0, 14.0),
    }
)
#: Mean strength of the gusts: scales roar and sway.
WINDS: Mapping[str, float] = MappingProxyType({"calm": 0.05, "breeze": 0.35, "storm": 0.9})
#: Metres to the lightning, and seconds between strikes in a long clip.
THUNDERS: Mapping[str, tuple[float, float]] = MappingProxyType({"near": (60.0, 140.0), "far": (220.0, 420.0)})
STRIKE_GAP_SECONDS = (4.0, 8.0)
#: How fast the gusts change at each pacing.
GUST_PACES: Mapping[str, float] = MappingProxyType({"slow": 0.6, "normal": 1.0, "fast": 1.6})

#: Fall of near drops in world units per second; far drops fall slower by perspective.
FALL_SPEED = 2.6
#: Sideways over downwards speed of rain in a gust of strength 1.
SLANT = 0.45
#: Sway of the tip of a plant of height 1 in a gust of strength 1, in world units.
SWAY = 0.55
#: A flash dims as exp(-t / this); it flickers once.
FLASH_SECONDS, FLICKER_SECONDS = 0.09, 0.13


@dataclass(frozen=True)
class Gusts:
    """Strength of the wind: `mean * exp(depth * (sum of three slow waves))`, always above 0."""

    mean: float
    pace: float
    phases: tuple[float, float, float]

    RATES = (0.43, 0.9, 1.7)  # Hz
    DEPTHS = (0.32, 0.28, 0.16)

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """(T,) strength at instants (T,)."""
        waves = [
            depth * np.sin(2 * np.pi * self.pace * rate * seconds + phase)
            for rate, depth, phase in zip(self.RATES, self.DEPTHS, self.phases, strict=True)
        ]
        return np.asarray(self.mean * np.exp(sum(waves)))


@dataclass(frozen=True)
class Drops:
    """Falling drops, all (N,): they fall straight along the slant and land at (x, y) at `landing_seconds`."""

    landing_seconds: np.ndarray
    x: np.ndarray
    y: np.ndarray
    speed: np.ndarray  # world units per second downwards
    slant: float  # sideways over downwards

    def at(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """x, y of all drops at one instant; after landing they stay."""
        left = np.maximum(self.landing_seconds - seconds, 0.0)
        return self.x - self.slant * self.speed * left, self.y - self.speed * left


def depth_scale(y: np.ndarray) -> np.ndarray:
    """Apparent size of things that stand on the ground at y, 1 at the lower edge of the picture."""
    return np.clip(0.25 + 0.75 * (y - HORIZON) / (1 - HORIZON), 0.2, 1.0)


def draw_drops(
    rng: np.random.Generator,
    rate: float,
    ground: tuple[float, float],
    slant: float,
    across: tuple[float, float],
    seconds: float,
) -> Drops:
    """Drops that land at random times and places, `rate` per second and world unit, in order of landing.

    `across` and `ground` are the ranges of x and y where they land. Those that land up to half a second after
    the clip are drawn too, for they are in the air at its end.
    """
    span = seconds + 0.5
    count = int(rng.poisson(rate * (across[1] - across[0]) * span)) if rate > 0 else 0
    landing = np.sort(rng.uniform(0.0, span, count))
    x, y = rng.uniform(*across, count), rng.uniform(*ground, count)
    return Drops(landing, x, y, FALL_SPEED * depth_scale(y) * rng.uniform(0.9, 1.1, count), slant)


@dataclass(frozen=True)
class Strike:
    """One lightning."""

    flash_seconds: float
    distance_metres: float
    x: float  # world units, where the bolt meets the horizon

    @property
    def thunder_seconds(self) -> float:
        return thunder_seconds(self.flash_seconds, self.distance_metres)

    def light(self, seconds: np.ndarray) -> np.ndarray:
        """(T,) brightness of the flash in [0, 1] at instants (T,): two decaying strokes."""
        light = np.zeros(seconds.shape)
        for delay, strength in ((0.0, 1.0), (FLICKER_SECONDS, 0.7)):
            age = seconds - self.flash_seconds - delay
            light = np.maximum(
                light, np.where(age >= 0, strength * np.exp(-np.maximum(age, 0) / FLASH_SECONDS), 0.0)
            )
        return light


def drop_pitch(rng: np.random.Generator, count: int) -> np.ndarray:
    """(N,) Hz, one of `DROP_HZ` for each near drop."""
    return np.asarray(DROP_HZ)[rng.integers(0, len(DROP_HZ), count)]
