"""A page to see and hear the world: one playable clip and contact sheet of each scene, style, camera, split."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sora2.atomic import save_text
from sora2.media import contact_sheet, write_clip
from sora2.toybox.config import SPLITS, ToyboxConfig, whole_world
from sora2.toybox.scene import get_scene
from sora2.toybox.toybox import Toybox
from sora2.toybox.vocabulary import CAMERAS, LIGHTS, PACINGS, STYLES

#: What a scene is shown with when the page is about something else.
_PLAIN = {"camera": "static", "light": "day"}


@dataclasses.dataclass(frozen=True)
class Example:
    """One clip of the page."""

    group: str
    title: str
    config: ToyboxConfig
    index: int
    commands: dict[str, Any]

    @property
    def stem(self) -> str:
        return f"{self.group}-{self.title}".replace(" ", "-").lower()


def examples(world: ToyboxConfig) -> Iterator[Example]:
    """What the page shows, over the scenes of `world`."""
    scenes = world.scenes
    for k, scene in enumerate(scenes):
        one = dataclasses.replace(world, scenes=(scene,))
        yield Example("scenes", scene, one, k, _PLAIN | {"style": "cartoon"})
    for style in STYLES:
        for scene in scenes:
            one = dataclasses.replace(world, scenes=(scene,))
            yield Example("styles", f"{style} {scene}", one, 7, _PLAIN | {"style": style})
    first = dataclasses.replace(world, scenes=(scenes[0],))
    for name, values in (("camera", CAMERAS), ("light", LIGHTS), ("pacing", PACINGS)):
        for value in values:
            yield Example(f"{name}s", value, first, 3, {"style": "cinematic"} | {name: value})
    for split in SPLITS:
        for scene in scenes:
            if split in get_scene(scene).splits:
                one = dataclasses.replace(world, scenes=(scene,), split=split)
                yield Example("splits", f"{split} {scene}", one, 0, {})


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1240px; color: #22262b; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(390px, 1fr)); gap: 1.2rem; }
figure { margin: 0; } video { width: 128px; image-rendering: pixelated; vertical-align: top; }
figure a img { width: 250px; vertical-align: top; } figcaption { font-size: 13px; color: #555; }
b { display: block; }
"""


def write_catalogue(out: Path, shape: ToyboxConfig | None = None) -> Path:
    """Write `out`/index.html with its clips (mp4, AAC) and sheets (PNG); returns the page.

    The world is the whole one, in the clip shape of `shape` and with its scenes if it names more than the default.
    """
    asked = ToyboxConfig() if shape is None else shape
    names = ("seed", "frames", "height", "width", "fps", "sample_rate", "channels")
    world = whole_world(**{name: getattr(asked, name) for name in names}, caption="paragraph")
    if asked.scenes != ToyboxConfig().scenes:
        world = dataclasses.replace(world, scenes=asked.scenes)
    out.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[str]] = {}
    for example in tqdm(list(examples(world)), unit="clip", desc="catalogue", dynamic_ncols=True):
        clip = Toybox(example.config).clip(example.index, **example.commands)
        write_clip(clip, out / f"{example.stem}.mp4", crf=12)
        contact_sheet(clip, out / f"{example.stem}.png", title=clip.meta["truth"]["captions"]["sentence"])
        groups.setdefault(example.group, []).append(
            f"<figure><b>{html.escape(example.title)}</b>"
            f'<video src="{example.stem}.mp4" controls loop preload="metadata"></video> '
            f'<a href="{example.stem}.png"><img src="{example.stem}.png" loading="lazy" alt=""></a>'
            f"<figcaption>{html.escape(clip.caption)}</figcaption></figure>"
        )
    parts = [f"<h2>{group}</h2><div class=grid>{''.join(items)}</div>" for group, items in groups.items()]
    page = (
        f"<!doctype html><meta charset=utf-8><title>Toybox</title><style>{_STYLE}</style>"
        f"<h1>Toybox</h1><p>{world.frames} frames of {world.height} x {world.width} at {world.fps:g} per second, "
        f"{world.sample_rate} Hz. Click a sheet to enlarge it.</p>{''.join(parts)}"
    )
    save_text(page, out / "index.html")
    return out / "index.html"
