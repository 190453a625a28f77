"""What a `bounce` clip is made of: drawn at random per (seed, split, index), any part of it commanded."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sora2.toybox.config import ToyboxConfig, ToyboxError, check_choice, check_range
from sora2.toybox.controls import Controls, command, draw_controls
from sora2.toybox.physics import Box, Disc, JammedError, Peg, Ramp, Trajectories, simulate
from sora2.toybox.randomness import pick, stream
from sora2.toybox.scene import draw_for_split, reject_unknown
from sora2.toybox.vocabulary import (
    AMBIENCES,
    BACKGROUNDS,
    COLORS,
    GRAVITIES,
    HELD_OUT,
    MATERIALS,
    OBSTACLES,
    SIZES,
)

#: Height of the visible floor below the box, in world units (6 pixels of 64).
FLOOR_HEIGHT = 6 / 64
#: Sideways speed at the start (either direction) and largest vertical speed, world units per second.
PACED_SPEED_RANGE = {"slow": (0.1, 0.35), "normal": (0.2, 1.0), "fast": (0.85, 1.15)}
OUTSIDE_SPEED_RANGE, VERTICAL_SPEED = (1.2, 2.0), 0.5
#: Split `test_physics_ood`: gravities outside the named ones, under the nearest name.
OUTSIDE_GRAVITIES = {"low": 0.75, "high": 13.5}
MAX_BALLS = 3
#: Deceleration of rolling, as a share of gravity, where `ToyboxConfig.rolling` is on.
ROLLING_FRICTION = 0.03
#: Contacts per second of a heap.
MOST_CONTACTS = 100
PEG_RADIUS = 0.03
RAMP_LENGTHS, RAMP_HEIGHTS = (0.42, 0.6), (0.2, 0.34)


@dataclass(frozen=True)
class BallParameters:
    """One ball at the first frame. `size` names the sound and the word, `radius` the picture and the mass."""

    color: str
    material: str
    size: str
    radius: float
    restitution: float
    x: float
    y: float
    vx: float
    vy: float

    @property
    def mass(self) -> float:
        return MATERIALS[self.material].density * self.radius**3


@dataclass(frozen=True)
class BounceParameters:
    controls: Controls
    background: str
    gravity: str  # name
    gravity_value: float  # world units per second squared
    balls: tuple[BallParameters, ...]
    obstacles: str = "none"
    all_pegs: tuple[Peg, ...] = ()  # drawn always, there when `obstacles` says so
    any_ramp: Ramp | None = None
    rolling: bool = False

    @property
    def pegs(self) -> tuple[Peg, ...]:
        return self.all_pegs if self.obstacles == "pegs" else ()

    @property
    def ramp(self) -> Ramp | None:
        return self.any_ramp if self.obstacles == "ramp" else None

    def carriers(self) -> list[dict[str, str]]:
        """The clip's attributes with those of each ball: what can have a held-out combination."""
        clip = self.controls.names() | {
            "background": self.background,
            "gravity": self.gravity,
            "obstacles": self.obstacles,
        }
        return [
            clip | {name: getattr(ball, name) for name in ("color", "material", "size")}
            for ball in self.balls
        ]


def world_box(config: ToyboxConfig) -> Box:
    """The box: the picture's left, top and right edges, and the floor line."""
    width, height = config.world_size
    return Box(0.0, 0.0, width, height - FLOOR_HEIGHT)


def sample_parameters(config: ToyboxConfig, index: int, overrides: Mapping[str, Any]) -> BounceParameters:
    """Draw clip `index` of the split, then apply `overrides`.

    Overrides: the controls, background, gravity (name or value), obstacles, count, `balls` (a list of dicts with
    any fields of `BallParameters`; its length sets the count), and any field of `BallParameters` for ball 0. They
    leave all else as it was drawn, and may command a held-out combination.
    """
    rng = stream(config.seed, config.split, "bounce", index, "parameters")
    more = stream(config.seed, config.split, "bounce", index, "controls")
    while True:
        count, drawn = draw_for_split(
            config,
            lambda: _draw(rng, more, config),
            lambda drawn: replace(drawn[1], balls=drawn[1].balls[: drawn[0]]).carriers(),
            HELD_OUT,
        )
        if _is_lively(config, replace(drawn, balls=drawn.balls[:count])):
            return _apply(config, count, drawn, overrides)


