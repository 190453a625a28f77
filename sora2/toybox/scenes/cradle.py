"""Scene `cradle`: Newton's cradle; balls swing out on one side, then the other, with a click in between."""

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
BEAM_Y = 0.2
RADIUS = 0.052
#: Of the cradle as a whole: the share of the speed that goes through the row.
RESTITUTION = {"rubber": 0.9, "wood": 0.93, "metal": 0.98}
LENGTHS = {"slow": (0.46, 0.52), "normal": (0.34, 0.42), "fast": (0.22, 0.28)}
COUNTS = (3, 4, 5)


@dataclass(frozen=True)
class CradleParameters:
    controls: Controls
    props: Props
    count: int  # balls
    raised: int  # of them, pulled out at the start
    side: int  # -1 left, 1 right
    length: float
    angle: float  # radians at the start, positive

    def carriers(self) -> list[dict[str, str]]:
        return [self.controls.names() | self.props.words()]


@register_scene("cradle")
class Cradle:
    """Exact pendulums; equal balls hand the speed through the row at once."""

    name: str
    splits = (*EVERYDAY_SPLITS, "test_physics_ood")
    held_out = HELD_OUT

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> CradleParameters:
        rng = stream(config.seed, config.split, "cradle", index, "parameters")

        def draw() -> CradleParameters:
            controls = draw_controls(config, rng)
            props = replace(draw_props(config, rng, ("normal", "high")), size="small")
            count = pick(rng, COUNTS)
            raised = int(rng.integers(1, 1 + count // 2))
            side = pick(rng, (-1, 1))
            length = float(rng.uniform(*LENGTHS[controls.pacing]))
            return CradleParameters(
                controls,
                props,
                count,
                raised,
                side,
                length,
                float(rng.uniform(0.7, 1.0) * widest(count, length)),
            )

        drawn = draw_for_split(config, draw, CradleParameters.carriers, self.held_out)
        controls, rest = command(drawn.controls, overrides)
        fields, rest = command_props(drawn.props, rest)
        reject_unknown(
            rest, ("color", "material", "background", "gravity", "count", "raised", "angle", "length")
        )
        result = replace(drawn, controls=controls, props=Props(**fields), **rest)
        check_range("count", result.count, 2, 7)
        check_range("raised", result.raised, 1, result.count - 1)
        check_range("length", result.length, 0.1, 0.65)
        check_range("angle", result.angle, 0.05, 1.5)
        return result

    def simulate(self, config: ToyboxConfig, parameters: CradleParameters) -> Swings:
        return swing(
            parameters.length,
            parameters.props.gravity_value,
            parameters.side * parameters.angle,
            RESTITUTION[parameters.props.material],
            config.samples / config.sample_rate,
            passes=True,
        )

    def picture(
        self, config: ToyboxConfig, parameters: CradleParameters, world: Swings, seconds: np.ndarray
    ) -> Picture:
        anchors = self._anchors(config, parameters)
        angles = self._angles(parameters, world, seconds)  # (balls, T)
        half = RADIUS * parameters.count + 0.03
        middle = config.world_size[0] / 2
        layers = [
            Layer(
                box(half, 0.016), (120, 96, 72), x=middle, y=BEAM_Y, surface="bevel", lift=0.04, name="beam"
            )
        ]
        order = sorted(range(parameters.count), key=lambda k: bool(np.ptp(angles[k]) > 0))
        for k in order:  # those that hang still first
            angle = angles[k] if np.ptp(angles[k]) > 0 else float(angles[k][0])
            layers.append(
                Layer(
                    box(0.006, parameters.length / 2),
                    (70, 66, 62),
                    x=anchors[k] + np.sin(angle) * parameters.length / 2,
                    y=BEAM_Y + np.cos(angle) * parameters.length / 2,
                    angle=-angle,
                    outline=0.0,
                    name=f"string {k}",
                )
            )
        for k in order:
            angle = angles[k] if np.ptp(angles[k]) > 0 else float(angles[k][0])
            layers.append(
                Layer(
                    circle(RADIUS),
                    COLORS[parameters.props.color],
                    x=anchors[k] + np.sin(angle) * parameters.length,
                    y=BEAM_Y + np.cos(angle) * parameters.length,
                    surface="dome",
                    material="matte" if parameters.props.material == "rubber" else parameters.props.material,
                    outline=RADIUS * 1.2 / 6.5,
                    lift=0.05,
                    name=f"ball {k}",
                )
            )
        return Picture(room(parameters.props.background, FLOOR), layers)

    def _anchors(self, config: ToyboxConfig, parameters: CradleParameters) -> np.ndarray:
        """(balls,) x of the strings' upper ends."""
        return config.world_size[0] / 2 + RADIUS * (2 * np.arange(parameters.count) - parameters.count + 1)

    def _angles(self, parameters: CradleParameters, world: Swings, seconds: np.ndarray) -> np.ndarray:
        """(balls, T): as many as were raised swing, on the side of the moment; the others hang still."""
        angle, _, _ = world.at(seconds)
        angles = np.zeros((parameters.count, seconds.size))
        angles[: parameters.raised] += np.minimum(angle, 0)
        angles[parameters.count - parameters.raised :] += np.maximum(angle, 0)
        return angles

    def sound(
        self, config: ToyboxConfig, parameters: CradleParameters, world: Swings, rng: np.random.Generator
    ) -> np.ndarray:
        audio = np.zeros((config.channels, config.samples), np.float32)
        impacts = [
            Impact(e["onset_seconds"], e["level"], e["pan"], parameters.props.material, "small")
            for e in self._events(config, parameters, world)
        ]
        add_impacts(audio, impacts, config.sample_rate)
        return audio

    def _events(
        self, config: ToyboxConfig, parameters: CradleParameters, world: Swings
    ) -> list[dict[str, Any]]:
        anchors, events = self._anchors(config, parameters), []
        for onset, spin, side in world.clicks:
            speed = spin * parameters.length
            # the raised balls arrive from `side` and meet the rest there
            k = parameters.raised - 1 if side < 0 else parameters.count - parameters.raised
            x = float(anchors[k] - side * RADIUS)
            events.append(
                {
                    "onset_seconds": onset,
                    "kind": "click",
                    "speed": speed,
                    "level": impact_level(2 * speed),
                    "pan": pan_position(x, config.world_size[0]),
                    "x": x,
                    "y": BEAM_Y + parameters.length,
                }
            )
        return events

    def truth(self, config: ToyboxConfig, parameters: CradleParameters, world: Swings) -> dict[str, Any]:
        angles = self._angles(parameters, world, config.frame_seconds)
        _, spin, _ = world.at(config.frame_seconds)
        anchors, length = self._anchors(config, parameters), parameters.length
        height = length * (1 - np.cos(np.abs(angles).max(axis=0)))
        energy = parameters.props.gravity_value * height + 0.5 * (spin * length) ** 2
        balls = [
            {
                "color": parameters.props.color,
                "material": parameters.props.material,
                "size": parameters.props.size,
                "radius": RADIUS,
                "restitution": RESTITUTION[parameters.props.material],
                "angle": angles[k].round(7).tolist(),
                "x": (anchors[k] + length * np.sin(angles[k])).round(7).tolist(),
                "y": (BEAM_Y + length * np.cos(angles[k])).round(7).tolist(),
                "visible": [True] * config.frames,
            }
            for k in range(parameters.count)
        ]
        return props_truth(parameters.props) | {
            "count": parameters.count,
            "raised": parameters.raised,
            "length": length,
            "restitution": RESTITUTION[parameters.props.material],
            "balls": balls,
            "energy_per_mass": energy.round(7).tolist(),  # of the balls that swing
            "events": self._events(config, parameters, world),
            "held_out": met_combinations(parameters.carriers(), HELD_OUT),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        ball = truth["balls"][0]
        return {"background": truth["background"], "gravity": truth["gravity"]} | {
            f"ball0.{name}": ball[name] for name in ("color", "material", "size")
        }

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        found = self.attributes(truth)
        thing = thing_words(found, rng)
        gravity, background = (str(pick(rng, WORDS[n][found[n]])) for n in ("gravity", "background"))
        count = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}[truth["count"]]
        name = str(pick(rng, ("Newton's cradle", "swinging cradle")))
        return Phrases(
            label=(f"{name} of {count} {thing} balls", gravity, background),
            subject=f"a {name} of {count} {thing} balls",
            action=f"clicks to and fro under {gravity} in front of {with_article(background)}",
            sound=f"Each time the balls meet there is {IMPACT_WORDS[truth['balls'][0]['material']]}.",
            details=(f"{'One ball swings' if truth['raised'] == 1 else 'Two balls swing'} out at a time.",),
        )


def widest(count: int, length: float) -> float:
    """The largest angle at which the outer balls stay in the picture."""
    return min(1.05, math.asin(min(0.9, (0.47 - RADIUS * count) / length)))
