"""The words of scene `talk`."""

from __future__ import annotations

from typing import Any

import numpy as np

from sora2.toybox.captions import WORDS, Phrases, enumerate_things
from sora2.toybox.identity import APPEARANCE
from sora2.toybox.randomness import pick
from sora2.toybox.speech import VOCABULARY

HAT_WORDS = {"cap": "red cap", "beanie": "blue beanie", "brim": "brown hat"}

WORDS |= {
    "skin": {name: (f"{name} skin", f"{name}-skinned") for name in APPEARANCE["skin"]},
    "hair": {name: (name,) for name in APPEARANCE["hair"]},
    "hair_color": {name: (f"{name} hair", f"{name} bun") for name in APPEARANCE["hair_color"]},
    "glasses": {name: (f"{name} glasses",) for name in ("round", "square")},
    "hat": {name: (words,) for name, words in HAT_WORDS.items()},
    "expression": {
        "calm": ("calm", "relaxed"),
        "smiling": ("smiling", "cheerful"),
        "surprised": ("surprised", "astonished"),
        "stern": ("stern", "frowning"),
    },
    "word": {word: (word,) for word in VOCABULARY},
}
_GAZES = {
    "camera": ("The eyes look into the camera.",),
    "left": ("The eyes look to the left.",),
    "right": ("The eyes look to the right.",),
}
_WALLS = {
    "plain": ("in front of a plain wall",),
    "striped": ("in front of a striped wall",),
    "hills": ("in front of hills",),
}
_PITCHES = ("low voice", "medium voice", "high voice")


def attributes(truth: dict[str, Any]) -> dict[str, str]:
    """What every caption says: skin, hair, glasses and hat where there are any, expression, each word."""
    who = truth["identity"]
    found = {"skin": who["skin"], "hair": who["hair"], "expression": truth["expression"]}
    if who["hair"] != "bald":
        found["hair_color"] = who["hair_color"]
    found |= {name: who[name] for name in ("glasses", "hat") if who[name] != "none"}
    return found | {f"speech{i}.word": word for i, word in enumerate(truth["words"])}


def phrases(truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
    found = attributes(truth)
    who = truth["identity"]
    mood = str(pick(rng, WORDS["expression"][found["expression"]]))
    skin = found["skin"]
    hair = _hair(found)
    worn = [WORDS[name][found[name]][0] for name in ("glasses", "hat") if name in found]
    said = " ".join(truth["words"])
    verb = str(pick(rng, ("says", "speaks")))
    style = str(pick(rng, WORDS["style"][truth["style"]]))
    ambience = str(pick(rng, WORDS["ambience"][truth["ambience"]]))
    short = [f"{mood} {skin}-skinned face", hair, *worn, f'{verb} "{said}"']
    sentence = ", ".join([*short, ambience, style] if rng.random() < 0.5 else [style, *short, ambience])
    has = enumerate_things([_article(thing) for thing in (hair, *worn)])
    subject = f"{'an' if mood[0] in 'aeiou' else 'a'} {mood} person with {skin} skin, {has}"
    voice = _PITCHES[truth["voice"]["pitch"]]
    wall = str(pick(rng, _WALLS[truth["background"]]))
    return Phrases(
        label=tuple(short),
        subject=subject,
        action=f'{verb} "{said}" {wall}',
        sound=f'A {voice} says "{said}".',
        details=(f"The face is {who['face']}.", str(pick(rng, _GAZES[truth["gaze"]]))),
        sentence=sentence,
    )


def _hair(found: dict[str, str]) -> str:
    """ "bald", "red bun", "short red hair"."""
    if found["hair"] == "bald":
        return "bald"
    if found["hair"] == "bun":
        return f"{found['hair_color']} bun"
    return f"{found['hair']} {found['hair_color']} hair"


def _article(thing: str) -> str:
    """ "a bald head", "a red bun", "round glasses", "a red cap"."""
    if thing == "bald":
        return "a bald head"
    return thing if thing.endswith(("glasses", "hair")) else f"a {thing}"
