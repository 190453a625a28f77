"""Captions at three lengths, from what the scene says of itself and the controls.

label      words, for filing
sentence   one sentence; what is as usual (a still camera, daylight) is left out
paragraph  a director's note: subject and action, look, light, camera, pacing, sound
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sora2.toybox.controls import Controls
from sora2.toybox.randomness import pick
from sora2.toybox.vocabulary import COLORS

#: attribute -> value -> phrases that say it. No phrase of one value occurs in a phrase of another.
WORDS: dict[str, Mapping[str, tuple[str, ...]]] = {
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
    "style": {
        "cartoon": ("cartoon",),
        "painterly": ("painterly", "oil painting"),
        "cinematic": ("cinematic",),
        "moody": ("moody", "low-key"),
        "pencil": ("pencil sketch", "pencil drawing"),
    },
    "camera": {
        "static": ("static camera", "locked camera"),
        "pan": ("panning camera", "camera pan"),
        "zoom": ("zooming camera", "camera zoom"),
        "shake": ("shaky camera", "handheld camera"),
    },
    "pacing": {
        "slow": ("slow pace", "slow pacing"),
        "normal": ("steady pace", "normal pacing"),
        "fast": ("fast pace", "fast pacing"),
    },
    "light": {
        "day": ("daylight", "even light"),
        "dusk": ("dusk light", "sunset light"),
        "lamp": ("lamplight", "light of a lamp"),
    },
    "ambience_level": {
        "quiet": ("faint background", "soft background"),
        "normal": ("moderate background",),
        "loud": ("loud background", "heavy background"),
    },
    "obstacles": {"none": ("empty box",), "pegs": ("pegs",), "ramp": ("ramp",)},
}

#: Sentences of the director's paragraph.
_LOOKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cartoon": ("Flat cartoon colours with dark outlines.", "A cartoon with bold outlines."),
        "painterly": (
            "It looks like an oil painting in broad strokes.",
            "Painterly, in visible brush strokes.",
        ),
        "cinematic": (
            "Cinematic, with soft shadows and a vignette.",
            "A cinematic image, lit from one side.",
        ),
        "moody": ("Moody and dark, a hard side light and cold shadows.", "A low-key, cold image."),
        "pencil": ("A pencil sketch on paper, hatched in graphite.", "A pencil drawing with graphite lines."),
    }
)
_LIGHTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "day": ("Even daylight.", "Plain daylight."),
        "dusk": ("Warm sunset light falls in from the side.", "The dusk light is low and orange."),
        "lamp": ("The only light is lamplight from above.", "Warm lamplight, dark corners."),
    }
)
_CAMERAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "static": ("The camera is locked: a static camera.", "Static camera on a tripod."),
        "pan": ("The camera makes a pan from side to side: a panning camera.", "A panning camera."),
        "zoom": ("A zooming camera.", "A camera zoom, in and out."),
        "shake": ("A handheld camera, never quite still.", "A shaky camera."),
    }
)
_PACINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "slow": ("Slow pacing.", "The scene has a slow pace."),
        "normal": ("Normal pacing.", "The scene has a steady pace."),
        "fast": ("Fast pacing.", "The scene has a fast pace."),
    }
)
_LEVELS: Mapping[str, str] = MappingProxyType(
    {
        "quiet": "in the faint background",
        "normal": "in the moderate background",
        "loud": "as a loud background",
    }
)


@dataclass(frozen=True)
class Phrases:
    """A scene in words, as the grammar needs them.

    `sentence`, where it is given, is the whole sentence of the scene including the style and the ambience;
    otherwise it is built from subject and action. `own_ambience` names the background that the scene itself makes
    ("city hum"), so that captions do not speak of silence.
    """

    label: tuple[str, ...]  # "big red rubber ball", "low gravity"
    subject: str  # "a big red rubber ball"
    action: str  # "bounces under low gravity in front of hills"
    sound: str  # whole sentences: "Every impact is a dull thud."
    details: tuple[str, ...] = ()  # whole sentences, for the paragraph alone
    sentence: str = ""
    own_ambience: str = ""


def compose(phrases: Phrases, controls: Controls, rng: np.random.Generator) -> dict[str, str]:
    """{"label", "sentence", "paragraph"} of one clip."""
    said = {name: str(pick(rng, WORDS[name][value])) for name, value in controls.names().items()}
    unusual = [said[name] for name in ("camera", "pacing", "light") if is_unusual(name, controls)]
    own = phrases.own_ambience
    beds = [own] if own else []
    if not own or controls.ambience != "silence":
        beds.append(said["ambience"])
    said["ambience"] = " and ".join(beds)
    ambience = said["ambience"]
    if is_unusual("ambience_level", controls, bool(own)):
        ambience = f"{ambience}, {said['ambience_level']}"
    label = ", ".join([*phrases.label, ambience, said["style"], *unusual])
    if phrases.sentence:
        more = [*unusual, *([said["ambience_level"]] if is_unusual("ambience_level", controls) else [])]
        sentence = ", ".join([phrases.sentence, *more])
    else:
        forms: tuple[str, ...] = (
            "{subject} {action}, {ambience}, {style} look{more}",
            "{style} shot of {subject}: it {action}, {ambience}{more}",
            "{style} film{more}: {subject} {action}, {ambience}",
        )
        if not re.match(r"an? |the ", phrases.subject):
            forms = (forms[0], forms[2])
        sentence = str(pick(rng, forms)).format(
            subject=phrases.subject,
            action=phrases.action,
            ambience=ambience,
            style=said["style"],
            more="".join(f", {word}" for word in unusual),
        )
    return {"label": label, "sentence": sentence, "paragraph": _paragraph(phrases, controls, said, rng)}


def is_unusual(name: str, controls: Controls, own_ambience: bool = False) -> bool:
    """Whether a short caption has to say it. The level of silence is never worth a word."""
    if name == "ambience_level" and controls.ambience == "silence" and not own_ambience:
        return False
    return getattr(controls, name) != getattr(Controls, name)


def _paragraph(
    phrases: Phrases, controls: Controls, said: Mapping[str, str], rng: np.random.Generator
) -> str:
    opening = f"{phrases.subject[:1].upper()}{phrases.subject[1:]} {phrases.action}."
    if controls.ambience == "silence" and not phrases.own_ambience:
        bed = f"Otherwise {said['ambience']}."
    else:
        bed = f"There is {said['ambience']} {_LEVELS[controls.ambience_level]}."
    parts = [
        opening,
        *phrases.details,
        pick(rng, _LOOKS[controls.style]),
        pick(rng, _LIGHTS[controls.light]),
        pick(rng, _CAMERAS[controls.camera]),
        pick(rng, _PACINGS[controls.pacing]),
        phrases.sound,
        bed,
    ]
    return " ".join(str(part) for part in parts if part)


def count_words(caption: str) -> int:
    """Words plus punctuation: about the MiniLM tokens of a caption without its start and end marks."""
    return len(re.findall(r"\w+|[^\w\s]", caption))


def enumerate_things(items: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def mentions(text: str, name: str, value: str) -> bool:
    """Whether `text` says that attribute `name` ("color", "gravity", "ball1.material" ...) has `value`."""
    phrases = WORDS[name.rsplit(".", 1)[-1]][value]
    return any(re.search(rf"\b{re.escape(phrase)}\b", text, re.IGNORECASE) for phrase in phrases)
