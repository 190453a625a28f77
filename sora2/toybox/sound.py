"""Shared sound helpers: impacts of balls, ambience, panning, and the mix."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy.fft

from sora2.toybox.config import check_choice
from sora2.toybox.modal import ModalVoice, modal_voice
from sora2.toybox.vocabulary import AMBIENCE_LEVELS, AMBIENCES, MATERIALS, SIZES

#: Amplitude (before panning) of an impact at `REFERENCE_SPEED` world units per second, and the exponent of
#: its growth.
REFERENCE_LEVEL, REFERENCE_SPEED, LEVEL_EXPONENT = 0.55, 4.0, 0.7
#: Contacts slower than this (world units per second) make no sound and are no events.
SILENT_SPEED = 0.1
#: The mix is linear up to the knee and approaches, but never reaches, the ceiling.
LIMITER_KNEE, LIMITER_CEILING = 0.8, 0.94
#: Root mean square of the ambiences.
AMBIENCE_LEVEL = {"silence": 0.0, "rain": 0.022, "wind": 0.035}
LEVEL_GAIN = {"quiet": 0.45, "normal": 1.0, "loud": 2.2}


def impact_level(speed: float) -> float:
    """Peak amplitude in [0, 1) of an impact, strictly increasing in the closing speed (world units / s)."""
    level = REFERENCE_LEVEL * (speed / REFERENCE_SPEED) ** LEVEL_EXPONENT
    return level if level < 0.7 else 0.7 + 0.2 * math.tanh((level - 0.7) / 0.2)


def pan_position(x: float, world_width: float) -> float:
    """Pan in [-1 left, 1 right] of a place in the picture."""
    return min(1.0, max(-1.0, 2 * x / world_width - 1))


def pan_gains(pan: float, channels: int) -> np.ndarray:
    """(channels,) equal-power gains; mono hears everything at full level."""
    if channels == 1:
        return np.ones(1)
    angle = (pan + 1) * math.pi / 4
    return np.array([math.cos(angle), math.sin(angle)])


@functools.lru_cache(maxsize=64)
def impact_voice(material: str, size: str, sample_rate: int, samples: int) -> ModalVoice:
    """The voice of a ball, at most `samples` long. Modes above 0.45 of the sample rate are left out."""
    check_choice("material", material, tuple(MATERIALS))
    check_choice("size", size, tuple(SIZES))
    spec = MATERIALS[material]
    return modal_voice(
        spec.mode_frequencies(size),
        spec.amplitudes,
        spec.decay_seconds,
        spec.attack_seconds,
        sample_rate,
        samples,
    )


@dataclass(frozen=True)
class Impact:
    """One sounding body of one impact."""

    onset_seconds: float
    level: float
    pan: float
    material: str
    size: str


def add_impacts(audio: np.ndarray, impacts: list[Impact], sample_rate: int) -> None:
    """Add `impacts` to audio (channels, S) in place. Before its onset an impact is exactly zero."""
    channels, samples = audio.shape
    voices: dict[tuple[str, str], list[Impact]] = {}
    for impact in impacts:
        voices.setdefault((impact.material, impact.size), []).append(impact)
    for (material, size), group in voices.items():
        voice = impact_voice(material, size, sample_rate, samples)
        onsets = np.array([impact.onset_seconds for impact in group])
        first = np.ceil(onsets * sample_rate).astype(int)
        waves = voice.render(first / sample_rate - onsets, np.array([impact.level for impact in group]))
        for impact, start, wave in zip(group, first, waves, strict=True):
            length = min(samples - start, wave.size)
            if length > 0:
                gains = pan_gains(impact.pan, channels).astype(np.float32)
                audio[:, start : start + length] += gains[:, None] * wave[:length]


def ambience(
    name: str,
    rng: np.random.Generator,
    channels: int,
    samples: int,
    sample_rate: int,
    level: str = "normal",
) -> np.ndarray:
    """(channels, samples) float32 of noise-like background sound with the root mean square of
    `AMBIENCE_LEVEL` times `LEVEL_GAIN`.

    Rain is a bright steady hiss, wide in stereo; wind a low roar that swells and fades.
    """
    check_choice("ambience", name, AMBIENCES)
    check_choice("ambience_level", level, AMBIENCE_LEVELS)
    if name == "silence":
        return np.zeros((channels, samples), np.float32)
    size = scipy.fft.next_fast_len(samples, real=True)
    filter_ = _ambience_filter(name, size, sample_rate)
    spectrum = rng.standard_normal((channels, filter_.size, 2), np.float32).view(np.complex64)[..., 0]
    noise = scipy.fft.irfft(spectrum * filter_, size)[:, :samples]
    if channels == 2:  # correlated channels sound like one place, not like two loudspeakers
        noise = np.stack([noise[0] + 0.4 * noise[1], noise[1] + 0.4 * noise[0]])
    noise *= _swell(name, rng, samples, sample_rate)
    return noise * np.float32(
        AMBIENCE_LEVEL[name] * LEVEL_GAIN[level] / math.sqrt(np.mean(np.square(noise)) + 1e-20)
    )


@functools.lru_cache(maxsize=16)
def _ambience_filter(name: str, size: int, sample_rate: int) -> np.ndarray:
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    if name == "rain":
        gain = 1 / (1 + (900 / np.maximum(frequency, 1)) ** 2) / (1 + (frequency / 5000) ** 4)
    else:
        gain = 1 / (1 + (50 / np.maximum(frequency, 1)) ** 4) / (1 + (frequency / 220) ** 2)
    return gain.astype(np.float32)


def _swell(name: str, rng: np.random.Generator, samples: int, sample_rate: int) -> np.ndarray:
    """(samples,) slow loudness changes, around 1."""
    depth, rates = (0.12, (1.3, 2.9, 4.7)) if name == "rain" else (0.5, (0.35, 0.8, 1.7))
    knots = np.arange(0, samples + 256, 256)
    seconds = knots / sample_rate
    phase = rng.uniform(0, 2 * math.pi, len(rates))
    slow = sum(np.sin(2 * math.pi * r * seconds + p) for r, p in zip(rates, phase, strict=True))
    return np.interp(np.arange(samples), knots, np.exp(depth * slow)).astype(np.float32)


def limit(audio: np.ndarray) -> np.ndarray:
    """Soft limiter: unchanged below the knee, always below the ceiling."""
    if np.abs(audio).max(initial=0.0) <= LIMITER_KNEE:
        return audio
    span = LIMITER_CEILING - LIMITER_KNEE
    over = np.maximum(np.abs(audio) - LIMITER_KNEE, 0)
    return np.where(over > 0, np.sign(audio) * (LIMITER_KNEE + span * np.tanh(over / span)), audio).astype(
        np.float32
    )
