"""Where the clips of an evaluation come from: the toybox, a folder of mp4s, a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sora2.atomic import save_json
from sora2.errors import UserError
from sora2.generate import Pipeline, Request, SamplingConfig
from sora2.media import MediaError, probe, read_clip, write_clip
from sora2.metrics.controls import Item
from sora2.metrics.values import MetricError
from sora2.types import Clip

#: Parts of a toybox truth that a caption commands. The rest (paths, events) is one of many possible outcomes.
COMMANDED = ("scene", "style", "background", "ambience", "gravity", "gravity_value")
COMMANDED_OF_BALL = ("color", "material", "size", "restitution")


def commanded(truth: dict[str, Any]) -> dict[str, Any]:
    """What the caption of a toybox clip asks for, without what happened to come of it."""
    kept = {name: truth[name] for name in COMMANDED if name in truth}
    return kept | {"balls": [{n: ball[n] for n in COMMANDED_OF_BALL} for ball in truth["balls"]]}


def find_films(folder: Path) -> list[Path]:
    """All mp4s in `folder` and below, sorted.

    Raises:
        MetricError: the folder does not exist or holds none.
    """
    if not folder.is_dir():
        raise MetricError(f"--folder {folder}: there is no such folder")
    films = sorted(p for p in folder.rglob("*.mp4") if not p.name.startswith("."))
    if not films:
        raise MetricError(
            f"--folder {folder} holds no .mp4; give a folder of clips, each with a JSON beside it"
        )
    return films


def folder_items(films: list[Path], *, seconds: float, shorter_side: int) -> Iterator[Item]:
    """Read clips one by one. A file that cannot be read is an item without a clip, never an exception.

    KEY.json beside KEY.mp4 may hold `truth` (as the toybox writes it), `caption` or `request.prompt`, and `seed`.
    Pictures larger than `shorter_side` are scaled down to it; at most `seconds` are read.
    """
    for film in films:
        try:
            side = read_sidecar(film.with_suffix(".json"))
            clip = _read_film(film, seconds, shorter_side)
        except UserError as error:
            tqdm.write(f"warning: {film.name} counts as a failure: {error}")
            yield Item(film.stem, film.stem, None, failure=f"cannot be read: {error}", path=str(film))
            continue
        prompt = side["prompt"] if side["prompt"] else film.stem
        yield Item(film.stem, prompt, clip, side["truth"], seed=side["seed"], path=str(film))


def _read_film(film: Path, seconds: float, shorter_side: int) -> Clip:
    info = probe(film)
    if not info.has_video:
        return read_clip(film, seconds=min(seconds, info.seconds), video=False, key=film.stem)
    size = None
    if min(info.height, info.width) > shorter_side:
        scale = shorter_side / min(info.height, info.width)
        size = (round(info.height * scale), round(info.width * scale))
    length = seconds if info.seconds > seconds else None
    return read_clip(film, seconds=length, size=size, key=film.stem)


def read_sidecar(path: Path) -> dict[str, Any]:
    """{"truth", "prompt", "seed"} of a clip, each None where the JSON, or the file, does not have it.

    Raises:
        MetricError: the file is not a JSON object.
    """
    if not path.is_file():
        return {"truth": None, "prompt": None, "seed": None}
    try:
        entry = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MetricError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise MetricError(f"{path.name} must be a JSON object, not {type(entry).__name__}")
    request = entry.get("request", {})
    return {
        "truth": entry.get("truth"),
        "prompt": entry.get("caption", entry.get("prompt", request.get("prompt"))),
        "seed": entry.get("seed", request.get("seed")),
    }


def generated_items(
    pipeline: Pipeline,
    real: list[Clip],
    folder: Path,
    *,
    seeds: int,
    first_seed: int,
    sampling: SamplingConfig | None,
    progress: bool,
) -> list[Item]:
    """Generate every caption of `real` with `seeds` seeds; clips and their JSON are kept in `folder`."""
    wanted = [(clip, first_seed + s) for clip in real for s in range(seeds)]
    items = []
    with tqdm(total=len(wanted), unit="clip", desc="generate", disable=not progress) as bar:
        for start in range(0, len(wanted), pipeline.batch_size):
            group = wanted[start : start + pipeline.batch_size]
            requests = [Request(prompt=clip.caption, seed=seed, sampling=sampling) for clip, seed in group]
            for (source, seed), made in zip(group, pipeline.generate(requests), strict=True):
                key = f"{source.key}-seed{seed}"
                path = folder / f"{key}.mp4"
                truth = commanded(source.meta["truth"])
                write_clip(made, path, lossless_audio=True)
                save_json(
                    {"caption": source.caption, "seed": seed, "truth": truth}, path.with_suffix(".json")
                )
                clip = made.replace(caption=source.caption, key=key)
                items.append(Item(key, source.caption, clip, truth, seed=seed, path=str(path)))
                bar.update()
    return items


def keep_films(items: list[Item], folder: Path, count: int) -> list[Item]:
    """Write the first `count` clips as mp4 so that a page can play them; returns those items with their path."""
    kept = []
    for item in items[:count]:
        path = folder / f"{item.key}.mp4"
        try:
            write_clip(item.clip, path)
        except MediaError as error:
            raise MetricError(f"could not keep {item.key} for the page: {error}") from error
        kept.append(
            Item(item.key, item.prompt, item.clip, item.truth, item.reference, item.seed, path=str(path))
        )
    return kept
