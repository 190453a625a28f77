"""Melodies and rhythms of scene `strike`: which bar is hit, when, how hard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count as endless
from types import MappingProxyType

from sora2.toybox.music import BAR_SEMITONES

BARS = len(BAR_SEMITONES)

#: Lengths of the notes in beats, repeated.
RHYTHMS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "even": (1.0,),
        "dotted": (1.5, 0.5),
        "gallop": (1.0, 0.5, 0.5),
    }
)

#: pacing -> beats per minute.
TEMPOS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"slow": (92.0, 116.0), "normal": (138.0, 168.0), "fast": (196.0, 236.0)}
)

#: Velocity of accented notes (the first of each rhythm) and what the others lose.
DYNAMICS: Mapping[str, float] = MappingProxyType({"soft": 0.55, "loud": 0.95})
UNACCENTED = 0.15


def _fold(step: int) -> int:
    """0, 1, ... 7, 6, ... 1, 0, 1, ...: the row of bars to and fro."""
    step %= 2 * (BARS - 1)
    return min(step, 2 * (BARS - 1) - step)


#: melody -> (step, start bar) -> bar.
MELODIES: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "rising": lambda step, start: (start % 4 + step) % BARS,
        "falling": lambda step, start: (BARS - 1 - start % 4 - step) % BARS,
        "chord": lambda step, start: (0, 2, 4, 7, 4, 2)[step % 6],
        "trill": lambda step, start: min(start, BARS - 2) + step % 2,
        "repeated": lambda step, start: start,
        "zigzag": lambda step, start: _fold(start % 3 + step // 2 + 2 * (step % 2)),
    }
)


@dataclass(frozen=True)
class ScoreNote:
    """One note of a score: beats after the first note."""

    beat: float
    bar: int
    velocity: float


def score(
    melody: str, rhythm: str, dynamics: str, start: int, touch: float, beats: float
) -> tuple[ScoreNote, ...]:
    """The notes of the first `beats` beats and the next one.

    `start` is the bar to begin near, `touch` (0 to 1) shapes how velocities vary by up to 0.04.
    """
    lengths = RHYTHMS[rhythm]
    beat = 0.0
    notes: list[ScoreNote] = []
    for step in endless():
        accent = step % len(lengths) == 0 if len(lengths) > 1 else step % 2 == 0
        velocity = DYNAMICS[dynamics] - (0.0 if accent else UNACCENTED)
        velocity += 0.04 * math.sin(2 * math.pi * (touch + 0.382 * step))
        notes.append(ScoreNote(beat, MELODIES[melody](step, start), velocity))
        if beat >= beats:
            return tuple(notes)
        beat += lengths[step % len(lengths)]
    return tuple(notes)
