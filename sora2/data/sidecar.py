"""Captions, licence and source of a video, from the file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sora2.config import ConfigError, from_mapping
from sora2.data.errors import DataError

UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class ShotCaption:
    """A caption for the clips whose middle lies in [start, end), seconds on the file's clock."""

    start: float
    end: float
    caption: str


@dataclass(frozen=True)
class SpokenWord:
    """A word that is said, seconds on the file's clock."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Sidecar:
    """NAME.json beside NAME.mp4. NAME.txt holds the caption alone."""

    caption: str | None = None
    licence: str | None = None
    source: str | None = None
    shots: tuple[ShotCaption, ...] = ()
    speech: tuple[SpokenWord, ...] = ()
    person: str | None = None  # who is seen and heard in all of it, by any name that no other person has

    def speech_between(self, start: float, end: float) -> list[tuple[str, float, float]]:
        """(word, start, end) of the words whose middle lies in [start, end), on the clock that begins there."""
        return [
            (said.word, max(0.0, round(said.start - start, 3)), round(min(end, said.end) - start, 3))
            for said in self.speech
            if start <= (said.start + said.end) / 2 < end
        ]

    def caption_at(self, seconds: float) -> str | None:
        for shot in self.shots:
            if shot.start <= seconds < shot.end:
                return shot.caption
        return self.caption


def read_sidecar(video: Path, *, caption: str | None, licence: str | None, source: str | None) -> Sidecar:
    """The sidecar of a video, completed by the defaults given; licence falls to "unknown", source to the file
    name.

    `DataError` for two sidecars of one video or one that cannot be read.
    """
    text, structured = video.with_suffix(".txt"), video.with_suffix(".json")
    if text.exists() and structured.exists():
        raise DataError(f"{video} has two sidecars, {text.name} and {structured.name}: keep one")
    found = Sidecar()
    if text.exists():
        found = Sidecar(caption=" ".join(text.read_text(encoding="utf-8").split()))
        if not found.caption:
            raise DataError(f"caption file {text} is empty: write a caption or delete it")
    elif structured.exists():
        try:
            found = from_mapping(Sidecar, json.loads(structured.read_text(encoding="utf-8")), structured.name)
        except (json.JSONDecodeError, UnicodeDecodeError, ConfigError) as error:
            raise DataError(
                f"sidecar {structured} cannot be read: {error}. It may hold caption, licence, source and "
                "shots: [{start, end, caption}], speech: [{word, start, end}], person."
            ) from error
    return Sidecar(
        caption=caption if found.caption is None else found.caption,
        licence=found.licence
        if found.licence is not None
        else (licence if licence is not None else UNKNOWN_LICENCE),
        source=found.source if found.source is not None else (source if source is not None else video.name),
        shots=found.shots,
        speech=found.speech,
        person=found.person,
    )


def require_captions(files: Sequence[Path], sidecars: Sequence[Sidecar]) -> None:
    """`DataError` that counts and names the videos without any caption."""
    missing = [f.name for f, s in zip(files, sidecars, strict=True) if s.caption is None and not s.shots]
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DataError(
            f"{len(missing)} of {len(files)} videos have no caption: {shown}. Put NAME.txt or NAME.json "
            "beside "
            'NAME.mp4, or give one caption to all of them with --caption "..." (which may be empty).'
        )
