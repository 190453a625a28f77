"""What any scene can be asked for: style, camera, pacing, light, ambience and its level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from sora2.toybox.config import ToyboxConfig, check_choice
from sora2.toybox.randomness import pick
from sora2.toybox.vocabulary import AMBIENCE_LEVELS, AMBIENCES, CAMERAS, LIGHTS, PACINGS, STYLES


@dataclass(frozen=True)
class Controls:
    """Names from the tables of `sora2.toybox.vocabulary`. The defaults go without saying in short captions."""

    style: str = "cartoon"
    camera: str = "static"
    pacing: str = "normal"
    light: str = "day"
    ambience: str = "silence"
    ambience_level: str = "normal"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)

    def names(self) -> dict[str, str]:
        """As truth stores them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "style": STYLES,
        "camera": CAMERAS,
        "pacing": PACINGS,
        "light": LIGHTS,
        "ambience": AMBIENCES,
        "ambience_level": AMBIENCE_LEVELS,
    }
)


def draw_controls(config: ToyboxConfig, rng: np.random.Generator) -> Controls:
    """One draw among what `config` allows. The number of random numbers used is always the same."""
    return Controls(
        style=pick(rng, config.styles),
        camera=pick(rng, config.cameras),
        pacing=pick(rng, config.pacings),
        light=pick(rng, config.lights),
        ambience=pick(rng, AMBIENCES),
        ambience_level=pick(rng, config.ambience_levels),
    )


def command(controls: Controls, overrides: Mapping[str, Any]) -> tuple[Controls, dict[str, Any]]:
    """(controls with what `overrides` commands of them, the overrides that are left for the scene).

    Any value of the tables can be commanded, also one that the config would not draw.
    """
    rest = dict(overrides)
    changes = {name: rest.pop(name) for name in CHOICES if name in rest}
    return replace(controls, **changes), rest
