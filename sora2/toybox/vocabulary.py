"""The public tables of the toybox: colours, materials, sizes, gravities, backgrounds, styles, ambiences.

Metrics and demos read these to know what a clip should look and sound like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Ball colours, sRGB 0-255. Saturated, while all backgrounds are muted, so that a ball is found by
#: saturation.
COLORS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (222, 40, 44),
        "orange": (245, 136, 24),
        "yellow": (246, 214, 40),
        "green": (36, 168, 70),
        "blue": (40, 92, 224),
        "purple": (146, 58, 190),
    }
)

#: Ball radii in world units (1 = the picture's shorter side): 5 and 8 pixels on a 64 x 64 picture.
SIZES: Mapping[str, float] = MappingProxyType({"small": 5 / 64, "big": 8 / 64})


@dataclass(frozen=True)
class Material:
    """Mechanics and sound of one material.

    An impact rings with the modes `frequency_hz[size] * ratios[k]`, amplitude `amplitudes[k]`, decaying as
    `exp(-t / decay_seconds[k])`, after an attack `1 - exp(-t / attack_seconds)`.
    """

    restitution: float  # speed after / speed before a wall impact
    density: float  # mass per world unit cubed, relative to wood
    frequency_hz: Mapping[str, float]  # size -> lowest mode
    ratios: tuple[float, ...]
    amplitudes: tuple[float, ...]
    decay_seconds: tuple[float, ...]
    attack_seconds: float

    def mode_frequencies(self, size: str) -> tuple[float, ...]:
        """All mode frequencies in Hz of a ball of this material and `size`."""
        return tuple(self.frequency_hz[size] * ratio for ratio in self.ratios)


#: Rubber thuds low and short, wood knocks in the middle, metal rings bright and long. All modes lie in
#: 150-3500 Hz.
MATERIALS: Mapping[str, Material] = MappingProxyType(
    {
        "rubber": Material(
            restitution=0.85,
            density=1.2,
            frequency_hz=MappingProxyType({"small": 235.0, "big": 155.0}),
            ratios=(1.0, 1.83, 5.2),
            amplitudes=(1.0, 0.35, 0.18),
            decay_seconds=(0.055, 0.030, 0.006),
            attack_seconds=0.0004,
        ),
        "wood": Material(
            restitution=0.6,
            density=1.0,
            frequency_hz=MappingProxyType({"small": 640.0, "big": 420.0}),
            ratios=(1.0, 2.36, 3.97),
            amplitudes=(1.0, 0.45, 0.25),
            decay_seconds=(0.050, 0.025, 0.012),
            attack_seconds=0.0002,
        ),
        "metal": Material(
            restitution=0.7,
            density=3.0,
            frequency_hz=MappingProxyType({"small": 1320.0, "big": 900.0}),
            ratios=(1.0, 1.48, 2.09, 2.59),
            amplitudes=(1.0, 0.6, 0.45, 0.3),
            decay_seconds=(0.220, 0.160, 0.100, 0.050),
            attack_seconds=0.0001,
        ),
    }
)

#: Downward acceleration in world units per second squared.
GRAVITIES: Mapping[str, float] = MappingProxyType({"low": 1.5, "normal": 4.0, "high": 9.0})

BACKGROUNDS = ("plain", "striped", "hills")
STYLES = ("cartoon", "painterly", "cinematic", "moody", "pencil")
CAMERAS = ("static", "pan", "zoom", "shake")
PACINGS = ("slow", "normal", "fast")
LIGHTS = ("day", "dusk", "lamp")
AMBIENCES = ("silence", "rain", "wind")
AMBIENCE_LEVELS = ("quiet", "normal", "loud")
#: What may stand in the way of a ball: nothing, round pegs, a ramp in the corner.
OBSTACLES = ("none", "pegs", "ramp")

#: Combinations that never occur in train, validation and test. A combination of ball attributes is met when
#: one ball has all of it; a combination of clip attributes when the clip has all of it.
HELD_OUT: tuple[Mapping[str, str], ...] = tuple(
    MappingProxyType(combination)
    for combination in (
        {"color": "red", "material": "metal"},
        {"color": "blue", "material": "rubber"},
        {"color": "green", "material": "wood"},
        {"gravity": "low", "ambience": "wind"},
        {"style": "cinematic", "background": "striped"},
    )
)
