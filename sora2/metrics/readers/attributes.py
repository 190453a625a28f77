"""What can be read from a clip, and what the truth of a Toybox clip asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sora2.toybox import (
    AMBIENCE_LEVELS,
    AMBIENCES,
    BACKGROUNDS,
    CAMERAS,
    COLORS,
    GRAVITIES,
    LIGHTS,
    MATERIALS,
    OBSTACLES,
    PACINGS,
    SIZES,
    STYLES,
    WHOLE_SCENES,
)
from sora2.toybox.identity import APPEARANCE
from sora2.toybox.music import INSTRUMENTS
from sora2.toybox.scenes.occlude import MOTIONS
from sora2.toybox.scenes.story import PEOPLE, PLACES
from sora2.toybox.scenes.street_traffic import DIRECTIONS, VEHICLES
from sora2.toybox.scenes.strike_melody import DYNAMICS, MELODIES, RHYTHMS
from sora2.toybox.scenes.talk_parameters import EXPRESSIONS, GAZES
from sora2.toybox.scenes.weather_world import RAINS, THUNDERS, WINDS

#: The answer of an attribute: one of its values, or the set of those that are there, in the order of `choices`.
Answer = str | tuple[str, ...]

#: Commanded parts of a truth -> the answer, None where the clip is not asked for it.
Ask = Callable[[dict[str, Any]], Answer | None]


@dataclass(frozen=True)
class Attribute:
    """One thing that a caption says. `several`: any number of the choices can be there at once."""

    name: str
    choices: tuple[str, ...]
    several: bool
    ask: Ask
    description: str

    def agreement(self, wanted: Answer, read: Answer) -> float:
        """1 right, 0 wrong; of sets, those in both as a share of those in either."""
        if not self.several:
            return float(wanted == read)
        union = set(wanted) | set(read)
        return len(set(wanted) & set(read)) / len(union) if union else 1.0


def _control(name: str) -> Ask:
    return lambda truth: truth.get(name)


def _of_scene(scene: str, name: str) -> Ask:
    return lambda truth: truth.get(name) if truth.get("scene") == scene else None


def _of_person(name: str) -> Ask:
    """Of a face that fills the clip; in a story it shares the clip with other shots."""
    return lambda truth: truth["identity"].get(name) if truth.get("scene") == "talk" else None


def _camera(truth: dict[str, Any]) -> Answer | None:
    return truth.get("camera", {}).get("kind")


def _ambience(truth: dict[str, Any]) -> Answer | None:
    """Not asked of scenes that make their own background sound, nor of stories that show one."""
    scenes = {truth.get("scene"), *(s.get("scene") for s in truth.get("strands", ()))}
    return None if scenes & {"street", "weather"} else truth.get("ambience")


def _ambience_level(truth: dict[str, Any]) -> Answer | None:
    """Silence has no level; a background sound that the scene itself makes has one."""
    silent = truth.get("ambience") == "silence" and "own_ambience" not in truth
    return None if silent else truth.get("ambience_level")


def _hair_color(truth: dict[str, Any]) -> Answer | None:
    who = truth.get("identity", {})
    return who.get("hair_color") if truth.get("scene") == "talk" and who.get("hair") != "bald" else None


def drawn_vehicles(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The vehicles that the caption names."""
    return list(truth.get("vehicles", ()))[: truth.get("drawn_vehicles", 0)]


def _count(truth: dict[str, Any]) -> Answer | None:
    things = truth.get("balls") or drawn_vehicles(truth)
    return str(len(things)) if things and truth.get("scene") in ("bounce", "cradle", "street") else None


def _shots(truth: dict[str, Any]) -> Answer | None:
    return str(len(truth["shots"])) if truth.get("scene") == "story" else None


def _set(values: Iterable[str], choices: Iterable[str]) -> Answer | None:
    there = set(values)
    return tuple(c for c in choices if c in there) if there else None


def _of_things(name: str, choices: Iterable[str], *, vehicles: bool = False, balls: bool = True) -> Ask:
    known = tuple(choices)

    def ask(truth: dict[str, Any]) -> Answer | None:
        things = [*(truth.get("balls", ()) if balls else ()), *(drawn_vehicles(truth) if vehicles else ())]
        return _set((thing[name] for thing in things), known)

    return ask


