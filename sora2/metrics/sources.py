"""Where the clips of an evaluation come from: the toybox, a folder of mp4s, a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sora2.atomic import save_json
from sora2.errors import UserError
from sora2.generate import Pipeline, Request, SamplingConfig
from sora2.generate.cascade import Cascade
from sora2.media import MediaError, probe, read_clip, write_clip
from sora2.metrics.controls import Item
from sora2.metrics.measuring import clip_digest
from sora2.metrics.task_requests import CONDITIONS, FIXES_PATHS
from sora2.metrics.transcripts import spoken_words
from sora2.metrics.values import MetricError
from sora2.toybox import GRAVITIES, MATERIALS, Toybox, ToyboxConfig
from sora2.types import Clip

#: Parts of a toybox truth that a caption commands. The rest (paths, events) is one of many possible outcomes.
COMMANDED = (
    "scene", "style", "pacing", "light", "ambience", "ambience_level", "own_ambience", "background", "gravity",
    "gravity_value", "obstacles", "motion", "instrument", "melody", "rhythm", "dynamics", "expression", "gaze", "words",
    "identity", "rain", "wind", "thunder", "drawn_vehicles", "plot",
)  # fmt: skip
#: The same of the things that a truth lists.
COMMANDED_OF_EACH = {
    "balls": ("color", "material", "size", "restitution"),
    "vehicles": ("kind", "color", "direction"),
    "shots": ("scene", "strand", "framing"),
    "strands": ("scene",),
}

#: Quality of the generated clips that are kept: visually lossless, so that what is kept measures as what was made.
GENERATED_CRF = 12


def commanded(truth: dict[str, Any]) -> dict[str, Any]:
    """What the caption of a toybox clip asks for, without what happened to come of it."""
    kept = {name: truth[name] for name in COMMANDED if name in truth}
    if "camera" in truth:
        kept["camera"] = {"kind": truth["camera"]["kind"]}
    for name, fields in COMMANDED_OF_EACH.items():
        if name in truth:
            kept[name] = [{f: thing[f] for f in fields if f in thing} for thing in truth[name]]
    words, _ = spoken_words(truth)
    return kept | ({"words": words} if words else {})


def expected(truth: dict[str, Any], task: str) -> dict[str, Any]:
    """What is asked of a clip that a task makes from a toybox clip: what the caption commands, and, where the condition
    fixes them, the paths of the balls."""
    asked = commanded(truth)
    if task in FIXES_PATHS and "balls" in truth:
        asked |= {name: truth[name] for name in ("fps", "camera") if name in truth}
        balls = zip(asked["balls"], truth["balls"], strict=True)
        asked["balls"] = [
            ball | {name: whole[name] for name in ("x", "y", "visible") if name in whole}
            for ball, whole in balls
        ]
    return asked


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


def folder_items(films: list[Path], folder: Path, *, seconds: float, shorter_side: int) -> Iterator[Item]:
    """Read clips one by one. A file that cannot be read is an item without a clip, never an exception.

    KEY.json beside KEY.mp4 may hold `truth` (as the toybox writes it), `caption` or `request.prompt`, `seed`, and
    `enrolment`: names of other films, relative to it, of the person who should be in this one.
    Pictures larger than `shorter_side` are scaled down to it; at most `seconds` are read. Films of subfolders of
    `folder` have its name before theirs.
    """
    for film in films:
        key = "--".join(film.relative_to(folder).with_suffix("").parts)
        try:
            side = read_sidecar(film.with_suffix(".json"))
            clip = _read_film(film, seconds, shorter_side)
            enrolled = tuple(_read_film(film.parent / n, seconds, shorter_side) for n in side["enrolment"])
        except UserError as error:
            tqdm.write(f"warning: {film.name} counts as a failure: {error}")
            yield Item(key, key, None, failure=f"cannot be read: {error}", path=str(film))
            continue
        if side["enrolment"]:
            clip = clip.replace(meta={**clip.meta, "enrolment": enrolled})
        prompt = side["prompt"] if side["prompt"] else key
        yield Item(key, prompt, clip, side["truth"], seed=side["seed"], path=str(film))


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
    """{"truth", "prompt", "seed", "enrolment"} of a clip; what the JSON does not have, or no JSON, is None or empty.

    Raises:
        MetricError: the file is not a JSON object.
    """
    if not path.is_file():
        return {"truth": None, "prompt": None, "seed": None, "enrolment": []}
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
        "enrolment": entry.get("enrolment", []),
    }


#: Attributes that an intervention changes one at a time, with their values.
INTERVENTIONS: dict[str, tuple[str, ...]] = {"gravity": tuple(GRAVITIES), "material": tuple(MATERIALS)}


def intervened_clips(config: ToyboxConfig, count: int) -> list[Clip]:
    """Real clips of one ball in groups that differ in one attribute of the prompt; keys are GROUP--VALUE.

    Generated with one seed, they show whether what is commanded is what changes.
    """
    box = Toybox(config)
    clips = []
    for index in range(count):
        for attribute, values in INTERVENTIONS.items():
            for value in values:
                clip = box.clip(index, count=1, ambience="silence", **{attribute: value})
                clips.append(clip.replace(key=f"{clip.key}-{attribute}--{value}"))
    return clips


def generated_items(
    pipeline: Pipeline | Cascade,
    real: list[Clip],
    folder: Path,
    *,
    seeds: int,
    first_seed: int,
    sampling: SamplingConfig | None,
    progress: bool,
    task: str = "text_to_av",
) -> list[Item]:
    """Generate every caption of `real` with `seeds` seeds; clips and their JSON are kept in `folder`.

    The clips of the items are those of the files, whether they were made now or by an interrupted run before.
    `task` names one of `CONDITIONS`: what the requests are given of the real clips beside their captions.
    """
    settings = {
        "checkpoint": pipeline.info.get("checkpoint_sha256"),
        "dtype": pipeline.info.get("dtype"),
        "sampling": str(sampling),
        "task": task,
        "decoders": pipeline.codecs.weights_digest(),
    }
    stride = pipeline.world.temporal_stride
    truths = {clip.key: expected(clip.meta["truth"], task) for clip in real}
    given = {clip.key: {**CONDITIONS[task](clip, stride), **_cameo(clip, pipeline)} for clip in real}
    marks = {key: {**settings, "given": _digest(parts)} for key, parts in given.items()}
    wanted = [(clip, first_seed + s) for clip in real for s in range(seeds)]
    found = {
        (clip.key, seed): item
        for clip, seed in wanted
        if (item := _made_before(folder, clip, seed, marks[clip.key], truths[clip.key])) is not None
    }
    missing = [(clip, seed) for clip, seed in wanted if (clip.key, seed) not in found]
    with tqdm(
        total=len(wanted), initial=len(found), unit="clip", desc="generate", disable=not progress
    ) as bar:
        for start in range(0, len(missing), pipeline.batch_size):
            group = missing[start : start + pipeline.batch_size]
            requests = [
                Request(prompt=clip.caption, seed=seed, sampling=sampling, **given[clip.key])
                for clip, seed in group
            ]
            for (source, seed), made in zip(group, pipeline.generate(requests), strict=True):
                path = _path(folder, source, seed)
                truth = truths[source.key]
                write_clip(made, path, lossless_audio=True, crf=GENERATED_CRF)
                side = {"caption": source.caption, "seed": seed, "truth": truth, **marks[source.key]}
                save_json(side, path.with_suffix(".json"))
                found[source.key, seed] = _kept(path, source, seed, truth)
                bar.update()
    return [found[clip.key, seed] for clip, seed in wanted]


def _cameo(clip: Clip, pipeline: Pipeline | Cascade) -> dict[str, Any]:
    """The first enrolment clip of the person who is to be in it, where the checkpoint knows what to do with one."""
    enrolled = clip.meta.get("enrolment", ())
    if not enrolled or not pipeline.world.references:
        return {}
    return {"cameo": enrolled[0], "consent": "enrolment of the evaluation"}


def _digest(given: dict[str, Any]) -> str:
    """Of what a request is given beside its caption."""
    digest = hashlib.sha256()
    for name, value in sorted(given.items()):
        digest.update(name.encode())
        digest.update(clip_digest(value) if isinstance(value, Clip) else repr(value).encode())
    return digest.hexdigest()[:16]


def _path(folder: Path, source: Clip, seed: int) -> Path:
    return folder / f"{source.key}-seed{seed}.mp4"


def _made_before(
    folder: Path, source: Clip, seed: int, settings: dict[str, Any], truth: dict[str, Any]
) -> Item | None:
    """A clip that an interrupted run has made by the same weights of the same caption, seed and conditions."""
    path = _path(folder, source, seed)
    if not path.is_file() or not path.with_suffix(".json").is_file():
        return None
    side = json.loads(path.with_suffix(".json").read_text())
    wanted = {"caption": source.caption, "seed": seed, **settings}
    if settings["checkpoint"] is None or any(side.get(n) != value for n, value in wanted.items()):
        return None
    return _kept(path, source, seed, truth)


def _kept(path: Path, source: Clip, seed: int, truth: dict[str, Any]) -> Item:
    clip = read_clip(path, channels=1 if source.audio is None else len(source.audio), key=path.stem)
    clip = clip.replace(caption=source.caption, meta=_enrolled(clip, source))
    return Item(path.stem, source.caption, clip, truth, seed=seed, path=str(path))


def _enrolled(clip: Clip, source: Clip) -> dict[str, Any]:
    """Meta of a clip whose person is enrolled as that of `source` is."""
    known = source.meta.get("enrolment", ())
    return {**clip.meta, "enrolment": known} if known else clip.meta


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
