"""Spans of films -> raw shards: read, filter, pack, count."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from sora2.atomic import save_json
from sora2.codecs.quotes import say
from sora2.config import to_mapping
from sora2.data.errors import DataError
from sora2.data.films import TRAIN, VALIDATION, Film, IngestConfig, Span, dropped_clip, plan_spans
from sora2.data.filters import REASONS, reject
from sora2.data.parallel import map_ahead
from sora2.data.raw import pack_clip
from sora2.data.shards import ShardWriter
from sora2.media import read_clip
from sora2.types import Clip

_CLIPS_PER_READ = 8


@dataclass(frozen=True)
class _Result:
    """A clip that passed has members, another one the reason why not."""

    span: Span
    members: dict[str, bytes] | None
    refusal: dict[str, Any] | None


def _stretches(spans: Sequence[Span]) -> list[list[Span]]:
    """Neighbouring clips of one shot, a few at a time: they are read with one seek."""
    stretches: list[list[Span]] = []
    for span in spans:
        last = stretches[-1] if stretches else []
        if last and len(last) < _CLIPS_PER_READ and (last[0].film, last[0].shot) == (span.film, span.shot):
            last.append(span)
        else:
            stretches.append([span])
    return stretches


def _cut(stretch: Sequence[Span], config: IngestConfig) -> list[_Result]:
    """Read a stretch at once, split it into its clips, judge and pack them."""
    first = stretch[0]
    whole = read_clip(
        first.film.path,
        fps=config.fps,
        sample_rate=config.sample_rate,
        channels=config.channels,
        start=first.start,
        seconds=config.clip_seconds * len(stretch),
        size=(config.height, config.width),
        audio="ignore" if config.audio == "ignore" else "optional",
    )
    return [_judge(span, _part(whole, number, config), config) for number, span in enumerate(stretch)]


def _part(whole: Clip, number: int, config: IngestConfig) -> Clip:
    """Clip `number` of a stretch: always the same number of frames and of samples."""
    assert whole.video is not None
    video = whole.video[number * config.frames : (number + 1) * config.frames]  # (T, H, W, 3)
    if whole.audio is None:
        return whole.replace(video=video)
    begin = round(number * config.clip_seconds * config.sample_rate)
    sound = whole.audio[:, begin : begin + config.clip_samples]  # (channels, S)
    # the last of several clips may start a rounded sample late
    sound = torch.nn.functional.pad(sound, (0, config.clip_samples - sound.shape[1]))
    return whole.replace(video=video, audio=sound)


def _judge(span: Span, clip: Clip, config: IngestConfig) -> _Result:
    if clip.audio is None and config.audio == "required":
        return _Result(span, None, dropped_clip(span.film, span.start, "no_audio", 0.0))
    refused = reject(clip, config.filters)
    if refused is not None:
        return _Result(span, None, dropped_clip(span.film, span.start, *refused))
    meta = {
        "licence": span.film.sidecar.licence,
        "source": span.film.sidecar.source,
        **({} if span.film.sidecar.person is None else {"person": span.film.sidecar.person}),
        "file": span.film.path.name,
        "shot": span.shot,
        "start_seconds": span.start,
    }
    caption = span.caption
    said = span.film.sidecar.speech_between(span.start, span.start + config.clip_seconds)
    if said:
        meta["speech"] = said
        caption = say(caption, [word for word, _, _ in said])
    clip = clip.replace(key=span.key, caption=caption, meta=meta)
    return _Result(span, pack_clip(clip, crf=config.crf), None)


def write_clips(
    films: Sequence[Film],
    out: Path,
    config: IngestConfig,
    *,
    workers: int = 1,
    progress: Callable[[int], object],
) -> dict[str, Any]:
    """Cut, filter and write OUT/train and OUT/validation; returns and saves the report (OUT/report.json).

    The splits are written beside their place and moved there when all clips are done, so an error or Ctrl-C
    leaves earlier results as they were. `DataError` when no clip is left.
    """
    spans, dropped = plan_spans(films, config)
    kept: Counter[tuple[str, str]] = Counter()
    partial = {split: out / f".{split}.partial" for split in (TRAIN, VALIDATION)}
    try:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)
        with (
            ShardWriter(partial[TRAIN], config.shard_size) as train,
            ShardWriter(partial[VALIDATION], config.shard_size) as validation,
        ):
            results = map_ahead(lambda stretch: _cut(stretch, config), _stretches(spans), workers)
            for result in chain.from_iterable(results):
                span = result.span
                if result.refusal is not None:
                    dropped.append(result.refusal)
                if result.members is not None:
                    (validation if span.split == VALIDATION else train).write(span.key, result.members)
                    kept[span.film.name, span.split] += 1
                progress(1)
        report = make_report(films, spans, kept, dropped, config)
        if not kept:
            raise DataError(
                f"no clip was left: {describe_reasons(report['dropped'])}. Loosen the filters or cuts."
            )
        for split, folder in partial.items():
            shutil.rmtree(out / split, ignore_errors=True)
            if any(s == split for _, s in kept):
                folder.rename(out / split)
        save_json(report, out / "report.json")
        return report
    finally:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)


def describe_reasons(counts: dict[str, int]) -> str:
    return (
        ", ".join(f"{count} {reason}" for reason, count in counts.items() if count) or "nothing was dropped"
    )


def make_report(
    films: Sequence[Film],
    spans: Sequence[Span],
    kept: Counter[tuple[str, str]],
    dropped: Sequence[dict[str, Any]],
    config: IngestConfig,
) -> dict[str, Any]:
    """Counts per file and in total, every dropped clip with its reason, licences, settings."""
    files: list[dict[str, Any]] = []
    for film in films:
        name = film.name
        reasons = Counter(d["reason"] for d in dropped if d["film"] == name)
        files.append(
            {
                "file": film.path.name,
                "film": name,
                "licence": film.sidecar.licence,
                "source": film.sidecar.source,
                "seconds": round(sum(s.seconds for s in film.shots), 3),
                "shots": len(film.shots),
                "clips": sum(1 for s in spans if s.film is film),
                TRAIN: kept[name, TRAIN],
                VALIDATION: kept[name, VALIDATION],
                "dropped": {r: reasons[r] for r in REASONS},
                "cuts_seconds": [round(s.start, 3) for s in film.shots[1:]],
            }
        )
    return {
        "settings": to_mapping(config),
        "files": files,
        "clips": {split: sum(n for (_, s), n in kept.items() if s == split) for split in (TRAIN, VALIDATION)},
        "dropped": {reason: sum(f["dropped"][reason] for f in files) for reason in REASONS},
        "reasons": REASONS,
        "dropped_clips": list(dropped),
    }
