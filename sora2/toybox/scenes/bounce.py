"""Scene `bounce`: one to three balls under gravity in a box; every impact is seen and heard."""

from __future__ import annotations

from typing import Any

import numpy as np

from sora2.toybox.captions import caption
from sora2.toybox.config import ToyboxConfig, world_to_pixel
from sora2.toybox.draw import background, draw_balls, draw_contact_shadow
from sora2.toybox.physics import Contact, Disc, Trajectories, simulate
from sora2.toybox.scene import register_scene
from sora2.toybox.scenes.bounce_parameters import (
    BounceParameters,
    held_out_combinations,
    sample_parameters,
    world_box,
)
from sora2.toybox.sound import SILENT_SPEED, Impact, add_impacts, ambience, impact_level, limit, pan_position
from sora2.toybox.vocabulary import COLORS

#: When two balls meet, each rings at this share of the event's level.
PAIR_SHARE = 0.7


@register_scene("bounce")
class Bounce:
    """Balls on parabolas between exact collisions; truth, pictures and sound share the same flights."""

    name: str

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> BounceParameters:
        return sample_parameters(config, index, overrides)

    def simulate(self, config: ToyboxConfig, parameters: BounceParameters) -> Trajectories:
        discs = [
            Disc(b.x, b.y, b.vx, b.vy, radius=b.radius, mass=b.mass, restitution=b.restitution)
            for b in parameters.balls
        ]
        return simulate(
            discs, world_box(config), parameters.gravity_value, config.samples / config.sample_rate
        )

    def render_video(
        self, config: ToyboxConfig, parameters: BounceParameters, world: Trajectories
    ) -> np.ndarray:
        scale = config.pixels_per_unit
        floor = world_box(config).bottom * scale
        still = background(parameters.background, parameters.style, config.height, config.width, floor)
        frames = np.empty((config.frames, *still.shape), np.uint8)
        frames[:] = still
        states = world.at(config.frame_seconds)
        x, y = world_to_pixel(states[:, 0], scale), world_to_pixel(states[:, 1], scale)  # (balls, T)
        if parameters.style == "cinematic":
            for ball, bx, by in zip(parameters.balls, x, y, strict=True):
                radius = ball.radius * scale
                draw_contact_shadow(frames, bx, np.maximum(floor - 0.5 - by - radius, 0), radius, floor)
        for ball, bx, by in zip(parameters.balls, x, y, strict=True):
            draw_balls(
                frames, bx, by, ball.radius * scale, COLORS[ball.color], ball.material, parameters.style
            )
        return frames

    def render_audio(
        self,
        config: ToyboxConfig,
        parameters: BounceParameters,
        world: Trajectories,
        rng: np.random.Generator,
    ) -> np.ndarray:
        audio = ambience(parameters.ambience, rng, config.channels, config.samples, config.sample_rate)
        impacts = []
        for contact in _audible(world):
            event = _event(contact, config)
            who = [contact.ball] if contact.other is None else [contact.ball, contact.other]
            level = event["level"] * (1.0 if len(who) == 1 else PAIR_SHARE)
            for ball in (parameters.balls[k] for k in who):
                impacts.append(Impact(contact.seconds, level, event["pan"], ball.material, ball.size))
        add_impacts(audio, impacts, config.sample_rate)
        return limit(audio)

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
            "style": parameters.style,
            "background": parameters.background,
            "ambience": parameters.ambience,
            "gravity": parameters.gravity,
            "gravity_value": parameters.gravity_value,
            "box": [box.left, box.top, box.right, box.bottom],
            "balls": balls,
            "events": [_event(contact, config) for contact in _audible(world)],
            "held_out": held_out_combinations(parameters),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        found = {name: truth[name] for name in ("style", "background", "ambience", "gravity")}
        for i, ball in enumerate(truth["balls"]):
            found |= {f"ball{i}.{name}": ball[name] for name in ("color", "material", "size")}
        return found

    def caption(self, attributes: dict[str, str], rng: np.random.Generator) -> str:
        return caption(attributes, rng)


def _audible(world: Trajectories) -> list[Contact]:
    return [contact for contact in world.contacts if contact.speed >= SILENT_SPEED]


def _event(contact: Contact, config: ToyboxConfig) -> dict[str, Any]:
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
