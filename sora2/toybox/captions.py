"""Captions from a grammar with paraphrases, and the words that say each attribute.

A caption names every attribute of its clip. It comes long (a sentence) or short (a list of words); among the
forms that fit the text encoder's usual length one is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from sora2.toybox.randomness import pick
from sora2.toybox.vocabulary import COLORS

#: attribute -> value -> phrases that say it. No phrase of one value occurs in a phrase of another.
WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "color": {name: (name,) for name in COLORS},
    "size": {"small": ("small", "little"), "big": ("big", "large")},
    "material": {"rubber": ("rubber",), "wood": ("wooden", "wood"), "metal": ("metal", "steel")},
    "gravity": {
        "low": ("low gravity", "weak gravity"),
        "normal": ("normal gravity", "earth gravity"),
        "high": ("high gravity", "strong gravity"),
    },
    "ambience": {"silence": ("silence", "quiet"), "rain": ("rain",), "wind": ("wind",)},
    "background": {"plain": ("plain wall",), "striped": ("striped wall", "stripes"), "hills": ("hills",)},
    "style": {"cartoon": ("cartoon",), "cinematic": ("cinematic",)},
}

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


def count_words(caption: str) -> int:
    """Words plus commas: the MiniLM tokens of a caption without its start and end marks."""
    return len(re.findall(r"\w+|,", caption))


def caption(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """A paraphrase that names all `attributes` (see `sora2.toybox.attributes`) in at most `MAX_WORDS`."""
    said = {
        name: str(pick(rng, WORDS[name][attributes[name]]))
        for name in ("gravity", "ambience", "background", "style")
    }
    balls: list[str] = []
    while f"ball{len(balls)}.color" in attributes:
        i = len(balls)
        words = (
            str(pick(rng, WORDS[name][attributes[f"ball{i}.{name}"]]))
            for name in ("size", "color", "material")
        )
        balls.append(" ".join(words))
    said["bounce"] = "bounces" if len(balls) == 1 else "bounce"
    said["subject"] = _enumerate([f"a {ball} ball" for ball in balls])
    said["list"] = ", ".join(balls) + (" ball" if len(balls) == 1 else " balls")
    wanted = str(pick(rng, ("long", "short")))
    forms = [form.format(**said) for form in FORMS[wanted]]
    fitting = [form for form in forms if count_words(form) <= MAX_WORDS]
    if not fitting:  # sentences about three balls are too long
        fitting = [form.format(**said) for form in FORMS["short"]]
    return str(pick(rng, tuple(fitting)))


def _enumerate(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def mentions(text: str, name: str, value: str) -> bool:
    """Whether `text` says that attribute `name` ("color", "gravity", "ball1.material" ...) has `value`."""
    phrases = WORDS[name.rsplit(".", 1)[-1]][value]
    return any(re.search(rf"\b{re.escape(phrase)}\b", text) for phrase in phrases)
