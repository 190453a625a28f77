"""Words on the clip's clock: each begins on a sample, at the clip's own rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import resample_poly

from sora2.toybox.speech.backend import Span, SpeechBackend, Utterance, Voice
from sora2.toybox.speech.cache import MEMORY_BYTES, BoundedMemory

#: Root mean square of a spoken word before panning, and the most that its peak may be.
WORD_LEVEL, WORD_PEAK = 0.12, 0.7

_WAVES: BoundedMemory[np.ndarray] = BoundedMemory(MEMORY_BYTES)


@dataclass(frozen=True)
class PlacedWord:
    """A word in a clip. It sounds from sample `first` on."""

    word: str
    first: int
    sample_rate: int
    utterance: Utterance
    wave: np.ndarray  # (S,) float32 at the clip's rate and level

    @property
    def onset_seconds(self) -> float:
        return self.first / self.sample_rate

    @property
    def end_seconds(self) -> float:
        return self.onset_seconds + self.utterance.seconds

    def phonemes(self) -> list[Span]:
        """On the clip's clock."""
        at = self.onset_seconds
        return [Span(p.name, p.start + at, p.end + at) for p in self.utterance.phonemes]


def wave_at(
    backend: SpeechBackend, word: str, voice: Voice, sample_rate: int
) -> tuple[Utterance, np.ndarray]:
    """A word, and its sound (S,) float32 at `sample_rate` and at `WORD_LEVEL`."""
    utterance = backend.speak((word,), voice)

    def make() -> np.ndarray:
        shared = math.gcd(sample_rate, utterance.sample_rate)
        wave = utterance.audio.astype(np.float64)
        if sample_rate != utterance.sample_rate:
            wave = resample_poly(wave, sample_rate // shared, utterance.sample_rate // shared)
        gain = min(WORD_LEVEL / math.sqrt(np.mean(wave**2)), WORD_PEAK / np.abs(wave).max())
        wave = (wave * gain).astype(np.float32)
        wave.flags.writeable = False
        return wave

    key = (backend.fingerprint(), word, voice, sample_rate)
    return utterance, _WAVES.get(key, make, lambda wave: wave.nbytes)


def place(
    backend: SpeechBackend,
    words: Sequence[str],
    voice: Voice,
    sample_rate: int,
    start_seconds: float,
    gap_seconds: float,
) -> tuple[PlacedWord, ...]:
    """The words one after another, `gap_seconds` of silence between them, rounded up to whole samples."""
    placed = []
    first = math.ceil(start_seconds * sample_rate)
    for word in words:
        utterance, wave = wave_at(backend, word, voice, sample_rate)
        placed.append(PlacedWord(word, first, sample_rate, utterance, wave))
        first = math.ceil((first + wave.size) + gap_seconds * sample_rate)
    return tuple(placed)
