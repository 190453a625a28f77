"""Rain and wind that follow what is seen: a hiss by intensity, ticks at exact instants, gusts by envelope."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

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

    def gain(frequency: np.ndarray) -> np.ndarray:
        high_pass = 1 / (1 + (900 / np.maximum(frequency, 1)) ** 2)
        return high_pass / (1 + (frequency / 5000) ** 4)

    noise = shaped_noise(rng, gain, channels, samples, sample_rate)
    noise *= np.float32(HISS_LEVEL * intensity)
    return noise


def wind_roar(
    rng: np.random.Generator, gust: np.ndarray, channels: int, samples: int, sample_rate: int
) -> np.ndarray:
    """(channels, S) float32 of wind whose momentary root mean square is `ROAR_LEVEL * gust`, gust (S,) >= 0.

    Strong gusts are brighter: a whistle grows with the square, the roar makes up the rest.
    """

    def roar(frequency: np.ndarray) -> np.ndarray:
        return 1 / (1 + (50 / np.maximum(frequency, 1)) ** 4) / (1 + (frequency / 220) ** 2)

    def whistle(frequency: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * (np.log(np.maximum(frequency, 1) / 620) / 0.22) ** 2)

    low = shaped_noise(rng, roar, channels, samples, sample_rate)
    high = shaped_noise(rng, whistle, channels, samples, sample_rate)
    bright = np.minimum(0.6 * gust, 0.7)
    low *= (ROAR_LEVEL * gust * np.sqrt(1 - bright * bright)).astype(np.float32)
    high *= (ROAR_LEVEL * gust * bright).astype(np.float32)
    low += high
    return low


def shaped_noise(
    rng: np.random.Generator,
    gain: Callable[[np.ndarray], np.ndarray],
    channels: int,
    samples: int,
    sample_rate: int,
) -> np.ndarray:
    """(channels, S) float32 noise of root mean square 1, of amplitude spectrum `gain(Hz)`.

    Two channels are partly alike, so that they sound like one place.
    """
    size = scipy.fft.next_fast_len(samples, real=True)
    filter_ = gain(np.fft.rfftfreq(size, 1 / sample_rate)).astype(np.float32)
    spectrum = rng.standard_normal((channels, filter_.size, 2), np.float32).view(np.complex64)[..., 0]
    noise: np.ndarray = scipy.fft.irfft(spectrum * filter_, size)[:, :samples]
    if channels == 2:
        noise = np.stack([noise[0] + 0.4 * noise[1], noise[1] + 0.4 * noise[0]])
    noise /= np.sqrt(np.mean(np.square(noise))) + np.float32(1e-12)
    return noise


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
