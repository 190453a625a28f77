"""Scene `bounce`: one to three balls under gravity in a box; every impact is seen and heard."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from sora2.toybox.backdrops import room
from sora2.toybox.config import ToyboxConfig
from sora2.toybox.layers import Layer, Picture
from sora2.toybox.physics import Contact, Trajectories
from sora2.toybox.prompts import bounce_prompt
from sora2.toybox.rolling import add_roll, audible_rolls
from sora2.toybox.scene import EVERYDAY_SPLITS, Phrases, met_combinations, register_scene
from sora2.toybox.scenes.bounce_captions import caption, phrases
from sora2.toybox.scenes.bounce_parameters import BounceParameters, run, sample_parameters, world_box
from sora2.toybox.shapes import box, circle, polygon
from sora2.toybox.sound import SILENT_SPEED, Impact, add_impacts, impact_level, pan_position
from sora2.toybox.vocabulary import COLORS, HELD_OUT

#: When two balls meet, each rings at this share of the event's level.
PAIR_SHARE = 0.7


@register_scene("bounce")
class Bounce:
    """Balls on parabolas between exact collisions; truth, pictures and sound share the same flights."""

    name: str
    splits = (*EVERYDAY_SPLITS, "test_physics_ood")
    held_out = HELD_OUT

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> BounceParameters:
        return sample_parameters(config, index, overrides)

    def simulate(self, config: ToyboxConfig, parameters: BounceParameters) -> Trajectories:
        return run(config, parameters)

    def picture(
        self, config: ToyboxConfig, parameters: BounceParameters, world: Trajectories, seconds: np.ndarray
    ) -> Picture:
        floor = world_box(config).bottom
        layers = [*box_layers(config), *obstacle_layers(config, parameters)]
        angles = world.angles(seconds) if parameters.rolling else np.zeros(len(parameters.balls))
        for ball, (x, y, _, _), angle in zip(parameters.balls, world.at(seconds), angles, strict=True):
            turned = angle if parameters.rolling else 0.0
            layers.append(ball_layer(ball.radius, ball.color, ball.material, x, y, floor, turned))
        return Picture(room(parameters.background, floor), layers)

    def sound(
        self,
        config: ToyboxConfig,
        parameters: BounceParameters,
        world: Trajectories,
        rng: np.random.Generator,
    ) -> np.ndarray:
        audio = np.zeros((config.channels, config.samples), np.float32)
        impacts = []
        for contact in _audible(world):
            event = contact_event(contact, config)
            who = [contact.ball] if contact.other is None else [contact.ball, contact.other]
            level = event["level"] * (1.0 if len(who) == 1 else PAIR_SHARE)
            for ball in (parameters.balls[k] for k in who):
                impacts.append(Impact(contact.seconds, level, event["pan"], ball.material, ball.size))
        add_impacts(audio, impacts, config.sample_rate)
        if parameters.rolling:
            for roll in audible_rolls(world):
                add_roll(audio, roll, world, parameters.balls[roll.ball].material, config, rng)
        return audio

    def truth(
        self, config: ToyboxConfig, parameters: BounceParameters, world: Trajectories
    ) -> dict[str, Any]:
        box = world_box(config)
        states = world.at(config.frame_seconds).round(7).tolist()
        balls = [
            {
                "color": ball.color,
                "material": ball.material,
                "size": ball.size,
                "radius": ball.radius,
                "mass": ball.mass,
                "restitution": ball.restitution,
                **dict(zip(("x", "y", "vx", "vy"), state, strict=True)),
                "visible": [True] * config.frames,
            }
            for ball, state in zip(parameters.balls, states, strict=True)
        ]
        return {
            "background": parameters.background,
            "gravity": parameters.gravity,
            "gravity_value": parameters.gravity_value,
            "obstacles": parameters.obstacles,
            "pegs": [asdict(peg) for peg in parameters.pegs],
            "ramp": None if parameters.ramp is None else asdict(parameters.ramp),
            "rolls": [asdict(roll) for roll in audible_rolls(world)] if parameters.rolling else [],
            "box": [box.left, box.top, box.right, box.bottom],
            "balls": balls,
            "events": [contact_event(contact, config) for contact in _audible(world)],
            "held_out": met_combinations(parameters.carriers(), HELD_OUT),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        found = {name: truth[name] for name in ("background", "gravity")}
        if truth["obstacles"] != "none":
            found["obstacles"] = truth["obstacles"]
        for i, ball in enumerate(truth["balls"]):
            found |= {f"ball{i}.{name}": ball[name] for name in ("color", "material", "size")}
        return found

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        found = self.attributes(truth) | {name: truth[name] for name in ("style", "ambience")}
        sentence = caption(found, rng)
        materials = [ball["material"] for ball in truth["balls"]]
        return phrases(found, materials, bool(truth["rolls"]), sentence, rng)

    def prompt(self, truth: dict[str, Any], rng: np.random.Generator) -> str:
        return bounce_prompt(self.attributes(truth) | {n: truth[n] for n in ("style", "ambience")}, rng)


def box_layers(config: ToyboxConfig) -> list[Layer]:
    """The side walls and ceiling of the box, outside the still camera's view: other cameras look there."""
    width, _ = config.world_size
    bottom, reach, color = world_box(config).bottom, 0.5, (150, 140, 128)
    middle, half = (bottom - reach) / 2, (bottom + reach) / 2
    side = box(reach / 2, half)
    lid = box(width / 2 + reach, reach / 2)
    return [
        Layer(lid, color, x=width / 2, y=-reach / 2, surface="bevel", name="ceiling"),
        Layer(side, color, x=-reach / 2, y=middle, surface="bevel", name="left wall"),
        Layer(side, color, x=width + reach / 2, y=middle, surface="bevel", name="right wall"),
    ]


