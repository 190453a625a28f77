"""What a `bounce` clip is called: short forms that fit the text encoder, and phrases for the director."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sora2.toybox.captions import WORDS, Phrases, count_words, enumerate_things
from sora2.toybox.randomness import pick

#: Sentences and lists. {subject} is "a big red rubber ball and a ...", {list} "big red rubber, ... balls".
FORMS: Mapping[str, tuple[str, ...]] = {
    "long": (
        "{subject} {bounce} in {gravity}, {ambience}, {background}, {style}",
        "{style} shot of {subject} in {gravity}, {background}, {ambience}",
        "{style} film of {subject} bouncing under {gravity}, {ambience}, {background}",
        "{subject} {bounce} under {gravity} in front of {background}, {ambience}, {style} look",
    ),
    "short": (
        "{list}, {gravity}, {ambience}, {background}, {style}",
        "{style}, {background}, {ambience}, {gravity}, {list}",
        "{style}, {list}, {gravity}, {background}, {ambience}",
    ),
}

#: Words and commas of the longest caption; with the start and end marks that is 24 tokens of MiniLM.
MAX_WORDS = 22


def caption(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """A paraphrase that names all `attributes` (see `sora2.toybox.attributes`) in at most `MAX_WORDS`.

    Obstacles and controls out of the ordinary are not counted: they are added behind.
    """
    said = {
        name: str(pick(rng, WORDS[name][attributes[name]]))
        for name in ("gravity", "ambience", "background", "style")
    }
    balls = ball_words(attributes, rng)
    said["bounce"] = "bounces" if len(balls) == 1 else "bounce"
    said["subject"] = enumerate_things([f"a {ball} ball" for ball in balls])
    said["list"] = ", ".join(balls) + (" ball" if len(balls) == 1 else " balls")
    wanted = str(pick(rng, ("long", "short")))
    forms = [form.format(**said) for form in FORMS[wanted]]
    fitting = [form for form in forms if count_words(form) <= MAX_WORDS]
    if not fitting:  # sentences about three balls are too long
        fitting = [form.format(**said) for form in FORMS["short"]]
    text = str(pick(rng, tuple(fitting)))
    if attributes.get("obstacles", "none") != "none":
        text += f", {pick(rng, WORDS['obstacles'][attributes['obstacles']])}"
    return text


def ball_words(attributes: Mapping[str, str], rng: np.random.Generator) -> list[str]:
    """["big red rubber", ...]."""
    balls: list[str] = []
    while f"ball{len(balls)}.color" in attributes:
        i = len(balls)
        words = (
            str(pick(rng, WORDS[name][attributes[f"ball{i}.{name}"]]))
            for name in ("size", "color", "material")
        )
        balls.append(" ".join(words))
    return balls


_IMPACTS = {
    "rubber": "soft low thuds of rubber",
    "wood": "dry knocks of wood",
    "metal": "bright ringing strokes of metal",
}
_PLACES = {
    "none": "",
    "pegs": " among pegs on the wall",
    "ramp": " beside a ramp in the corner",
}


def phrases(
    attributes: Mapping[str, str], materials: list[str], rolls: bool, sentence: str, rng: np.random.Generator
) -> Phrases:
    gravity, background = (
        str(pick(rng, WORDS[name][attributes[name]])) for name in ("gravity", "background")
    )
    balls = ball_words(attributes, rng)
    obstacles = attributes.get("obstacles", "none")
    verb = "bounces" if len(balls) == 1 else "bounce"
    heard = enumerate_things([_IMPACTS[name] for name in dict.fromkeys(materials)])
    label = [f"{ball} ball" for ball in balls] + [gravity, background]
    if obstacles != "none":
        label.append(WORDS["obstacles"][obstacles][0])
    return Phrases(
        label=tuple(label),
        subject=enumerate_things([f"a {ball} ball" for ball in balls]),
        action=f"{verb} under {gravity}{_PLACES[obstacles]} in front of {background}",
        sound=f"We hear {heard}, louder the harder the impact and placed where it happens."
        + (" A ball that rolls hums with its speed." if rolls else ""),
        sentence=sentence,
    )
