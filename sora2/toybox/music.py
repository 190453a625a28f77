"""Tuned bars: instruments, equal temperament, and notes at exact instants between two samples."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sora2.toybox.config import check_choice, check_range
from sora2.toybox.modal import ModalVoice, modal_voice
from sora2.toybox.sound import pan_gains


@dataclass(frozen=True)
class Instrument:
    """A row of bars: its lowest note and how a bar rings.

    A bar of f Hz has the modes `f * ratios[k]`, which decay as `exp(-t / decay)` with `decay =
    decay_seconds[k] * sqrt(523.25 / f)`: high bars ring shorter.
    """

    lowest_midi: int
    ratios: tuple[float, ...]
    amplitudes: tuple[float, ...]
    decay_seconds: tuple[float, ...]
    attack_seconds: float


#: Tunings of the overtones: Fletcher and Rossing, The Physics of Musical Instruments (2nd ed.), ch. 19. The
#: bars of a xylophone are cut to a twelfth, those of a marimba to a double octave, bells are uniform bars.
INSTRUMENTS: Mapping[str, Instrument] = MappingProxyType(
    {
        "xylophone": Instrument(72, (1.0, 3.0, 6.1), (1.0, 0.5, 0.3), (0.13, 0.05, 0.02), 0.0002),
        "marimba": Instrument(60, (1.0, 3.97, 9.6), (1.0, 0.25, 0.08), (0.30, 0.07, 0.02), 0.0006),
        "bells": Instrument(84, (1.0, 2.756, 5.404), (1.0, 0.35, 0.15), (0.75, 0.35, 0.12), 0.0001),
    }
)

#: Semitones of the bars above the lowest: one octave of the major scale, both ends included.
BAR_SEMITONES = (0, 2, 4, 5, 7, 9, 11, 12)
#: Peak amplitude, before panning, of a note of velocity 1.
FULL_LEVEL = 0.55


def midi_to_hz(midi: float) -> float:
    """Equal temperament, A4 = MIDI 69 = 440 Hz."""
    return float(440.0 * 2 ** ((midi - 69) / 12))


def note_level(velocity: float) -> float:
    """Peak amplitude, before panning, of a note: 20 dB from the softest touch to velocity 1."""
    check_range("velocity", velocity, 0.0, 1.0)
    return float(FULL_LEVEL * 10 ** (velocity - 1))


@dataclass(frozen=True)
class Note:
    """One struck bar."""

    onset_seconds: float
    midi: int
    velocity: float  # in [0, 1]
    bar: int  # index in the row, from the left
    pan: float  # -1 left to 1 right


@functools.lru_cache(maxsize=64)
def bar_voice(instrument: str, midi: int, sample_rate: int, samples: int) -> ModalVoice:
    """The voice of one bar, at most `samples` long, peak 1."""
    check_choice("instrument", instrument, tuple(INSTRUMENTS))
    spec = INSTRUMENTS[instrument]
    frequency = midi_to_hz(midi)
    shorter = (523.25 / frequency) ** 0.5
    return modal_voice(
        [frequency * ratio for ratio in spec.ratios],
        spec.amplitudes,
        [decay * shorter for decay in spec.decay_seconds],
        spec.attack_seconds,
        sample_rate,
        samples,
    )


def add_notes(audio: np.ndarray, notes: list[Note], instrument: str, sample_rate: int) -> None:
    """Add `notes` to audio (channels, S) in place. Before its onset a note is exactly zero."""
    channels, samples = audio.shape
    for note in notes:
        start = int(np.ceil(note.onset_seconds * sample_rate))
        if start >= samples:
            continue
        voice = bar_voice(instrument, note.midi, sample_rate, samples)
        delay = np.array([start / sample_rate - note.onset_seconds])
        wave = voice.render(delay, np.array([note_level(note.velocity)]))[0, : samples - start]
        for channel, gain in zip(audio, pan_gains(note.pan, channels), strict=True):
            channel[start : start + wave.size] += np.float32(gain) * wave
