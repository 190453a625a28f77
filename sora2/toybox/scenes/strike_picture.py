"""What scene `strike` looks like: bars that hang from a rail, lowest on the left, and a mallet from above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sora2.toybox.layers import Color, Layer
from sora2.toybox.scenes.strike_melody import BARS
from sora2.toybox.scenes.strike_motion import Hit, mallet_path, ring
from sora2.toybox.shapes import box, capsule, circle

#: Bars by pitch, from the lowest.
BAR_COLORS: tuple[Color, ...] = (
    (222, 40, 44),
    (245, 136, 24),
    (246, 214, 40),
    (110, 190, 50),
    (24, 160, 130),
    (40, 110, 224),
    (126, 66, 196),
    (226, 74, 160),
)
HEAD_RADIUS, HEAD_COLOR = 0.050, (240, 56, 110)
STICK_COLOR, RAIL_COLOR = (150, 96, 52), (112, 74, 46)
SPAN = 0.88  # width of the row, world units
FLOOR_HEIGHT = 6 / 64
#: A struck bar swings by this (world units), this often, dying out with its flash.
SWING, SWING_HERTZ, FLASH_SECONDS = 0.016, 6.0, 0.16
#: instrument -> (share of its place that a bar fills, longest bar, shortest bar, material).
_LOOKS = {
    "xylophone": (0.74, 0.40, 0.24, "matte"),
    "marimba": (0.92, 0.40, 0.30, "wood"),
    "bells": (0.66, 0.36, 0.14, "metal"),
}


@dataclass(frozen=True)
class Row:
    """Where the bars are. The mallet touches them at their top edge."""

    instrument: str
    width: float  # of the world
    height: float

    @property
    def floor(self) -> float:
        return self.height - FLOOR_HEIGHT

    @property
    def top(self) -> float:
        return self.height - 0.50

    @property
    def bar_width(self) -> float:
        return SPAN / BARS * _LOOKS[self.instrument][0]

    def x(self, bar: int) -> float:
        """Middle of a bar."""
        return self.width / 2 + SPAN * ((bar + 0.5) / BARS - 0.5)

    def length(self, bar: int) -> float:
        _, longest, shortest, _ = _LOOKS[self.instrument]
        return longest + (shortest - longest) * bar / (BARS - 1)


def layers(row: Row, hits: Sequence[Hit], bars_hit: Sequence[int], seconds: np.ndarray) -> list[Layer]:
    """From the rail to the mallet, at instants (T,)."""
    struck = sorted({bar for hit, bar in zip(hits, bars_hit, strict=True) if hit.seconds <= seconds.max()})
    stand = _stand(row)
    still = [_bar(row, bar) for bar in range(BARS) if bar not in struck]
    moving = []
    for bar in struck:
        own = [hit for hit, which in zip(hits, bars_hit, strict=True) if which == bar]
        flash = ring(own, seconds, FLASH_SECONDS)
        swing = SWING * _swing(own, seconds)
        moving += [_bar(row, bar, swing), _glow(row, bar, swing, 0.85 * flash)]
    return [*stand, *still, *moving, *_mallet(row, hits, seconds)]


def _swing(hits: Sequence[Hit], seconds: np.ndarray) -> np.ndarray:
    swing = np.zeros(seconds.shape)
    for hit in hits:
        age = np.maximum(seconds - hit.seconds, 0.0)
        swing += hit.velocity * np.exp(-age / FLASH_SECONDS) * np.sin(2 * math.pi * SWING_HERTZ * age)
    return swing


def _stand(row: Row) -> list[Layer]:
    middle, half = row.width / 2, SPAN / 2
    y = row.top + 0.10
    leg = (row.floor + 0.03 - y) / 2
    legs = [
        Layer(box(0.014, leg), RAIL_COLOR, x=middle + side * (half - 0.02), y=y + leg, ground=row.floor)
        for side in (-1, 1)
    ]
    return [*legs, Layer(box(half + 0.02, 0.020, 0.008), RAIL_COLOR, x=middle, y=y, surface="bevel")]


def _bar(row: Row, bar: int, swing: np.ndarray | float = 0.0) -> Layer:
    length = row.length(bar)
    return Layer(
        box(row.bar_width / 2, length / 2, 0.012),
        BAR_COLORS[bar],
        x=row.x(bar),
        y=row.top + length / 2 + swing,
        surface="bevel",
        material=_LOOKS[row.instrument][3],
        outline=0.011,
        name=f"bar {bar}",
    )


def _glow(row: Row, bar: int, swing: np.ndarray, flash: np.ndarray) -> Layer:
    length = row.length(bar)
    return Layer(
        box(row.bar_width / 2 - 0.006, length / 2 - 0.006, 0.012),
        (255, 250, 220),
        x=row.x(bar),
        y=row.top + length / 2 + swing,
        opacity=flash,
        material="glow",
    )


def _mallet(row: Row, hits: Sequence[Hit], seconds: np.ndarray) -> list[Layer]:
    """Head and stick; the hand is above the picture and moves less than the head."""
    x, height = mallet_path(list(hits), seconds)
    y = row.top - HEAD_RADIUS - height
    reach = row.top + 0.35  # from head to hand
    lean = 0.16 - 0.35 * (x - row.width / 2)
    half_lean, half_reach = lean / 2, reach / 2
    stick = Layer(
        capsule(-half_lean, half_reach, half_lean, -half_reach, 0.013),
        STICK_COLOR,
        x=x + half_lean,
        y=y - half_reach,
        outline=0.010,
        lift=0.05,
    )
    head = Layer(
        circle(HEAD_RADIUS), HEAD_COLOR, x=x, y=y, surface="dome", outline=0.016, lift=0.05, name="mallet"
    )
    return [stick, head]
