"""Rain and wind that follow what is seen: a hiss by intensity, ticks at exact instants, gusts by envelope."""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.fft

from sora2.toybox.modal import ModalVoice, modal_voice
from sora2.toybox.sound import pan_gains

#: Root mean square of the hiss of rain of intensity 1 and of the roar of wind of gust strength 1.
HISS_LEVEL, ROAR_LEVEL = 0.06, 0.09
#: A near drop rings with one of these bubbles, Hz.
DROP_HZ = (1450.0, 1900.0, 2450.0, 3100.0)


def rain_hiss(
    rng: np.random.Generator, intensity: float, channels: int, samples: int, sample_rate: int
) -> np.ndarray:
    """(channels, S) float32 of many far drops, root mean square `HISS_LEVEL * intensity`."""
    noise = shaped_noise(rng, ("hiss",), channels, samples, sample_rate)[0]
    noise *= np.float32(HISS_LEVEL * intensity)
    return noise


def wind_roar(
    rng: np.random.Generator, gust: np.ndarray, channels: int, samples: int, sample_rate: int
) -> np.ndarray:
    """(channels, S) float32 of wind whose momentary root mean square is `ROAR_LEVEL * gust`, gust (S,) >= 0.

    Strong gusts are brighter: a whistle grows with the square, the roar makes up the rest.
    """
    low, high = shaped_noise(rng, ("roar", "whistle"), channels, samples, sample_rate)
    strength = gust.astype(np.float32)
    bright = np.minimum(np.float32(0.6) * strength, np.float32(0.7))
    strength *= np.float32(ROAR_LEVEL)
    low *= strength * np.sqrt(1 - bright * bright)
    high *= strength * bright
    low += high
    return low


def shaped_noise(
    rng: np.random.Generator, colors: tuple[str, ...], channels: int, samples: int, sample_rate: int
) -> list[np.ndarray]:
    """One (channels, S) float32 noise of root mean square 1 for each colour: parts of one random spectrum.

    Two channels are partly alike, so that they sound like one place.
    """
    size = scipy.fft.next_fast_len(samples, real=True)
    filters = [_filter(color, size, sample_rate) for color in colors]
    bins = max(filter_.size for filter_ in filters)
    spectrum = rng.standard_normal((channels, bins, 2), np.float32).view(np.complex64)[..., 0]
    if channels == 2:
        spectrum = np.stack([spectrum[0] + 0.4 * spectrum[1], spectrum[1] + 0.4 * spectrum[0]])
    parts = []
    for filter_ in filters:
        noise: np.ndarray = scipy.fft.irfft(spectrum[:, : filter_.size] * filter_, size)[:, :samples]
        noise /= np.sqrt(np.mean(np.square(noise))) + np.float32(1e-12)
        parts.append(noise)
    return parts


@functools.lru_cache(maxsize=32)
def _filter(color: str, size: int, sample_rate: int) -> np.ndarray:
    """(bins,) amplitudes from 0 Hz up to where the colour ends."""
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    if color == "hiss":
        gain = 1 / (1 + (900 / np.maximum(frequency, 1)) ** 2) / (1 + (frequency / 5000) ** 4)
        highest = 0.5 * sample_rate
    elif color == "roar":
        gain = 1 / (1 + (50 / np.maximum(frequency, 1)) ** 4) / (1 + (frequency / 220) ** 2)
        highest = 2500.0
    else:
        gain = np.exp(-0.5 * (np.log(np.maximum(frequency, 1) / 620) / 0.22) ** 2)
        highest = 2500.0
    return gain[frequency <= highest].astype(np.float32)


@functools.lru_cache(maxsize=32)
def drop_voice(frequency_hz: float, sample_rate: int) -> ModalVoice:
    """A drop on wet ground: a click and a short bubble."""
    modes = (frequency_hz, 2.3 * frequency_hz)
    return modal_voice(modes, (1.0, 0.5), (0.009, 0.002), 0.00008, sample_rate, sample_rate)


def add_drop(
    audio: np.ndarray, onset_seconds: float, frequency_hz: float, level: float, pan: float, sample_rate: int
) -> None:
    """Add one near drop to audio (channels, S) in place; before its onset it is exactly zero."""
    channels, samples = audio.shape
    start = math.ceil(onset_seconds * sample_rate)
    if start >= samples:
        return
    delay = np.array([start / sample_rate - onset_seconds])
    wave = drop_voice(frequency_hz, sample_rate).render(delay, np.array([level]))[0, : samples - start]
    audio[:, start : start + wave.size] += pan_gains(pan, channels)[:, None].astype(np.float32) * wave