def obstacle_layers(config: ToyboxConfig, parameters: BounceParameters) -> list[Layer]:
    edges, layers = world_box(config), []
    for peg in parameters.pegs:
        layers.append(
            Layer(
                circle(peg.radius), (116, 108, 100), x=peg.x, y=peg.y, surface="dome", lift=0.03, name="peg"
            )
        )
    if parameters.ramp is not None:
        ramp = parameters.ramp
        wall, sign = (edges.left, 1) if ramp.side == "left" else (edges.right, -1)
        corners = [(0.0, -ramp.height), (sign * ramp.length, 0.0), (0.0, 0.0)]
        layers.append(
            Layer(
                polygon(corners),
                (158, 138, 112),
                x=wall,
                y=edges.bottom,
                surface="bevel",
                lift=0.04,
                name="ramp",
            )
        )
    return layers


def ball_layer(
    radius: float,
    color: str,
    material: str,
    x: np.ndarray | float,
    y: np.ndarray | float,
    floor: float,
    angle: np.ndarray | float = 0.0,
) -> Layer:
    """A ball of the tables' colour and material that throws its shadow on the floor."""
    return Layer(
        circle(radius),
        COLORS[color],
        x=x,
        y=y,
        angle=angle,
        surface="dome",
        material="matte" if material == "rubber" else material,
        outline=radius * 1.2 / 6.5,
        ground=floor,
        name=f"{color} ball",
    )


def _audible(world: Trajectories) -> list[Contact]:
    return [contact for contact in world.contacts if contact.speed >= SILENT_SPEED]


def contact_event(contact: Contact, config: ToyboxConfig) -> dict[str, Any]:
    return {
        "onset_seconds": contact.seconds,
        "kind": contact.kind,
        "ball": contact.ball,
        "other": contact.other,
        "speed": contact.speed,
        "level": impact_level(contact.speed),
        "pan": pan_position(contact.x, config.world_size[0]),
        "x": contact.x,
        "y": contact.y,
    }
