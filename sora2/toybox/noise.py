"""Coloured noise for ambience: parts of one random spectrum."""

from __future__ import annotations

import functools

import numpy as np
import scipy.fft

from sora2.toybox.config import check_choice

#: hiss: far rain. roar, whistle: wind. city: far traffic.
COLORS = ("hiss", "roar", "whistle", "city")


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
    check_choice("noise", color, COLORS)
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    if color == "hiss":
        gain = 1 / (1 + (900 / np.maximum(frequency, 1)) ** 2) / (1 + (frequency / 5000) ** 4)
        highest = 0.5 * sample_rate
    elif color == "roar":
        gain = 1 / (1 + (50 / np.maximum(frequency, 1)) ** 4) / (1 + (frequency / 220) ** 2)
        highest = 2500.0
    elif color == "city":
        gain = 1 / (1 + (70 / np.maximum(frequency, 1)) ** 4) / (1 + (frequency / 260) ** 1.5)
        highest = 4000.0
    else:
        gain = np.exp(-0.5 * (np.log(np.maximum(frequency, 1) / 620) / 0.22) ** 2)
        highest = 2500.0
    return gain[frequency <= highest].astype(np.float32)
