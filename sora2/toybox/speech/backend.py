"""What a speech backend takes and gives: words and a voice in, sound with exact times out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sora2.errors import UserError


class SpeechError(UserError):
    """Speech that cannot be made. The message names what is missing or wrong, and the remedy."""


@dataclass(frozen=True)
class Voice:
    """Who speaks, and how. Backends map it to what they have."""

    number: int  # 0 ... 7, the speaker
    pitch: int = 1  # 0 low, 1 middle, 2 high
    words_per_minute: int = 160

    def __post_init__(self) -> None:
        for name, low, high in (("number", 0, 7), ("pitch", 0, 2), ("words_per_minute", 80, 320)):
            if not low <= getattr(self, name) <= high:
                raise SpeechError(f"voice {name}={getattr(self, name)} must be in [{low}, {high}]")


@dataclass(frozen=True)
class Span:
    """A word or a phoneme (IPA) and when it sounds, in seconds from the first sample of the utterance."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Speech. It begins with the first audible sample and ends with the last."""

    audio: np.ndarray  # (S,) float32, mono, 16-bit values
    sample_rate: int
    phonemes: tuple[Span, ...]
    words: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        return self.audio.size / self.sample_rate


class SpeechBackend(Protocol):
    """A synthesiser. Equal calls give equal samples, in any order, thread and process."""

    name: str

    def fingerprint(self) -> str:
        """Names everything that changes the sound: the backend, its version and files."""
        ...

    def speak(self, words: tuple[str, ...], voice: Voice) -> Utterance:
        """Say `words`. Raises `SpeechError` when the backend or one of its files is missing."""
        ...


#: Sound below this share of the peak counts as silence at both ends of an utterance (-46 dB).
AUDIBLE = 0.005


def trimmed(audio: np.ndarray, sample_rate: int, phonemes: list[Span], words: list[Span]) -> Utterance:
    """An utterance of float samples (S,) without the silence around it, all times moved and cut along."""
    loud = np.flatnonzero(np.abs(audio) > AUDIBLE * np.abs(audio).max(initial=0.0))
    if loud.size == 0:
        raise SpeechError(f"the synthesiser gave silence for {' '.join(word.name for word in words)!r}")
    first, last = int(loud[0]), int(loud[-1]) + 1
    start, end = first / sample_rate, last / sample_rate

    def cut(spans: list[Span]) -> tuple[Span, ...]:
        kept = [Span(s.name, max(s.start, start) - start, min(s.end, end) - start) for s in spans]
        kept = [s for s in kept if s.end > s.start]
        # what sounds before the first span and after the last belongs to them
        kept[0] = Span(kept[0].name, 0.0, kept[0].end)
        kept[-1] = Span(kept[-1].name, kept[-1].start, end - start)
        return tuple(kept)

    sound = np.rint(np.clip(audio[first:last], -1, 1) * 32767) / 32767
    return Utterance(sound.astype(np.float32), sample_rate, cut(phonemes), cut(words))