def run(config: ToyboxConfig, parameters: BounceParameters) -> Trajectories:
    """The motion of the balls over the clip."""
    return _run(world_box(config), config.samples / config.sample_rate, parameters)


@functools.lru_cache(maxsize=2)  # a draw is tried before it is taken
def _run(box: Box, seconds: float, parameters: BounceParameters) -> Trajectories:
    discs = [
        Disc(b.x, b.y, b.vx, b.vy, radius=b.radius, mass=b.mass, restitution=b.restitution)
        for b in parameters.balls
    ]
    return simulate(
        discs,
        box,
        parameters.gravity_value,
        seconds,
        pegs=parameters.pegs,
        ramp=parameters.ramp,
        rolling_friction=ROLLING_FRICTION if parameters.rolling else None,
    )


def _is_lively(config: ToyboxConfig, parameters: BounceParameters) -> bool:
    """Whether the balls do not end up in a heap, which has no exact answer: endless ever smaller contacts.

    About one draw in 200 does where balls roll on a ramp or against friction, and one in some thousands elsewhere.
    """
    try:
        contacts = len(run(config, parameters).contacts)
    except JammedError:
        return False
    calm = not (parameters.rolling or parameters.pegs or parameters.ramp)
    return calm or contacts <= MOST_CONTACTS * max(1.0, config.seconds)


def _draw(
    rng: np.random.Generator, more: np.random.Generator, config: ToyboxConfig
) -> tuple[int, BounceParameters]:
    """The count, and parameters always with `MAX_BALLS` balls, so that a commanded count moves nothing."""
    outside = config.split == "test_physics_ood"
    count = int(rng.integers(1, MAX_BALLS + 1))
    gravities = OUTSIDE_GRAVITIES if outside else GRAVITIES
    gravity = pick(rng, tuple(gravities))
    style, background, ambience = pick(rng, config.styles), pick(rng, BACKGROUNDS), pick(rng, AMBIENCES)
    controls = replace(draw_controls(config, more), style=style, ambience=ambience)
    obstacles = pick(more, config.obstacles)
    pegs, ramp = _pegs(more, config), _ramp(more)
    avoid = (pegs if "pegs" in config.obstacles else (), ramp if "ramp" in config.obstacles else None)
    colors = rng.permutation(len(COLORS))[:MAX_BALLS]
    low, high = OUTSIDE_SPEED_RANGE if outside else PACED_SPEED_RANGE[controls.pacing]
    balls = []
    for color, (x, y) in zip(colors, _places(rng, config, *avoid), strict=True):
        material, size = pick(rng, tuple(MATERIALS)), pick(rng, tuple(SIZES))
        vx = float(rng.uniform(low, high)) * (1 if rng.random() < 0.5 else -1)
        vy = float(rng.uniform(-VERTICAL_SPEED, VERTICAL_SPEED))
        restitution = MATERIALS[material].restitution
        balls.append(
            BallParameters(tuple(COLORS)[color], material, size, SIZES[size], restitution, x, y, vx, vy)
        )
    return count, BounceParameters(
        controls,
        background,
        gravity,
        gravities[gravity],
        tuple(balls),
        obstacles,
        pegs,
        ramp,
        config.rolling,
    )


def _pegs(rng: np.random.Generator, config: ToyboxConfig) -> tuple[Peg, ...]:
    """A row of pegs, with room for the biggest ball between them, beside them and below."""
    width, _ = config.world_size
    margin, spacing = 0.31, 0.38
    count = max(2, int((width - 2 * margin) / spacing + 1e-9) + 1)
    xs = np.linspace(margin, width - margin, count)
    jitter, ys = rng.uniform(-0.01, 0.01, count), rng.uniform(0.42, 0.56, count)
    return tuple(Peg(float(x), float(y), PEG_RADIUS) for x, y in zip(xs + jitter, ys, strict=True))


