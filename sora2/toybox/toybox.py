"""From (seed, split, index) to a clip with pictures, sound, caption and truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from sora2.toybox import scenes as scenes  # registers all scenes
from sora2.toybox.config import ToyboxConfig, ToyboxError
from sora2.toybox.randomness import stream
from sora2.toybox.scene import get_scene
from sora2.types import Clip


class Toybox:
    """An endless, indexable, exactly reproducible set of clips.

    `clip(i)` depends on (seed, split, scenes, index) and on the shape in `config`, and on nothing else: any
    order, any process, any batch gives the same bytes.

    `clip.meta["truth"]` holds plain JSON values. Common to all scenes: scene, seed, split, index, key,
    caption, fps, sample_rate, frames, height, width, samples, channels, seconds. Scene `bounce` adds:

    - style, background, ambience, gravity (names), gravity_value (world units / s^2, downwards);
    - box [left, top, right, bottom] in world units (1 = shorter side of the picture, x right, y down, origin
      top left; pixel index = world * min(height, width) - 0.5, see `world_to_pixel`);
    - balls: color, material, size, radius, mass, restitution and, per frame (instant k / fps), x, y, vx, vy,
      visible;
    - events, in order of time: onset_seconds, kind (floor, ceiling, left, right, ball), ball, other (index or
      None), speed (closing, world units / s), level (peak amplitude before panning), pan (-1 left to 1
      right), x, y;
    - held_out: the held-out combinations that the clip has (none in train, validation and test).
    """

    def __init__(self, config: ToyboxConfig) -> None:
        self.config = config
        for name in config.scenes:
            get_scene(name)

    def clip(self, index: int, **attributes: Any) -> Clip:
        """Clip `index`; any of its `attributes` can be commanded and all else stays as it was drawn.

        Raises `ToyboxError` for an index below 0 and an unknown or impossible attribute.
        """
        config = self.config
        if index < 0:
            raise ToyboxError(f"index={index} must be at least 0")
        name = config.scenes[index % len(config.scenes)]
        scene = get_scene(name)
        parameters = scene.sample(config, index, attributes)
        world = scene.simulate(config, parameters)
        video = scene.render_video(config, parameters, world)
        noise = stream(config.seed, config.split, name, index, "ambience")
        audio = scene.render_audio(config, parameters, world, noise)
        key = f"{name}-{config.split}-{index:09d}"
        truth = {
            "scene": name,
            "seed": config.seed,
            "split": config.split,
            "index": index,
            "key": key,
            "fps": config.fps,
            "sample_rate": config.sample_rate,
            "frames": config.frames,
            "height": config.height,
            "width": config.width,
            "samples": config.samples,
            "channels": config.channels,
            "seconds": config.seconds,
            **scene.truth(config, parameters, world),
        }
        words = stream(config.seed, config.split, name, index, "caption")
        truth["caption"] = scene.caption(scene.attributes(truth), words)
        return Clip(
            video=torch.from_numpy(video),
            audio=torch.from_numpy(audio),
            fps=config.fps,
            sample_rate=config.sample_rate,
            caption=truth["caption"],
            key=key,
            meta={"truth": truth, "licence": "CC0-1.0", "source": "toybox"},
        )

    def clips(self, indices: Iterable[int]) -> list[Clip]:
        """Several clips, each equal to `clip(index)`."""
        return [self.clip(index) for index in indices]


def clip_from_spec(config: ToyboxConfig | None = None, *, index: int = 0, **attributes: Any) -> Clip:
    """One clip with commanded attributes: `clip_from_spec(gravity="low", color="red", material="metal",
    count=1)`.

    Two calls that differ in one attribute differ in that attribute alone, which makes interventions exact.
    For the attributes of `bounce` see `sora2.toybox.scenes.bounce_parameters.sample_parameters`.
    """
    return Toybox(ToyboxConfig() if config is None else config).clip(index, **attributes)


def attributes(truth: dict[str, Any]) -> dict[str, str]:
    """The named attributes of a clip: style, background, ambience, gravity, ball0.color, ball0.size ..."""
    return get_scene(truth["scene"]).attributes(truth)