def _places(truth: dict[str, Any]) -> Answer | None:
    return _set((strand["scene"] for strand in truth.get("strands", ())), (PEOPLE, *PLACES))


def _table() -> list[tuple[str, Iterable[str], bool, Ask, str]]:
    one, several = False, True
    ball_scenes = "of bounce, occlude, cradle and pendulum"
    return [
        ("scene", WHOLE_SCENES, one, _control("scene"), "of all clips"),
        ("style", STYLES, one, _control("style"), "of all clips"),
        ("camera", CAMERAS, one, _camera, "of all clips"),
        ("pacing", PACINGS, one, _control("pacing"), "of all clips"),
        ("light", LIGHTS, one, _control("light"), "of all clips"),
        ("ambience", AMBIENCES, one, _ambience, "of scenes without a background sound of their own"),
        ("ambience_level", AMBIENCE_LEVELS, one, _ambience_level, "of clips with a background sound"),
        ("background", BACKGROUNDS, one, _control("background"), f"{ball_scenes}, strike and talk"),
        ("gravity", GRAVITIES, one, _control("gravity"), ball_scenes),
        (
            "color",
            COLORS,
            several,
            _of_things("color", COLORS, vehicles=True),
            f"{ball_scenes}, and of street",
        ),
        ("material", MATERIALS, several, _of_things("material", MATERIALS), ball_scenes),
        ("size", SIZES, several, _of_things("size", SIZES), ball_scenes),
        ("count", "12345", one, _count, "balls of bounce and cradle, vehicles of street"),
        ("obstacles", OBSTACLES, one, _of_scene("bounce", "obstacles"), "of bounce"),
        ("motion", MOTIONS, one, _of_scene("occlude", "motion"), "of occlude"),
        ("instrument", INSTRUMENTS, one, _of_scene("strike", "instrument"), "of strike"),
        ("melody", MELODIES, one, _of_scene("strike", "melody"), "of strike"),
        ("rhythm", RHYTHMS, one, _of_scene("strike", "rhythm"), "of strike"),
        ("dynamics", DYNAMICS, one, _of_scene("strike", "dynamics"), "of strike"),
        ("skin", APPEARANCE["skin"], one, _of_person("skin"), "of talk"),
        ("hair", APPEARANCE["hair"], one, _of_person("hair"), "of talk"),
        ("hair_color", APPEARANCE["hair_color"], one, _hair_color, "of talk, where there is hair"),
        ("glasses", APPEARANCE["glasses"], one, _of_person("glasses"), "of talk"),
        ("hat", APPEARANCE["hat"], one, _of_person("hat"), "of talk"),
        ("expression", EXPRESSIONS, one, _of_scene("talk", "expression"), "of talk"),
        ("gaze", GAZES, one, _of_scene("talk", "gaze"), "of talk"),
        ("rain", RAINS, one, _of_scene("weather", "rain"), "of weather"),
        ("wind", WINDS, one, _of_scene("weather", "wind"), "of weather"),
        ("thunder", ("none", *THUNDERS), one, _of_scene("weather", "thunder"), "of weather"),
        ("vehicle", VEHICLES, several, _of_things("kind", VEHICLES, vehicles=True, balls=False), "of street"),
        (
            "direction",
            DIRECTIONS,
            several,
            _of_things("direction", DIRECTIONS, vehicles=True, balls=False),
            "of the vehicles of street",
        ),
        ("shots", "234", one, _shots, "of story"),
        ("places", (PEOPLE, *PLACES), several, _places, "scenes that a story shows"),
    ]


ATTRIBUTES: Mapping[str, Attribute] = {
    name: Attribute(name, tuple(choices), several, ask, where)
    for name, choices, several, ask, where in _table()
}


def asked_attributes(truth: dict[str, Any]) -> dict[str, Answer]:
    """What a truth, whole or only commanded, asks for; attributes that do not apply are absent.

    Values outside the choices (seven balls of a commanded cradle) cannot be read, so they are absent too.
    """
    asked: dict[str, Answer] = {}
    for name, attribute in ATTRIBUTES.items():
        answer = attribute.ask(truth)
        if answer is not None and (attribute.several or answer in attribute.choices):
            asked[name] = answer
    return asked