def _ramp(rng: np.random.Generator) -> Ramp:
    side = pick(rng, ("left", "right"))
    return Ramp(side, float(rng.uniform(*RAMP_LENGTHS)), float(rng.uniform(*RAMP_HEIGHTS)))


def _places(
    rng: np.random.Generator, config: ToyboxConfig, pegs: tuple[Peg, ...], ramp: Ramp | None
) -> list[tuple[float, float]]:
    """Start places with room for big balls, so that a commanded size never overlaps."""
    box, radius = world_box(config), max(SIZES.values()) * 1.02
    low = np.array([box.left + radius, box.top + radius])
    high = np.array([box.right - radius, box.bottom - radius - 0.15])
    places: list[tuple[float, float]] = []
    while len(places) < MAX_BALLS:
        x, y = (float(value) for value in rng.uniform(low, high))
        clear = all(math.hypot(x - peg.x, y - peg.y) > radius + peg.radius for peg in pegs)
        clear = clear and (ramp is None or ramp.gap(x, y, box) > radius)
        if clear and all(math.hypot(x - a, y - b) > 2 * radius for a, b in places):
            places.append((x, y))
        elif rng.random() < 0.05:  # the others may leave no room: begin again
            places.clear()
    return places


_BALL_FIELDS = tuple(BallParameters.__dataclass_fields__)


def _apply(
    config: ToyboxConfig, count: int, drawn: BounceParameters, overrides: Mapping[str, Any]
) -> BounceParameters:
    controls, changes = command(drawn.controls, overrides)
    ball_changes = [dict(ball) for ball in changes.pop("balls", [])]
    if ball_changes:
        count = len(ball_changes)
    count = changes.pop("count", count)
    check_range("count", count, 1, MAX_BALLS)
    if len(ball_changes) > count:
        raise ToyboxError(f"balls names {len(ball_changes)} balls but count={count}")
    ball_changes += [{} for _ in range(count - len(ball_changes))]
    for name in [name for name in changes if name in _BALL_FIELDS]:
        ball_changes[0][name] = changes.pop(name)
    fields: dict[str, Any] = {"controls": controls}
    for name, choices in (("background", BACKGROUNDS), ("obstacles", OBSTACLES)):
        if name in changes:
            fields[name] = changes.pop(name)
            check_choice(name, fields[name], choices)
    if "gravity" in changes:
        fields["gravity"], fields["gravity_value"] = _gravity(changes.pop("gravity"))
    reject_unknown(changes, ("background", "gravity", "obstacles", "count", "balls", *_BALL_FIELDS))
    balls = tuple(_override_ball(i, drawn.balls[i], change) for i, change in enumerate(ball_changes))
    return replace(drawn, balls=balls, **fields)


def _gravity(gravity: str | float) -> tuple[str, float]:
    """(nearest name, value) of a commanded gravity."""
    if isinstance(gravity, str):
        check_choice("gravity", gravity, tuple(GRAVITIES))
        return gravity, GRAVITIES[gravity]
    check_range("gravity", gravity, 0.0, 100.0)
    return min(GRAVITIES, key=lambda name: abs(math.log(GRAVITIES[name] / max(gravity, 1e-3)))), float(
        gravity
    )


def _override_ball(index: int, ball: BallParameters, change: dict[str, Any]) -> BallParameters:
    for name in change:
        check_choice(f"attribute of ball {index}", name, _BALL_FIELDS)
    for name, choices in (("color", tuple(COLORS)), ("material", tuple(MATERIALS)), ("size", tuple(SIZES))):
        if name in change:
            check_choice(f"ball {index} {name}", change[name], choices)
    if "material" in change:
        change.setdefault("restitution", MATERIALS[change["material"]].restitution)
    if "size" in change:
        change.setdefault("radius", SIZES[change["size"]])
    result = replace(ball, **change)
    check_range(f"ball {index} restitution", result.restitution, 0.0, 1.0)
    check_range(f"ball {index} radius", result.radius, 0.02, 10.0)
    return result
