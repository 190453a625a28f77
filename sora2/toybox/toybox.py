"""From (seed, split, index) to a clip with pictures, sound, captions and truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from sora2.toybox import scenes as scenes  # registers all scenes
from sora2.toybox.camera import CameraMove, draw_move
from sora2.toybox.captions import compose, is_unusual
from sora2.toybox.config import ToyboxConfig, ToyboxError, caption_kinds
from sora2.toybox.controls import CHOICES, Controls
from sora2.toybox.foreground import bed
from sora2.toybox.prompts import prompt as everyday_prompt
from sora2.toybox.randomness import pick, stream
from sora2.toybox.render import film
from sora2.toybox.scene import Composite, Prompted, Scene, get_scene
from sora2.toybox.sound import limit
from sora2.toybox.styles import VARIANTS, Look
from sora2.types import Clip


class Toybox:
    """An endless, indexable, exactly reproducible set of clips.

    `clip(i)` depends on (seed, split, scenes, index), on what the config allows, and on the shape in it, and on
    nothing else: any order, any process, any batch gives the same bytes. Clip i shows scene i mod their number,
    among those of the config's scenes that the split has.

    `clip.meta["truth"]` holds plain JSON values. Common to all scenes: scene, seed, split, index, key, fps,
    sample_rate, frames, height, width, samples, channels, seconds; the controls style, pacing, light, ambience,
    ambience_level; `camera` (kind, and per frame the world point x, y at the picture's middle and the zoom: a world
    point is seen at pixel index (x - camera.x) * zoom * min(height, width) + (width - 1) / 2, likewise y); events
    in order of onset_seconds; captions (label, sentence, paragraph), prompt, and caption, the one of these that
    `Clip.caption` is. Scene `bounce` adds:

    - background, gravity, obstacles (names), gravity_value (world units / s^2, downwards);
    - box [left, top, right, bottom] in world units (1 = shorter side of the picture, x right, y down, origin
      top left; under a camera that stands still pixel index = world * min(height, width) - 0.5);
    - balls: color, material, size, radius, mass, restitution and, per frame (instant k / fps), x, y, vx, vy,
      visible;
    - events: onset_seconds, kind (floor, ceiling, left, right, ball, peg, ramp), ball, other (index or None),
      speed (closing, world units / s), level (peak amplitude before panning), pan (-1 left to 1 right), x, y;
    - held_out: the held-out combinations that the clip has (none in train, validation and test).
    """

    def __init__(self, config: ToyboxConfig) -> None:
        self.config = config
        self.scenes = tuple(name for name in config.scenes if config.split in get_scene(name).splits)
        if not self.scenes:
            raise ToyboxError(
                f"split={config.split!r} has no clips of scenes={config.scenes}: "
                + "; ".join(f"{name} has {', '.join(get_scene(name).splits)}" for name in config.scenes)
            )

    def clip(self, index: int, **attributes: Any) -> Clip:
        """Clip `index`; any of its `attributes` can be commanded and all else stays as it was drawn.

        Raises `ToyboxError` for an index below 0 and an unknown or impossible attribute.
        """
        config = self.config
        if index < 0:
            raise ToyboxError(f"index={index} must be at least 0")
        name = self.scenes[index % len(self.scenes)]
        scene = get_scene(name)
        parameters = scene.sample(config, index, attributes)
        controls: Controls = parameters.controls
        world = scene.simulate(config, parameters)
        look, move = draw_look(config, name, index, controls)
        if isinstance(scene, Composite):
            video, camera = scene.film(config, parameters, world, look, move)
        else:
            video = film(
                config,
                look,
                move,
                lambda seconds: scene.picture(config, parameters, world, seconds),
                config.frame_seconds,
            )
            camera = move.at(config, config.frame_seconds)
        key = f"{name}-{config.split}-{index:09d}"
        about = {
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
            **controls.names(),
        }
        audio = mix(config, scene, parameters, world, about)
        truth = {
            **about,
            **scene.truth(config, parameters, world),
            "camera": camera.truth(controls.camera, config.frames),
        }
        truth["captions"] = captions(config, scene, index, truth)
        truth["prompt"] = prompt(config, scene, index, truth)
        kind = _caption_kind(config, name, index)
        truth["caption"] = truth["prompt"] if kind == "prompt" else truth["captions"][kind]
        return Clip(
            video=torch.from_numpy(video),
            audio=torch.from_numpy(audio),
            fps=config.fps,
            sample_rate=config.sample_rate,
            caption=truth["caption"],
            key=key,
            meta={"truth": truth, "licence": "CC0-1.0", "source": "toybox", **person(truth)},
        )

    def clips(self, indices: Iterable[int]) -> list[Clip]:
        """Several clips, each equal to `clip(index)`."""
        return [self.clip(index) for index in indices]


def draw_look(config: ToyboxConfig, name: str, index: int, controls: Controls) -> tuple[Look, CameraMove]:
    """How the clip is rendered, and how its camera moves."""
    rng = stream(config.seed, config.split, name, index, "look")
    variant = int(rng.integers(VARIANTS))
    return Look(controls.style, controls.light, variant), draw_move(controls.camera, controls.pacing, rng)


def mix(config: ToyboxConfig, scene: Scene, parameters: Any, world: Any, about: dict[str, Any]) -> np.ndarray:
    """(channels, S) float32: ambience and the scene's sound, limited. `about`: the common part of the truth."""
    noise = stream(config.seed, config.split, scene.name, about["index"], "sound")
    audio = bed(about)
    audio += scene.sound(config, parameters, world, noise)
    return limit(audio)


