"""Scene `street`: vehicles pass the camera, with the level, the place and the Doppler shift of the true line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sora2.toybox.captions import WORDS, Phrases, enumerate_things
from sora2.toybox.config import ToyboxConfig, ToyboxError, check_choice, check_range
from sora2.toybox.controls import Controls, command, draw_controls
from sora2.toybox.engine import ENGINES, rolling_noise_table
from sora2.toybox.layers import Layer, Picture
from sora2.toybox.noise import shaped_noise
from sora2.toybox.randomness import pick, stream
from sora2.toybox.scene import (
    EVERYDAY_SPLITS,
    draw_for_split,
    met_combinations,
    register_scene,
    reject_unknown,
)
from sora2.toybox.scenes.street_picture import street, vehicle_layers
from sora2.toybox.scenes.street_sound import HORN_LOUDNESS, HORN_SECONDS, LOUDNESS, add_vehicle, vehicle_level
from sora2.toybox.scenes.street_traffic import (
    DIRECTIONS,
    HEADWAY_SECONDS,
    LANES,
    OUTSIDE_SPEEDS,
    SPEEDS,
    VEHICLES,
    Vehicle,
    visible,
)
from sora2.toybox.sound import LEVEL_GAIN, pan_position
from sora2.toybox.vocabulary import COLORS

#: Root mean square of the far traffic at the normal ambience level.
CITY_LEVEL = 0.018
MOST_VEHICLES = 2  # drawn; a long clip has more of them, one after the other
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": tuple(VEHICLES),
    "color": tuple(COLORS),
    "lane": tuple(LANES),
    "direction": tuple(DIRECTIONS),
}
_VEHICLE_FIELDS = tuple(Vehicle.__dataclass_fields__)
#: What can be commanded besides the controls: `vehicles` is a list of dicts of fields of `Vehicle`, whose length
#: sets the count; fields by themselves are those of vehicle 0.
COMMANDS = ("count", "vehicles", "houses", *_VEHICLE_FIELDS)


@dataclass(frozen=True)
class StreetParameters:
    controls: Controls
    vehicles: tuple[Vehicle, ...]
    houses: int  # seed of the row of houses
    traffic_seed: int  # of the vehicles that follow in a long clip


@register_scene("street")
class Street:
    """One vehicle in each of one or two lanes; the camera is the listener.

    Truth: vehicles (the first `drawn_vehicles` are those of the caption): kind, color, lane, direction, speed
    (metres per second), closest_seconds (when it is straight ahead), closest_heard_seconds, closest_metres,
    engine_hz, pitch_ratio_before and _after (the limits), horn_seconds (by its own time), length, height, ground
    (world units; ground is the y of its wheels) and, per frame, x of its middle, visible, distance_metres, and of
    the sound that arrives: pitch_ratio, level (root mean square before panning), pan; events of kind horn, as heard.
    """

    name: str
    splits = (*EVERYDAY_SPLITS, "test_physics_ood")
    held_out = (
        {"kind": "truck", "color": "red"},
        {"kind": "motorbike", "direction": "left"},
        {"kind": "car", "color": "green"},
        {"style": "moody", "kind": "truck"},
    )

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> StreetParameters:
        rng = stream(config.seed, config.split, self.name, index, "parameters")
        speeds = OUTSIDE_SPEEDS if config.split == "test_physics_ood" else SPEEDS

        def draw() -> tuple[int, StreetParameters]:
            controls = replace(draw_controls(config, rng), ambience="silence")
            count = int(rng.integers(1, MOST_VEHICLES + 1))
            lanes = [tuple(LANES)[k] for k in rng.permutation(len(LANES))]
            colors = [tuple(COLORS)[k] for k in rng.permutation(len(COLORS))]
            vehicles = tuple(
                _draw_vehicle(rng, color, lane, speeds[controls.pacing], config.seconds)
                for color, lane in zip(colors[:MOST_VEHICLES], lanes, strict=True)
            )
            return count, StreetParameters(
                controls, vehicles, int(rng.integers(64)), int(rng.integers(1 << 31))
            )

        count, drawn = draw_for_split(
            config,
            draw,
            lambda drawn: _carriers(replace(drawn[1], vehicles=drawn[1].vehicles[: drawn[0]])),
            self.held_out,
        )
        return _apply(count, drawn, overrides, speeds)

    def simulate(self, config: ToyboxConfig, parameters: StreetParameters) -> tuple[Vehicle, ...]:
        """All vehicles of the clip; those after the first of each lane follow it at its speed."""
        rng = np.random.default_rng(parameters.traffic_seed)
        vehicles = list(parameters.vehicles)
        for leader in parameters.vehicles:
            when = leader.closest_seconds
            while (when := when + float(rng.uniform(*HEADWAY_SECONDS))) < config.seconds + 1.0:
                kind, color = pick(rng, tuple(VEHICLES)), pick(rng, tuple(COLORS))
                vehicles.append(
                    replace(leader, kind=kind, color=color, closest_seconds=when, horn_seconds=None)
                )
        return tuple(vehicles)

    def picture(
        self,
        config: ToyboxConfig,
        parameters: StreetParameters,
        world: tuple[Vehicle, ...],
        seconds: np.ndarray,
    ) -> Picture:
        width = config.world_size[0]
        layers: list[Layer] = []
        for vehicle in sorted(world, key=lambda vehicle: -vehicle.metres):
            x = vehicle.picture_x(vehicle.pass_by().along(seconds), width / 2)
            reach = vehicle.length * vehicle.scale / 2 + 0.3  # other cameras see more than the still one
            if visible(x, reach, width).any():
                layers += vehicle_layers(vehicle, x, _horn_on(vehicle, seconds))
        return Picture(street(parameters.houses), layers)

    def sound(
        self,
        config: ToyboxConfig,
        parameters: StreetParameters,
        world: tuple[Vehicle, ...],
        rng: np.random.Generator,
    ) -> np.ndarray:
        shape = (config.channels, config.samples, config.sample_rate)
        audio = shaped_noise(rng, ("city",), *shape)[0]
        audio *= np.float32(CITY_LEVEL * LEVEL_GAIN[parameters.controls.ambience_level])
        tyres = rolling_noise_table(rng, config.sample_rate)
        for vehicle in world:
            add_vehicle(audio, vehicle, tyres, config.world_size[0], config.sample_rate)
        return audio

    def truth(
        self, config: ToyboxConfig, parameters: StreetParameters, world: tuple[Vehicle, ...]
    ) -> dict[str, Any]:
        return {
            "vehicles": [_vehicle_truth(config, vehicle) for vehicle in world],
            "drawn_vehicles": len(parameters.vehicles),
            "houses": parameters.houses,
            "own_ambience": "city hum",
            "events": _events(config, world),
            "held_out": met_combinations(_carriers(parameters), self.held_out),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        return {
            f"vehicle{i}.{name}": vehicle[name]
            for i, vehicle in enumerate(truth["vehicles"][: truth["drawn_vehicles"]])
            for name in ("kind", "color", "direction")
        }

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        things, ways = [], []
        vehicles = truth["vehicles"][: truth["drawn_vehicles"]]
        for vehicle in vehicles:
            kind, color, way = (
                str(pick(rng, WORDS[name][vehicle[name]])) for name in ("kind", "color", "direction")
            )
            things.append(f"{color} {kind}")
            ways.append(way)
        place = str(pick(rng, ("a city street", "a street", "a road through the city")))
        verb = str(pick(rng, ("passes", "drives")))
        others = "".join(
            f" and {_article(thing)} {way}" for thing, way in zip(things[1:], ways[1:], strict=True)
        )
        heard = [_SOUNDS[kind] for kind in dict.fromkeys(vehicle["kind"] for vehicle in vehicles)]
        heard_text = enumerate_things(heard)
        details = [
            f"The {thing} sounds its horn."
            for thing, vehicle in zip(things, vehicles, strict=True)
            if vehicle["horn_seconds"] is not None
        ]
        return Phrases(
            label=(
                *(f"{thing} {way}" for thing, way in zip(things, ways, strict=True)),
                place.removeprefix("a "),
            ),
            subject=_article(things[0]),
            action=f"{verb} {ways[0]}{others} on {place}",
            sound=f"{heard_text[0].upper()}{heard_text[1:]}; the pitch falls at the moment of passing.",
            details=tuple(details),
            own_ambience=truth["own_ambience"],
        )


WORDS["kind"] = {
    "car": ("car",),
    "truck": ("truck", "lorry"),
    "motorbike": ("motorbike", "motorcycle"),
}
WORDS["direction"] = {
    "right": ("to the right", "from left to right"),
    "left": ("to the left", "from right to left"),
}
_SOUNDS = {
    "car": "the hum of a car grows and fades",
    "truck": "the low rumble of a truck grows and fades",
    "motorbike": "the snarl of a motorbike grows and fades",
}


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _carriers(parameters: StreetParameters) -> list[dict[str, str]]:
    clip = parameters.controls.names()
    return [
        clip | {name: getattr(vehicle, name) for name in ("kind", "color", "direction", "lane")}
        for vehicle in parameters.vehicles
    ]


def _draw_vehicle(
    rng: np.random.Generator, color: str, lane: str, speeds: tuple[float, float], seconds: float
) -> Vehicle:
    kind, direction = pick(rng, tuple(VEHICLES)), pick(rng, tuple(DIRECTIONS))
    speed = float(rng.uniform(*speeds))
    closest = float(rng.uniform(0.28, 0.72)) * min(seconds, 2.5)
    horn = closest + float(rng.uniform(-0.45, 0.15)) * min(seconds, 2.5) / 2
    sounds = rng.random() < 0.25
    return Vehicle(kind, color, lane, direction, speed, closest, horn if sounds and horn > 0 else None)


def _apply(
    count: int,
    drawn: StreetParameters,
    overrides: Mapping[str, Any],
    speeds: Mapping[str, tuple[float, float]],
) -> StreetParameters:
    controls, changes = command(drawn.controls, overrides)
    reject_unknown(changes, COMMANDS)
    own = [dict(vehicle) for vehicle in changes.pop("vehicles", [])]
    count = changes.pop("count", len(own) or count)
    check_range("count", count, 1, MOST_VEHICLES)
    if len(own) > count:
        raise ToyboxError(f"vehicles names {len(own)} vehicles but count={count}")
    own += [{} for _ in range(count - len(own))]
    for name in [name for name in changes if name in _VEHICLE_FIELDS]:
        own[0][name] = changes.pop(name)
    old, new = speeds[drawn.controls.pacing], speeds[controls.pacing]
    vehicles = []
    for i, change in enumerate(own):
        vehicle = drawn.vehicles[i]
        share = (vehicle.speed - old[0]) / (old[1] - old[0])
        vehicles.append(
            _override_vehicle(i, replace(vehicle, speed=new[0] + share * (new[1] - new[0])), change)
        )
    if count == 2 and vehicles[0].lane == vehicles[1].lane:
        first = "lane" in own[0] and "lane" not in own[1]
        if not first and ("lane" in own[0]) == ("lane" in own[1]):
            raise ToyboxError(f"lane={vehicles[0].lane!r} of both vehicles: give each its own lane")
        other = next(lane for lane in LANES if lane != vehicles[0].lane)
        moved = 1 if first else 0
        vehicles[moved] = replace(vehicles[moved], lane=other)
    return replace(drawn, controls=controls, vehicles=tuple(vehicles), **changes)


def _override_vehicle(index: int, vehicle: Vehicle, change: dict[str, Any]) -> Vehicle:
    for name in change:
        check_choice(f"attribute of vehicle {index}", name, _VEHICLE_FIELDS)
    for name, choices in _CHOICES.items():
        if name in change:
            check_choice(f"vehicle {index} {name}", change[name], choices)
    result = replace(vehicle, **change)
    check_range(f"vehicle {index} speed", result.speed, 1.0, 100.0)
    return result


def _horn_on(vehicle: Vehicle, seconds: np.ndarray) -> np.ndarray:
    """(T,) 1 while the horn sounds at the vehicle."""
    if vehicle.horn_seconds is None:
        return np.zeros(seconds.shape)
    age = seconds - vehicle.horn_seconds
    return ((age >= 0) & (age < HORN_SECONDS)).astype(float)


def _vehicle_truth(config: ToyboxConfig, vehicle: Vehicle) -> dict[str, Any]:
    """Seen at its own time, heard at the listener's: pitch_ratio, level and pan are of what arrives."""
    width = config.world_size[0]
    seconds = config.frame_seconds
    line = vehicle.pass_by()
    x = vehicle.picture_x(line.along(seconds), width / 2)
    emitted = line.emitted_seconds(seconds)
    heard_x = vehicle.picture_x(line.along(emitted), width / 2)
    half = vehicle.length * vehicle.scale / 2
    before, after = line.pitch_ratios
    return {
        "kind": vehicle.kind,
        "color": vehicle.color,
        "lane": vehicle.lane,
        "direction": vehicle.direction,
        "speed": vehicle.speed,
        "closest_seconds": vehicle.closest_seconds,
        "closest_heard_seconds": float(line.heard_seconds(vehicle.closest_seconds)),
        "closest_metres": line.closest_metres,
        "horn_seconds": vehicle.horn_seconds,
        "engine_hz": ENGINES[vehicle.kind].fundamental_hz,
        "pitch_ratio_before": before,
        "pitch_ratio_after": after,
        "length": vehicle.length * vehicle.scale,
        "height": vehicle.height * vehicle.scale,
        "ground": vehicle.picture_ground,
        "x": x.round(7).tolist(),
        "visible": visible(x, half, width).tolist(),
        "distance_metres": line.distance(seconds).round(7).tolist(),
        "pitch_ratio": line.pitch_ratio(seconds).round(9).tolist(),
        "level": (LOUDNESS[vehicle.kind] * vehicle_level(line.distance(emitted))).round(7).tolist(),
        "pan": [pan_position(place, width) for place in heard_x.tolist()],
    }


def _events(config: ToyboxConfig, world: tuple[Vehicle, ...]) -> list[dict[str, Any]]:
    """Horns, as they are heard."""
    width = config.world_size[0]
    events: list[dict[str, Any]] = []
    for i, vehicle in enumerate(world):
        if vehicle.horn_seconds is None:
            continue
        line = vehicle.pass_by()
        onset = float(line.heard_seconds(vehicle.horn_seconds))
        place = float(vehicle.picture_x(np.array(line.along(vehicle.horn_seconds)), width / 2))
        if onset < config.seconds:
            events.append(
                {
                    "onset_seconds": onset,
                    "kind": "horn",
                    "vehicle": i,
                    "emitted_seconds": vehicle.horn_seconds,
                    "hz": [hz * float(line.pitch_ratio(onset)) for hz in ENGINES[vehicle.kind].horn_hz],
                    "level": HORN_LOUDNESS
                    * float(vehicle_level(np.array(line.distance(vehicle.horn_seconds)))),
                    "pan": pan_position(place, width),
                    "x": place,
                    "y": vehicle.picture_ground,
                }
            )
    return sorted(events, key=lambda event: float(event["onset_seconds"]))
