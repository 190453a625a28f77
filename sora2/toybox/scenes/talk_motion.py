"""How a talking head moves: place, nods, blinks, mouth; each a pure function of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sora2.toybox.config import ToyboxConfig
from sora2.toybox.scenes.talk_parameters import (
    PAUSE_SECONDS,
    TAIL_SECONDS,
    TalkParameters,
    place_words,
)
from sora2.toybox.speech import Mouth, PlacedWord, mouth_of

#: Height of the head's middle, and how near to the sides it may be, world units.
HEAD_Y, SIDE_ROOM = 0.545, 0.46
#: Sway of the head: Hz and reach in world units, sideways and up and down; the turn moves the features alone.
SWAY_X, SWAY_Y, TURN = ((0.31, 0.010), (0.73, 0.004)), ((0.47, 0.005), (1.1, 0.002)), ((0.37, 0.010),)
NOD, NOD_SECONDS = 0.014, 0.09
GAZE_TURN = 0.016
#: A blink closes and opens in this time.
BLINK_SECONDS = 0.20
#: Largest opening, and half width when rounded, at rest and spread, world units.
MOUTH_OPENING, MOUTH_HALF_WIDTHS = 0.17, (0.055, 0.095, 0.120)
#: Expression -> change of the half width of the mouth.
SMILE_WIDTH = {"smiling": 1.12, "surprised": 0.92}


@dataclass(frozen=True)
class TalkWorld:
    """The words where they sound, and the mouth that says them."""

    words: tuple[PlacedWord, ...]
    mouth: Mouth
    x: float  # middle of the sway, world units


def simulate(config: ToyboxConfig, parameters: TalkParameters) -> TalkWorld:
    """The words as often as they fit; a long clip says them again after a pause."""
    seconds = config.samples / config.sample_rate
    words = list(place_words(config, parameters, parameters.start_seconds))
    once = words[-1].end_seconds - words[0].onset_seconds
    while words[-1].end_seconds + PAUSE_SECONDS + once + TAIL_SECONDS <= seconds:
        words += place_words(config, parameters, words[-1].end_seconds + PAUSE_SECONDS)
    width = config.world_size[0]
    room = max(0.03, width / 2 - SIDE_ROOM)
    mouth = mouth_of([phoneme for word in words for phoneme in word.phonemes()])
    return TalkWorld(tuple(words), mouth, width / 2 + room * parameters.place)


def head_place(
    parameters: TalkParameters, world: TalkWorld, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y of the head's middle and the sideways turn of its features, world units, all (T,)."""
    phases = iter(parameters.phases)
    x, y, turn = (
        sum(reach * np.sin(2 * np.pi * hertz * seconds + next(phases)) for hertz, reach in waves)
        for waves in (SWAY_X, SWAY_Y, TURN)
    )
    onsets = np.array([word.onset_seconds for word in world.words])
    # a nod with each word: of the near words only, for a long clip has many
    nods = np.exp(-0.5 * ((seconds[:, None] - onsets - 0.10) / NOD_SECONDS) ** 2).sum(axis=1)
    side = {"camera": 0.0, "left": -GAZE_TURN, "right": GAZE_TURN}[parameters.gaze]
    return world.x + x, HEAD_Y + y + NOD * nods, turn + side


def eyes_open(parameters: TalkParameters, seconds: np.ndarray) -> np.ndarray:
    """(T,) 1 open, 0 shut."""
    last = float(seconds.max(initial=0.0))
    gaps = np.array(parameters.blinks)
    rounds = int(last / gaps.sum()) + 2
    blinks = np.cumsum(np.tile(gaps, rounds)) - 0.6
    away = np.abs(seconds[:, None] - blinks).min(axis=1) / (BLINK_SECONDS / 2)
    return np.clip(away, 0, 1) ** 2


def mouth_size(
    parameters: TalkParameters, world: TalkWorld, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(T,) height of the open mouth at its middle and its half width, world units."""
    rounded, rest, spread = MOUTH_HALF_WIDTHS
    half = np.interp(world.mouth.width(seconds), (0.0, 0.5, 1.0), (rounded, rest, spread))
    half = half * SMILE_WIDTH.get(parameters.expression, 1.0)
    return MOUTH_OPENING * world.mouth.opening(seconds), half
