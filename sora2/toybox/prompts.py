"""What a person types: a few words of their own, about some of what is seen and heard.

The captions of `captions.py` name everything in the words of one table. Somebody at a keyboard does neither, so a
model that is to be prompted by people needs both kinds. What a prompt leaves out is free.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from sora2.toybox.captions import WORDS, Phrases, count_words, enumerate_things
from sora2.toybox.controls import Controls
from sora2.toybox.randomness import pick

#: attribute -> value -> everyday words, the usual ones more often. No phrase of a value occurs in one of another value.
EVERYDAY: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "color": {
            "red": (
                *("red",) * 5, "scarlet", "ruby red", "cherry red", "brick red", "blood red", "tomato red",
                "maroon", "rose red",
            ),
            "orange": (
                *("orange",) * 5, "amber", "tangerine", "pumpkin orange", "carrot orange", "peach", "burnt orange",
                "coral orange", "rusty orange", "ginger",
            ),
            "yellow": (
                *("yellow",) * 5, "golden", "lemon yellow", "canary yellow", "sunny yellow", "banana yellow",
                "honey yellow", "butter yellow", "blond", "corn yellow",
            ),
            "green": (
                *("green",) * 5, "emerald", "grass green", "lime green", "olive green", "mint green", "forest green",
                "jungle green", "leaf green", "pea green",
            ),
            "blue": (
                *("blue",) * 5, "azure", "navy blue", "sky blue", "royal blue", "sapphire", "ocean blue", "ultramarine",
                "denim blue", "turquoise blue",
            ),
            "purple": (
                *("purple",) * 5, "violet", "lilac", "lavender", "plum", "grape purple", "berry purple", "royal purple",
                "orchid",
            ),
        },
        "size": {
            "small": ("small", "small", "little", "little", "tiny", "teeny", "wee", "petite"),
            "big": ("big", "big", "large", "large", "huge", "giant", "massive", "oversized"),
        },
        "material": {
            "rubber": ("rubber", "rubber", "rubber", "rubbery", "soft rubber", "gum"),
            "wood": ("wooden", "wooden", "wood", "timber", "pine", "walnut", "maple", "carved wooden"),
            "metal": ("metal", "metal", "steel", "steel", "iron", "metallic", "brass", "tin", "aluminium"),
        },
        "noun": {"ball": ("ball", "ball", "ball", "sphere", "orb")},
        "gravity": {
            "low": ("in low gravity", "in weak gravity", "as on the moon"),
            "normal": ("in normal gravity", "as on earth"),
            "high": ("in high gravity", "in strong gravity", "as on a heavy planet"),
        },
        "ambience": {
            "silence": ("in silence", "in a quiet room", "no background noise", "in a silent room"),
            "rain": ("in the rain", "on a rainy day", "while it rains", "in a shower", "rain falling", "on a wet day"),
            "wind": ("in the wind", "on a windy day", "wind blowing", "in a stiff breeze"),
        },
        "background": {
            "plain": ("in front of a plain wall", "against a bare wall"),
            "striped": ("in front of a striped wall", "against striped wallpaper"),
            "hills": ("in front of hills", "with green hills behind"),
        },
        "style": {
            "cartoon": ("cartoon", "flat cartoon style", "animated cartoon"),
            "painterly": ("oil painting", "painterly", "painted with a brush"),
            "cinematic": ("cinematic", "like a movie", "film look"),
            "moody": ("moody", "dark and moody", "low-key"),
            "pencil": ("pencil sketch", "drawn in pencil", "pencil drawing"),
        },
        "camera": {
            "pan": ("camera pans", "panning camera"),
            "zoom": ("camera zooms", "zooming camera"),
            "shake": ("handheld camera", "shaky camera"),
        },
        "pacing": {"slow": ("slow", "slowly"), "fast": ("fast", "quickly")},
        "light": {"dusk": ("at sunset", "at dusk"), "lamp": ("by lamplight", "under a lamp")},
    }
)  # fmt: skip

#: Words that no caption and no prompt has: what a model makes of them, it has from the text encoder alone.
NEVER_SAID: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "color": {
            "red": "crimson", "orange": "apricot", "yellow": "mustard", "green": "jade", "blue": "cobalt",
            "purple": "mauve",
        },
        "size": {"small": "miniature", "big": "enormous"},
        "material": {"rubber": "elastic", "wood": "oak", "metal": "chrome"},
        "noun": {"ball": "globe"},
        "ambience": {"rain": "in a downpour", "wind": "in a gale"},
    }
)  # fmt: skip

NUMBERS = ("a", "two", "three", "four")
#: Words and commas of the longest prompt: with room for words that the text encoder takes apart.
MAX_WORDS = 14


def say(name: str, value: str, rng: np.random.Generator) -> str | None:
    """Everyday words for a value; None where nobody would mention it (a camera that stands still)."""
    words = EVERYDAY[name].get(value)
    return None if words is None else str(pick(rng, words))


def balls_in_words(attributes: Mapping[str, str], rng: np.random.Generator) -> tuple[str, bool]:
    """The balls of `attributes` (ball0.color ...) as "two red balls and a steel ball", and whether it is one ball.

    Every ball gets the same kinds of words: somebody who gives one ball a colour gives each of them one.
    """
    said = [
        name for name, share in (("size", 0.4), ("color", 0.85), ("material", 0.5)) if rng.random() < share
    ]
    if "ball2.color" in attributes:
        said = said[:2]  # three balls are many words already
    noun = str(say("noun", "ball", rng))
    words: dict[tuple[str, ...], str] = {}
    found: list[str] = []
    i = 0
    while f"ball{i}.color" in attributes:
        values = tuple(attributes[f"ball{i}.{name}"] for name in said)
        if values not in words:  # two balls alike are told alike
            words[values] = " ".join(str(say(n, v, rng)) for n, v in zip(said, values, strict=True))
        found.append(words[values])
        i += 1
    things = []
    for description, count in Counter(found).items():
        words_of_one = f"{description} {noun}".strip()
        number = "an" if count == 1 and words_of_one[0] in "aeiou" else NUMBERS[count - 1]
        things.append(" ".join(w for w in (number, description, noun + "s" * (count > 1)) if w))
    return enumerate_things(things), len(found) == 1


def bounce_prompt(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """A prompt for balls in a box: `attributes` as `captions.caption` takes them."""
    subject, single = balls_in_words(attributes, rng)
    verbs = (
        ("bounces", "drops", "jumps around", "falls down")
        if single
        else ("bounce", "fall down", "jump around")
    )
    verb = str(pick(rng, (*verbs, "bouncing", "falling", "")))
    names = [n for n in ("gravity", "ambience", "background", "style") if rng.random() < 0.35]
    return _join(f"{subject} {verb}".strip(), [str(say(n, attributes[n], rng)) for n in names], rng)


def prompt(phrases: Phrases, controls: Controls, rng: np.random.Generator) -> str:
    """A prompt for any scene: what it is about, and some of the controls."""
    names = [n for n, value in controls.names().items() if n in EVERYDAY and rng.random() < 0.35]
    extras = [say(n, getattr(controls, n), rng) for n in names]
    subject = phrases.subject if rng.random() < 0.4 else f"{phrases.subject} {phrases.action}"
    return _join(subject, [extra for extra in extras if extra is not None], rng)


def reworded(caption: str) -> str:
    """A caption of the grammar with the words of `NEVER_SAID` in place of its own: "an enormous crimson globe"."""
    for name, values in NEVER_SAID.items():
        for value, word in values.items():
            for own in WORDS[name][value] if name in WORDS else (value,):
                caption = re.sub(rf"\b{own}(s?)\b", rf"{word}\1", caption)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", caption)


def _join(subject: str, extras: list[str], rng: np.random.Generator) -> str:
    """The subject, then as many extras in any order as there is room for."""
    extras = [extras[i] for i in rng.permutation(len(extras))]
    while extras and count_words(", ".join([subject, *extras])) > MAX_WORDS:
        extras.pop()
    return ", ".join([subject, *extras])
