"""Scene `pendulum`: a bob on a rod strikes a post at its lowest point, tick after tick."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sora2.toybox.backdrops import room
from sora2.toybox.captions import WORDS, Phrases
from sora2.toybox.config import ToyboxConfig, check_range
from sora2.toybox.controls import Controls, command, draw_controls
from sora2.toybox.layers import Layer, Picture
from sora2.toybox.pendulums import Swings, swing
from sora2.toybox.randomness import pick, stream
from sora2.toybox.scene import (
    EVERYDAY_SPLITS,
    draw_for_split,
    met_combinations,
    register_scene,
    reject_unknown,
)
from sora2.toybox.scenes.props import (
    IMPACT_WORDS,
    Props,
    command_props,
    draw_props,
    props_truth,
    thing_words,
    with_article,
)
from sora2.toybox.shapes import box, circle
from sora2.toybox.sound import Impact, add_impacts, impact_level, pan_position
from sora2.toybox.vocabulary import COLORS, HELD_OUT

FLOOR = 58 / 64
PIVOT_Y = 0.14
#: Share of the speed that a tick leaves.
RESTITUTION = 0.985
LENGTHS = {"slow": (0.52, 0.58), "normal": (0.36, 0.46), "fast": (0.2, 0.28)}


@dataclass(frozen=True)
class PendulumParameters:
    controls: Controls
    props: Props
    pivot: float  # share of the picture's width
    length: float
    angle: float  # at the start, positive to the right

    def carriers(self) -> list[dict[str, str]]:
        return [self.controls.names() | self.props.words()]


@register_scene("pendulum")
class Pendulum:
    """The exact pendulum, also where the angle is large."""

    name: str
    splits = (*EVERYDAY_SPLITS, "test_physics_ood")
    held_out = HELD_OUT

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> PendulumParameters:
        rng = stream(config.seed, config.split, "pendulum", index, "parameters")

        def draw() -> PendulumParameters:
            controls = draw_controls(config, rng)
            props = draw_props(config, rng, ("normal", "high"))
            pivot, length = float(rng.uniform(0.42, 0.58)), float(rng.uniform(*LENGTHS[controls.pacing]))
            room_ = (min(pivot, 1 - pivot) * config.world_size[0] - props.radius) / length
            angle = float(rng.uniform(0.65, 1.0)) * math.asin(min(0.93, room_))
            return PendulumParameters(controls, props, pivot, length, angle * pick(rng, (-1, 1)))

        drawn = draw_for_split(config, draw, PendulumParameters.carriers, self.held_out)
        controls, rest = command(drawn.controls, overrides)
        fields, rest = command_props(drawn.props, rest)
        reject_unknown(
            rest, ("color", "material", "size", "background", "gravity", "pivot", "length", "angle")
        )
        result = replace(drawn, controls=controls, props=Props(**fields), **rest)
        check_range("pivot", result.pivot, 0.1, 0.9)
        check_range("length", result.length, 0.1, 0.65)
        check_range("angle", result.angle, -2.5, 2.5)
        return result

    def simulate(self, config: ToyboxConfig, parameters: PendulumParameters) -> Swings:
        return swing(
            parameters.length,
            parameters.props.gravity_value,
            parameters.angle,
            RESTITUTION,
            config.samples / config.sample_rate,
            passes=True,
        )

    def picture(
        self, config: ToyboxConfig, parameters: PendulumParameters, world: Swings, seconds: np.ndarray
    ) -> Picture:
        x0, length, props = parameters.pivot * config.world_size[0], parameters.length, parameters.props
        angle, _, _ = world.at(seconds)
        post_top = PIVOT_Y + length + props.radius
        layers = [
            Layer(box(0.16, 0.014), (120, 96, 72), x=x0, y=PIVOT_Y, surface="bevel", lift=0.04, name="beam"),
            Layer(
                box(0.022, max(0.01, (FLOOR - post_top) / 2)),
                (132, 112, 88),
                x=x0,
                y=(FLOOR + post_top) / 2,
                surface="bevel",
                lift=0.03,
                name="post",
            ),
            Layer(
                box(0.007, length / 2),
                (84, 80, 76),
                x=x0 + np.sin(angle) * length / 2,
                y=PIVOT_Y + np.cos(angle) * length / 2,
                angle=-angle,
                outline=0.0,
                name="rod",
            ),
            Layer(
                circle(props.radius),
                COLORS[props.color],
                x=x0 + np.sin(angle) * length,
                y=PIVOT_Y + np.cos(angle) * length,
                angle=-angle,
                surface="dome",
                material="matte" if props.material == "rubber" else props.material,
                outline=props.radius * 1.2 / 6.5,
                lift=0.05,
                name="bob",
            ),
        ]
        return Picture(room(props.background, FLOOR), layers)

    def sound(
        self, config: ToyboxConfig, parameters: PendulumParameters, world: Swings, rng: np.random.Generator
    ) -> np.ndarray:
        audio = np.zeros((config.channels, config.samples), np.float32)
        impacts = [
            Impact(e["onset_seconds"], e["level"], e["pan"], parameters.props.material, parameters.props.size)
            for e in self._events(config, parameters, world)
        ]
        add_impacts(audio, impacts, config.sample_rate)
        return audio

    def _events(
        self, config: ToyboxConfig, parameters: PendulumParameters, world: Swings
    ) -> list[dict[str, Any]]:
        x = parameters.pivot * config.world_size[0]
        return [
            {
                "onset_seconds": onset,
                "kind": "tick",
                "speed": spin * parameters.length,
                "level": impact_level(spin * parameters.length),
                "pan": pan_position(x, config.world_size[0]),
                "x": x,
                "y": PIVOT_Y + parameters.length,
            }
            for onset, spin, _ in world.clicks
        ]

    def truth(self, config: ToyboxConfig, parameters: PendulumParameters, world: Swings) -> dict[str, Any]:
        angle, spin, _ = world.at(config.frame_seconds)
        props, length = parameters.props, parameters.length
        energy = props.gravity_value * length * (1 - np.cos(angle)) + 0.5 * (spin * length) ** 2
        bob = {
            "color": props.color,
            "material": props.material,
            "size": props.size,
            "radius": props.radius,
            "restitution": RESTITUTION,
            "angle": angle.round(7).tolist(),
            "x": (parameters.pivot * config.world_size[0] + length * np.sin(angle)).round(7).tolist(),
            "y": (PIVOT_Y + length * np.cos(angle)).round(7).tolist(),
            "visible": [True] * config.frames,
        }
        return props_truth(props) | {
            "length": length,
            "restitution": RESTITUTION,
            "balls": [bob],
            "energy_per_mass": energy.round(7).tolist(),
            "events": self._events(config, parameters, world),
            "held_out": met_combinations(parameters.carriers(), HELD_OUT),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        bob = truth["balls"][0]
        return {"background": truth["background"], "gravity": truth["gravity"]} | {
            f"ball0.{name}": bob[name] for name in ("color", "material", "size")
        }

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        found = self.attributes(truth)
        thing = thing_words(found, rng)
        gravity, background = (str(pick(rng, WORDS[n][found[n]])) for n in ("gravity", "background"))
        return Phrases(
            label=(f"pendulum with a {thing} bob", gravity, background),
            subject=str(pick(rng, (f"a pendulum with a {thing} bob", f"a {thing} ball on a swinging rod"))),
            action=f"swings and ticks under {gravity} in front of {with_article(background)}",
            sound=f"At every lowest point there is {IMPACT_WORDS[truth['balls'][0]['material']]}.",
        )
