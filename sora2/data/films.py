"""Which clips to cut from a folder of videos: sidecars, shots, spans, the held-out split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sora2.data.errors import DataError
from sora2.data.filters import Filters
from sora2.data.shots import Shot, find_shots
from sora2.data.sidecar import Sidecar, read_sidecar, require_captions
from sora2.media import AudioUse

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

    @property
    def clip_samples(self) -> int:
        return max(1, round(self.clip_seconds * self.sample_rate))


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
                dropped.append(dropped_clip(film, shot.start, "short_shot", shot.seconds))
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


def dropped_clip(film: Film, start: float, reason: str, value: float) -> dict[str, Any]:
    return {
        "file": film.path.name,
        "film": film.name,
        "start_seconds": round(start, 3),
        "reason": reason,
        "value": round(value, 4),
    }


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
