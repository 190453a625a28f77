"""What a `talk` clip is made of: who speaks, which words, with what face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from sora2.toybox.config import ToyboxConfig, ToyboxError, check_choice
from sora2.toybox.controls import Controls, command, draw_controls
from sora2.toybox.identity import APPEARANCE, Identity, identity_of
from sora2.toybox.randomness import pick, stream
from sora2.toybox.scene import draw_for_split, reject_unknown
from sora2.toybox.speech import VOCABULARY, PlacedWord, Voice, check_words, place, speech_backend
from sora2.toybox.vocabulary import BACKGROUNDS, COLORS

EXPRESSIONS = ("calm", "smiling", "surprised", "stern")
GAZES = ("camera", "left", "right")
#: Words per minute and seconds between words at each pacing.
RATES: Mapping[str, int] = MappingProxyType({"slow": 130, "normal": 160, "fast": 200})
GAPS: Mapping[str, float] = MappingProxyType({"slow": 0.20, "normal": 0.10, "fast": 0.05})
#: Change of the rate for a slow, middling and fast speaker.
RATE_STEPS = (0.9, 1.0, 1.1)
MOST_WORDS = 4
#: Silence before the first word and after the last, and before a long clip says its words again, in seconds.
LEAD_SECONDS, TAIL_SECONDS, PAUSE_SECONDS = 0.06, 0.04, 2.0
#: The first word begins at most this late.
LATEST_START_SECONDS = 0.6

#: Only split `test_compositional` has these. Each has an attribute that is not the identity's, and one has none
#: of it, so that every identity can be drawn in every split.
HELD_OUT: tuple[Mapping[str, str], ...] = tuple(
    MappingProxyType(combination)
    for combination in (
        {"expression": "surprised", "glasses": "square"},
        {"expression": "smiling", "hat": "beanie"},
        {"expression": "stern", "hair": "curly"},
        {"gaze": "left", "background": "hills"},
    )
)


@dataclass(frozen=True)
class TalkParameters:
    controls: Controls
    identity: Identity
    who: Mapping[str, Any]  # what truth says of the identity
    words: tuple[str, ...]
    complete: bool  # False when the clip is too short for even one word, and cuts it off
    start_seconds: float  # of the first word
    expression: str
    gaze: str
    background: str
    shirt: str
    place: float  # of the head across the picture, -1 left to 1 right of what is possible
    blinks: tuple[float, ...]  # seconds between blinks, repeated
    phases: tuple[float, ...]  # of the head's motion

    @property
    def voice(self) -> Voice:
        """The identity's voice at the clip's pacing."""
        who = self.identity
        step = RATE_STEPS[level(who.rate)]
        return Voice(who.voice, level(who.pitch), round(RATES[self.controls.pacing] * step))

    @property
    def gap_seconds(self) -> float:
        return GAPS[self.controls.pacing]

    def carriers(self) -> Iterable[Mapping[str, str]]:
        looks = {name: getattr(self.identity, name) for name in APPEARANCE}
        own = {name: getattr(self, name) for name in ("expression", "gaze", "background")}
        return [self.controls.names() | looks | own]


def level(value: float) -> int:
    """0, 1 or 2 for the lower, middle and upper third of [-1, 1]."""
    return int(np.clip((value + 1) * 1.5, 0, 2))


def sample_parameters(
    config: ToyboxConfig, name: str, index: int, overrides: Mapping[str, Any]
) -> TalkParameters:
    """Draw clip `index` of the split, then apply `overrides`.

    Overrides: the controls, `words` (one to four of the vocabulary), `identity` (an `Identity`) or any of its
    fields, expression, gaze, background, shirt. Drawn words that the clip is too short for are left out;
    commanded ones must fit.
    """
    rng = stream(config.seed, config.split, name, index, "parameters")
    identity, who = identity_of(config, index)

    def draw() -> TalkParameters:
        count = int(rng.integers(1, MOST_WORDS + 1))
        words = tuple(VOCABULARY[k] for k in rng.permutation(len(VOCABULARY))[:MOST_WORDS])
        return TalkParameters(
            controls=draw_controls(config, rng),
            identity=identity,
            who=who,
            words=words[:count],
            complete=True,
            start_seconds=float(rng.uniform()),  # a share of the spare time, until the words are known
            expression=pick(rng, EXPRESSIONS),
            gaze=pick(rng, GAZES),
            background=pick(rng, BACKGROUNDS),
            shirt=pick(rng, tuple(COLORS)),
            place=float(rng.uniform(-1, 1)),
            blinks=tuple(rng.uniform(0.9, 3.2, 6).tolist()),
            phases=tuple(rng.uniform(0, 2 * np.pi, 6).tolist()),
        )

    drawn = draw_for_split(config, draw, lambda p: p.carriers(), HELD_OUT)
    controls, rest = command(drawn.controls, overrides)
    return _fit(config, _apply(replace(drawn, controls=controls), rest), commanded="words" in rest)


_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "expression": EXPRESSIONS,
        "gaze": GAZES,
        "background": BACKGROUNDS,
        "shirt": tuple(COLORS),
    }
)
_IDENTITY_FIELDS = tuple(Identity.__dataclass_fields__)


def _apply(drawn: TalkParameters, overrides: Mapping[str, Any]) -> TalkParameters:
    reject_unknown(overrides, ("words", "identity", *_CHOICES, *_IDENTITY_FIELDS))
    changes = dict(overrides)
    identity = changes.pop("identity", drawn.identity)
    if not isinstance(identity, Identity):
        raise ToyboxError(f"identity={identity!r} must be an Identity of sora2.toybox.identity")
    fields = {field: changes.pop(field) for field in _IDENTITY_FIELDS if field in changes}
    for field, value in fields.items():
        if field in APPEARANCE:
            check_choice(field, value, APPEARANCE[field])
    identity = replace(identity, **fields)
    if identity != drawn.identity:
        changes |= {"identity": identity, "who": {**drawn.who, **identity.truth()}}
    for field, choices in _CHOICES.items():
        if field in changes:
            check_choice(field, changes[field], choices)
    if "words" in changes:
        words = changes["words"]
        changes["words"] = tuple(words.split() if isinstance(words, str) else words)
        check_words(changes["words"])
    return replace(drawn, **changes)


def _fit(config: ToyboxConfig, drawn: TalkParameters, *, commanded: bool) -> TalkParameters:
    """As many of the words as the clip has time for, and the start of the first in seconds."""
    seconds = config.samples / config.sample_rate
    words = drawn.words
    while True:
        spoken = place_words(config, replace(drawn, words=words), start_seconds=0.0)
        spare = seconds - LEAD_SECONDS - TAIL_SECONDS - spoken[-1].end_seconds
        if spare >= 0:
            start = LEAD_SECONDS + drawn.start_seconds * min(spare, LATEST_START_SECONDS)
            return replace(drawn, words=words, start_seconds=start)
        if commanded:
            raise ToyboxError(
                f"words={list(words)} take {spoken[-1].end_seconds:.2f} s at pacing={drawn.controls.pacing!r}, and the "
                f"clip of frames={config.frames} at fps={config.fps:g} has room for "
                f"{max(0.0, seconds - LEAD_SECONDS - TAIL_SECONDS):.2f} s: give fewer words or more frames"
            )
        if len(words) == 1:
            return replace(drawn, words=words, complete=False, start_seconds=min(LEAD_SECONDS, seconds / 4))
        words = words[:-1]


def place_words(
    config: ToyboxConfig, parameters: TalkParameters, start_seconds: float
) -> tuple[PlacedWord, ...]:
    """The words once, from `start_seconds` on."""
    return place(
        speech_backend(),
        parameters.words,
        parameters.voice,
        config.sample_rate,
        start_seconds,
        parameters.gap_seconds,
    )
