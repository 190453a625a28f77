"""Rain and wind that follow what is seen: a hiss by intensity, ticks at exact instants, gusts by envelope."""

from __future__ import annotations

import functools
import math

import numpy as np

from sora2.toybox.modal import ModalVoice, modal_voice
from sora2.toybox.noise import shaped_noise
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
