"""Mel spectrograms and distances between waveforms, in NumPy."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@functools.lru_cache(maxsize=8)
def mel_filters(sample_rate: int, size: int, bands: int) -> Array:
    """(bands, size / 2 + 1) triangular filters, equally spaced on the mel scale (O'Shaughnessy), unit peak."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)  # Hz
    hertz = np.linspace(0, sample_rate / 2, size // 2 + 1)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.maximum(0, np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre)))


def log_mel(audio: Array, sample_rate: int, *, bands: int = 64, floor: float = 1e-5) -> Array:
    """(channels, S) -> (channels, frames, bands): natural logarithm of mel amplitudes, 64 ms windows every 16 ms."""
    size = 2 * round(0.032 * sample_rate)
    hop = round(0.016 * sample_rate)
    padded = np.pad(audio, ((0, 0), (size // 2, size // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop]
    amplitude = np.abs(np.fft.rfft(frames * np.hanning(size), axis=-1)) / (size / 4)
    return np.log(amplitude @ mel_filters(sample_rate, size, bands).T + floor)


def si_sdr(estimate: Array, target: Array) -> float:
    """Scale-invariant signal to distortion ratio in dB, both (channels, S), channels taken as one signal.

    Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, with the mean of each channel removed.
    """
    x = (estimate - estimate.mean(axis=1, keepdims=True)).ravel()
    s = (target - target.mean(axis=1, keepdims=True)).ravel()
    energy = float(s @ s)
    projection = (float(x @ s) / energy) * s
    error = x - projection
    return 10 * float(np.log10(projection @ projection / (error @ error + 1e-12 * energy) + 1e-12))
