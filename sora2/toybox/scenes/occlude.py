"""Scene `occlude`: a ball passes behind a wall, is heard while it cannot be seen, and must come back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sora2.toybox.backdrops import room
from sora2.toybox.captions import WORDS, Phrases
from sora2.toybox.config import ToyboxConfig, check_choice, check_range
from sora2.toybox.controls import Controls, command, draw_controls
from sora2.toybox.layers import Layer, Picture
from sora2.toybox.physics import Disc, Trajectories, simulate
from sora2.toybox.randomness import pick, stream
from sora2.toybox.rolling import add_roll, audible_rolls
from sora2.toybox.scene import (
    EVERYDAY_SPLITS,
    draw_for_split,
    met_combinations,
    register_scene,
    reject_unknown,
)
from sora2.toybox.scenes.bounce import ball_layer, box_layers, contact_event
from sora2.toybox.scenes.bounce_parameters import world_box
from sora2.toybox.scenes.props import Props, command_props, draw_props, props_truth, thing_words, with_article
from sora2.toybox.shapes import box
from sora2.toybox.sound import SILENT_SPEED, Impact, add_impacts
from sora2.toybox.vocabulary import HELD_OUT, MATERIALS

MOTIONS = ("roll", "hop")
WORDS["motion"] = {"roll": ("rolls", "rolling"), "hop": ("hops", "hopping")}
SPEEDS = {"slow": (0.55, 0.7), "normal": (0.75, 0.95), "fast": (1.0, 1.3)}
OUTSIDE_SPEEDS = (1.7, 2.4)
#: Deceleration of rolling, as a share of gravity.
ROLLING_FRICTION = 0.01
SCREEN_COLOR, SCREEN_SECOND = (142, 116, 96), (124, 98, 80)


@dataclass(frozen=True)
class OccludeParameters:
    controls: Controls
    props: Props
    motion: str
    direction: int  # 1: from left to right
    speed: float
    screen: tuple[float, float, float]  # left, right, top in world units; it stands on the floor

    def carriers(self) -> list[dict[str, str]]:
        return [self.controls.names() | self.props.words() | {"motion": self.motion}]


@register_scene("occlude")
class Occlude:
    """One ball in the box of `bounce`, with a wall in front of its middle."""

    name: str
    splits = (*EVERYDAY_SPLITS, "test_physics_ood")
    held_out = HELD_OUT

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> OccludeParameters:
        rng = stream(config.seed, config.split, "occlude", index, "parameters")
        width, height = config.world_size

        def draw() -> OccludeParameters:
            controls = draw_controls(config, rng)
            props = draw_props(config, rng, ("low", "normal", "high"))
            ood = config.split == "test_physics_ood"
            speed = float(rng.uniform(*(OUTSIDE_SPEEDS if ood else SPEEDS[controls.pacing])))
            # it has to come out again before the clip ends
            speed = max(speed, 0.85 * width / config.seconds)
            middle = width * float(rng.uniform(0.47, 0.53))
            half = float(rng.uniform(1.1, 1.3)) * props.radius + 0.01
            top = height - float(rng.uniform(0.5, 0.72))
            return OccludeParameters(
                controls,
                props,
                pick(rng, MOTIONS),
                pick(rng, (-1, 1)),
                speed,
                (middle - half, middle + half, top),
            )

        drawn = draw_for_split(config, draw, OccludeParameters.carriers, self.held_out)
        controls, rest = command(drawn.controls, overrides)
        fields, rest = command_props(drawn.props, rest)
        reject_unknown(
            rest,
            ("color", "material", "size", "background", "gravity", "motion", "direction", "speed", "screen"),
        )
        result = replace(drawn, controls=controls, props=Props(**fields), **rest)
        check_choice("motion", result.motion, MOTIONS)
        check_range("speed", result.speed, 0.01, 20.0)
        return result

    def simulate(self, config: ToyboxConfig, parameters: OccludeParameters) -> Trajectories:
        props, edges = parameters.props, world_box(config)
        radius = props.radius
        start = edges.left + radius + 0.02 if parameters.direction > 0 else edges.right - radius - 0.02
        y = edges.bottom - radius
        # hops low enough that the screen hides them
        rise = 0.0 if parameters.motion == "roll" else max(0.0, y - parameters.screen[2] - radius - 0.04)
        disc = Disc(
            start,
            y - rise,
            parameters.direction * parameters.speed,
            0.0,
            radius=radius,
            mass=MATERIALS[props.material].density * radius**3,
            restitution=MATERIALS[props.material].restitution,
        )
        return simulate(
            [disc],
            edges,
            props.gravity_value,
            config.samples / config.sample_rate,
            rolling_friction=ROLLING_FRICTION,
        )

    def picture(
        self, config: ToyboxConfig, parameters: OccludeParameters, world: Trajectories, seconds: np.ndarray
    ) -> Picture:
        props, floor = parameters.props, world_box(config).bottom
        x, y, _, _ = world.at(seconds)[0]
        left, right, top = parameters.screen
        bottom = floor + 0.02  # it stands in front of the ball
        screen = Layer(
            box((right - left) / 2, (bottom - top) / 2),
            SCREEN_COLOR,
            x=(left + right) / 2,
            y=(top + bottom) / 2,
            surface="bevel",
            second=SCREEN_SECOND,
            pattern=lambda u, v: 0.5 + 0.5 * np.sign(np.sin(v * 42)) + 0 * u,
            lift=0.05,
            name="screen",
        )
        ball = ball_layer(props.radius, props.color, props.material, x, y, floor, world.angles(seconds)[0])
        return Picture(room(props.background, floor), [*box_layers(config), ball, screen])

    def sound(
        self,
        config: ToyboxConfig,
        parameters: OccludeParameters,
        world: Trajectories,
        rng: np.random.Generator,
    ) -> np.ndarray:
        audio = np.zeros((config.channels, config.samples), np.float32)
        props = parameters.props
        events = self._events(config, world)
        add_impacts(
            audio,
            [Impact(e["onset_seconds"], e["level"], e["pan"], props.material, props.size) for e in events],
            config.sample_rate,
        )
        for roll in audible_rolls(world):
            add_roll(audio, roll, world, props.material, config, rng)
        return audio

    def _events(self, config: ToyboxConfig, world: Trajectories) -> list[dict[str, Any]]:
        return [contact_event(c, config) for c in world.contacts if c.speed >= SILENT_SPEED]

    def truth(
        self, config: ToyboxConfig, parameters: OccludeParameters, world: Trajectories
    ) -> dict[str, Any]:
        x, y, vx, vy = world.at(config.frame_seconds)[0]
        props, edges = parameters.props, world_box(config)
        shown = visible_share(x, y, props.radius, parameters.screen)
        ball = {
            "color": props.color,
            "material": props.material,
            "size": props.size,
            "radius": props.radius,
            "mass": MATERIALS[props.material].density * props.radius**3,
            "restitution": MATERIALS[props.material].restitution,
            "x": x.round(7).tolist(),
            "y": y.round(7).tolist(),
            "vx": vx.round(7).tolist(),
            "vy": vy.round(7).tolist(),
            "visibility": shown.round(4).tolist(),
            "visible": (shown > 0.5).tolist(),
        }
        return props_truth(props) | {
            "motion": parameters.motion,
            "screen": list(parameters.screen),
            "box": [edges.left, edges.top, edges.right, edges.bottom],
            "balls": [ball],
            "rolls": [asdict(roll) for roll in audible_rolls(world)],
            "events": self._events(config, world),
            "held_out": met_combinations(parameters.carriers(), HELD_OUT),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        ball = truth["balls"][0]
        return {name: truth[name] for name in ("background", "gravity", "motion")} | {
            f"ball0.{name}": ball[name] for name in ("color", "material", "size")
        }

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        found = self.attributes(truth)
        thing = thing_words(found, rng)
        gravity, background = (str(pick(rng, WORDS[n][found[n]])) for n in ("gravity", "background"))
        moves, moving = WORDS["motion"][truth["motion"]]
        back = str(pick(rng, ("and comes out again", "and reappears")))
        sound = "It hums as it rolls" if truth["motion"] == "roll" else "Its impacts are heard"
        return Phrases(
            label=(f"{thing} ball {moving} behind a screen", gravity, background),
            subject=f"a {thing} ball",
            action=f"{moves} behind a screen {back}, {gravity}, {with_article(background)}",
            sound=f"{sound}, also while the screen hides it.",
            details=("For a moment the ball cannot be seen.",),
        )


def visible_share(
    x: np.ndarray, y: np.ndarray, radius: float, screen: tuple[float, float, float]
) -> np.ndarray:
    """(T,) share of the ball's area that the screen leaves open, to 1 in 2000."""
    left, right, top = screen
    grid = (np.arange(50) + 0.5) / 25 - 1
    u, v = (a.ravel() * radius for a in np.meshgrid(grid, grid))
    inside = u * u + v * v <= radius * radius
    px, py = x[:, None] + u[inside], y[:, None] + v[inside]
    hidden = (px > left) & (px < right) & (py > top)
    return 1 - hidden.mean(axis=1)
