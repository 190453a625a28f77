"""Things that several physics scenes draw alike: the ball's colour, material and size, and the gravity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sora2.toybox.captions import WORDS
from sora2.toybox.config import ToyboxConfig, ToyboxError, check_choice, check_range
from sora2.toybox.randomness import pick
from sora2.toybox.vocabulary import BACKGROUNDS, COLORS, GRAVITIES, MATERIALS, SIZES

#: Split `test_physics_ood`: gravities outside the named ones, under the nearest name.
OUTSIDE_GRAVITIES: Mapping[str, float] = {"low": 0.75, "high": 13.5}


@dataclass(frozen=True)
class Props:
    """Words from the tables of `vocabulary`, and the gravity in world units per second squared."""

    color: str
    material: str
    size: str
    background: str
    gravity: str
    gravity_value: float

    def words(self) -> dict[str, str]:
        names = ("color", "material", "size", "background", "gravity")
        return {name: getattr(self, name) for name in names}

    @property
    def radius(self) -> float:
        return SIZES[self.size]


def draw_props(config: ToyboxConfig, rng: np.random.Generator, gravities: tuple[str, ...]) -> Props:
    """`gravities` are the names that the scene uses."""
    table = OUTSIDE_GRAVITIES if config.split == "test_physics_ood" else GRAVITIES
    gravity = pick(rng, tuple(name for name in table if name in gravities))
    return Props(
        color=pick(rng, tuple(COLORS)),
        material=pick(rng, tuple(MATERIALS)),
        size=pick(rng, tuple(SIZES)),
        background=pick(rng, BACKGROUNDS),
        gravity=gravity,
        gravity_value=table[gravity],
    )


def command_props(props: Props, overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(fields of `Props` after the commands, the commands that are left)."""
    fields = props.words() | {"gravity_value": props.gravity_value}
    rest = dict(overrides)
    tables = {
        "color": tuple(COLORS),
        "material": tuple(MATERIALS),
        "size": tuple(SIZES),
        "background": BACKGROUNDS,
    }
    for name, choices in tables.items():
        if name in rest:
            fields[name] = rest.pop(name)
            check_choice(name, fields[name], choices)
    if "gravity" in rest:
        gravity = rest.pop("gravity")
        if isinstance(gravity, str):
            check_choice("gravity", gravity, tuple(GRAVITIES))
            fields |= {"gravity": gravity, "gravity_value": GRAVITIES[gravity]}
        elif isinstance(gravity, (int, float)):
            check_range("gravity", gravity, 0.1, 100.0)
            nearest = min(GRAVITIES, key=lambda name: abs(np.log(GRAVITIES[name] / gravity)))
            fields |= {"gravity": nearest, "gravity_value": float(gravity)}
        else:
            raise ToyboxError(f"gravity={gravity!r} must be a name or a number")
    return fields, rest


def props_truth(props: Props) -> dict[str, Any]:
    return {"background": props.background, "gravity": props.gravity, "gravity_value": props.gravity_value}


def thing_words(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """ "big red rubber"."""
    return " ".join(
        str(pick(rng, WORDS[name][attributes[f"ball0.{name}"]])) for name in ("size", "color", "material")
    )


IMPACT_WORDS = {"rubber": "a soft thud", "wood": "a dry knock", "metal": "a bright ring"}


def with_article(background: str) -> str:
    """ "a plain wall", but "hills"."""
    return f"a {background}" if background.endswith("wall") else background
