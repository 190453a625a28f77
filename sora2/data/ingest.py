"""A folder of videos -> raw shards: shots, clips of one length, filters, captions, a held-out split by
shot."""

from __future__ import annotations

import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sora2.atomic import save_json
from sora2.config import to_mapping
from sora2.data.errors import DataError
from sora2.data.filters import REASONS, Filters, reject
from sora2.data.raw import pack_clip
from sora2.data.shards import ShardWriter
from sora2.data.shots import Shot, find_shots
from sora2.data.sidecar import Sidecar, read_sidecar, require_captions
from sora2.media import AudioUse, read_clip

VIDEO_SUFFIXES = (
    ".mp4",
    ".mov",
    ".m4v",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ogv",
    ".ts",
    ".wmv",
    ".flv",
)
TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True)
class IngestConfig:
    """How films become clips."""

    frames: int = 33
    fps: float = 16.0
    height: int = 64
    width: int = 64
    sample_rate: int = 16000
    channels: int = 2
    audio: AudioUse = "required"
    holdout: float = 0.0  # share of the shots that goes to `validation`
    detector: str = "content"
    threshold: float | None = None
    margin_seconds: float = 0.05  # left out at both ends of a shot: blended frames of a cut
    crf: int = 12
    shard_size: int = 128
    filters: Filters = field(default_factory=Filters)

    def __post_init__(self) -> None:
        if not 0 <= self.holdout <= 0.5:
            raise DataError(
                f"holdout={self.holdout} must be in [0, 0.5]: the share of shots kept for validation"
            )
        if self.frames < 1 or not self.fps > 0 or self.height < 2 or self.width < 2:
            raise DataError(
                f"a clip of {self.frames} x {self.height} x {self.width} at {self.fps} fps cannot be"
            )

    @property
    def clip_seconds(self) -> float:
        return self.frames / self.fps


@dataclass(frozen=True)
class Film:
    """One video with its sidecar and shots."""

    path: Path
    name: str  # unique, fit for keys
    sidecar: Sidecar
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Span:
    """One clip to be cut."""

    film: Film
    shot: int  # number within the film
    split: str
    key: str
    start: float
    caption: str


def find_videos(folder: Path) -> list[Path]:
    """All videos below `folder`, sorted."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of videos")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    if not files:
        raise DataError(f"{folder} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    return files


def film_names(folder: Path, files: Sequence[Path]) -> list[str]:
    """Path below `folder` without suffix, in the letters that keys may have."""
    names = [re.sub(r"[^A-Za-z0-9_-]+", "_", str(f.relative_to(folder).with_suffix(""))) for f in files]
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        clash = [str(f) for f, n in zip(files, names, strict=True) if n == twice[0]]
        raise DataError(f"these videos would get the same keys: {', '.join(clash)}. Rename one.")
    return names


def plan_spans(films: Sequence[Film], config: IngestConfig) -> tuple[list[Span], list[dict[str, Any]]]:
    """The clips to cut, consecutive within each shot, and the shots that are too short for one.

    Of the usable shots of all films together, every k-th goes to `validation` (k = 1 / holdout).
    """
    every = round(1 / config.holdout) if config.holdout else 0
    spans: list[Span] = []
    dropped: list[dict[str, Any]] = []
    usable = 0
    for film in films:
        for number, shot in enumerate(film.shots):
            first, last = shot.start + config.margin_seconds, shot.end - config.margin_seconds
            clips = int((last - first) / config.clip_seconds + 1e-6)
            if clips < 1:
                dropped.append(_drop(film, shot.start, "short_shot", shot.seconds))
                continue
            usable += 1
            split = VALIDATION if every and usable % every == 0 else TRAIN
            for k in range(clips):
                start = first + k * config.clip_seconds
                caption = film.sidecar.caption_at(start + config.clip_seconds / 2)
                if caption is None:
                    raise DataError(
                        f"{film.path} has no caption for second {start:.2f}: its sidecar names shots "
                        "only. Add a "
                        "shot that covers it, a caption for the whole file, or --caption."
                    )
                key = f"{film.name}-s{number:04d}-c{k:03d}"
                spans.append(Span(film, number, split, key, start, caption))
    return spans, dropped


def _drop(film: Film, start: float, reason: str, value: float) -> dict[str, Any]:
    return {
        "file": film.path.name,
        "start_seconds": round(start, 3),
        "reason": reason,
        "value": round(value, 4),
    }


def _cut(span: Span, config: IngestConfig) -> tuple[Span, dict[str, bytes] | None, dict[str, Any] | None]:
    """(span, members, None) of a good clip, (span, None, why not) of another."""
    clip = read_clip(
        span.film.path,
        fps=config.fps,
        sample_rate=config.sample_rate,
        channels=config.channels,
        start=span.start,
        seconds=config.clip_seconds,
        size=(config.height, config.width),
        audio="ignore" if config.audio == "ignore" else "optional",
        caption=span.caption,
        key=span.key,
    )
    if clip.audio is None and config.audio == "required":
        return span, None, _drop(span.film, span.start, "no_audio", 0.0)
    refused = reject(clip, config.filters)
    if refused is not None:
        return span, None, _drop(span.film, span.start, *refused)
    meta = {
        "licence": span.film.sidecar.licence,
        "source": span.film.sidecar.source,
        "file": span.film.path.name,
        "shot": span.shot,
        "start_seconds": span.start,
    }
    return span, pack_clip(clip.replace(meta=meta), crf=config.crf), None


def _in_order(spans: Sequence[Span], config: IngestConfig, workers: int) -> Iterator[tuple]:
    """Cut by several threads, delivered in the order of `spans`."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future] = deque()
        try:
            for span in spans:
                pending.append(pool.submit(_cut, span, config))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def load_films(
    folder: Path,
    config: IngestConfig,
    *,
    caption: str | None = None,
    licence: str | None = None,
    source: str | None = None,
    started: Callable[[Path], object] = lambda path: None,
    progress: Callable[[float], object] | None = None,
) -> list[Film]:
    """Sidecars of all videos first (a missing caption stops before any decoding), then their shots."""
    files = find_videos(folder)
    names = film_names(folder, files)
    sidecars = [read_sidecar(f, caption=caption, licence=licence, source=source) for f in files]
    require_captions(files, sidecars)
    films = []
    for path, name, sidecar in zip(files, names, sidecars, strict=True):
        started(path)
        shots = find_shots(path, detector=config.detector, threshold=config.threshold, progress=progress)
        films.append(Film(path, name, sidecar, tuple(shots)))
    return films


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
            for span, members, refusal in _in_order(spans, config, workers):
                if members is None:
                    dropped.append(refusal)
                else:
                    (validation if span.split == VALIDATION else train).write(span.key, members)
                    kept[span.film.path.name, span.split] += 1
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
    files = []
    for film in films:
        name = film.path.name
        reasons = Counter(d["reason"] for d in dropped if d["file"] == name)
        files.append(
            {
                "file": name,
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