def captions(config: ToyboxConfig, scene: Scene, index: int, truth: dict[str, Any]) -> dict[str, str]:
    """The captions at three lengths of a clip with this truth."""
    rng = stream(config.seed, config.split, scene.name, index, "caption")
    return compose(scene.phrases(truth, rng), controls_of(truth), rng)


def prompt(config: ToyboxConfig, scene: Scene, index: int, truth: dict[str, Any]) -> str:
    """What a person might type for a clip with this truth: some of it, in everyday words."""
    rng = stream(config.seed, config.split, scene.name, index, "prompt")
    if isinstance(scene, Prompted):
        return scene.prompt(truth, rng)
    return everyday_prompt(scene.phrases(truth, rng), controls_of(truth), rng)


def person(truth: dict[str, Any]) -> dict[str, str]:
    """Who is in the clip, where others show the same."""
    name = truth.get("identity", {}).get("person")
    return {} if name is None else {"person": name}


def _caption_kind(config: ToyboxConfig, name: str, index: int) -> str:
    kinds = caption_kinds(config.caption)
    return pick(stream(config.seed, config.split, name, index, "caption kind"), kinds)


def clip_from_spec(config: ToyboxConfig | None = None, *, index: int = 0, **attributes: Any) -> Clip:
    """One clip with commanded attributes: `clip_from_spec(gravity="low", color="red", material="metal",
    count=1)`.

    Two calls that differ in one attribute differ in that attribute alone, which makes interventions exact. Every
    scene takes the controls (style, camera, pacing, light, ambience, ambience_level); for those of `bounce` see
    `sora2.toybox.scenes.bounce_parameters.sample_parameters`.
    """
    return Toybox(ToyboxConfig() if config is None else config).clip(index, **attributes)


def controls_of(truth: dict[str, Any]) -> Controls:
    """The controls of a clip."""
    named = {name: truth[name] for name in CHOICES if name != "camera"}
    return Controls(**named, camera=truth["camera"]["kind"])


def attributes(truth: dict[str, Any]) -> dict[str, str]:
    """The named attributes that every caption says: style, background, ambience, gravity, ball0.color ...

    A prompt leaves some of them out. Controls that are as usual (camera static, pacing normal, light day, level
    normal) are not among them, nor the silence of a scene that makes its own background (`own_ambience` in the truth).
    """
    controls = controls_of(truth)
    own_ambience = "own_ambience" in truth
    said = {"style": controls.style}
    if not own_ambience or controls.ambience != "silence":
        said["ambience"] = controls.ambience
    said |= {
        name: getattr(controls, name)
        for name in ("camera", "pacing", "light", "ambience_level")
        if is_unusual(name, controls, own_ambience)
    }
    return said | get_scene(truth["scene"]).attributes(truth)
