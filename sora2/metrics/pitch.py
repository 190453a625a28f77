"""Which note was struck? The pitch of a tuned bar from what its onset adds to the spectrum. No network: it is exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WINDOW_SECONDS = 0.110  # of sound after the onset, at most: the next note cuts it short
SHORTEST_SECONDS = 0.040
LOWEST_HZ, HIGHEST_HZ = 200.0, 2300.0  # of the fundamentals of all instruments, with room around them
ZERO_PADDING = 8
#: Share of the amplitude before an onset that is taken for the ring of earlier notes in the window after it. Bars keep
#: 0.7 to 0.9; with all of it taken off, a bar struck again while it rings would hardly count.
KEPT = 0.6


def note_pitches(audio: Array, sample_rate: int, onsets: Array) -> Array:
    """(N,) Hz of the note that begins at each of `onsets` (N,) seconds, NaN where nothing tonal does.

    The fundamental of a bar is its strongest mode, so it is the highest peak of the spectrum once the ring of earlier
    notes, seen in the moment before the onset, is taken off. audio: (channels, S).
    """
    return np.array([_pitch(audio, sample_rate, onsets, k) for k in range(len(onsets))], np.float64)


def _pitch(audio: Array, sample_rate: int, onsets: Array, k: int) -> float:
    start = round(onsets[k] * sample_rate)
    stop = start + round(WINDOW_SECONDS * sample_rate)
    if k + 1 < len(onsets):
        stop = min(stop, round(onsets[k + 1] * sample_rate))
    length = min(stop, audio.shape[1]) - start
    if length < SHORTEST_SECONDS * sample_rate:
        return float("nan")
    after = _amplitudes(audio[:, start : start + length], sample_rate)
    before = (
        _amplitudes(audio[:, max(0, start - length) : start], sample_rate) if start else np.zeros_like(after)
    )
    hertz = np.arange(len(after)) * sample_rate / _transform_size(sample_rate)
    gain = np.where((hertz >= LOWEST_HZ) & (hertz <= HIGHEST_HZ), after - KEPT * before, 0.0)
    peak = int(np.argmax(gain))
    if gain[peak] <= 0 or not 0 < peak < len(gain) - 1:
        return float("nan")
    # a parabola through the logarithms of the peak and its neighbours: within cents for this window
    left, middle, right = np.log(after[peak - 1 : peak + 2] + 1e-12)
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float((peak + np.clip(shift, -0.5, 0.5)) * sample_rate / _transform_size(sample_rate))


def _amplitudes(piece: Array, sample_rate: int) -> Array:
    """(channels, n) -> (bins,) amplitude under a Hann window, channels added as powers."""
    if piece.shape[1] < 2:
        return np.zeros(_transform_size(sample_rate) // 2 + 1)
    window = np.hanning(piece.shape[1])
    spectrum = np.fft.rfft(piece * window, _transform_size(sample_rate), axis=-1) / window.sum()
    return np.sqrt((spectrum.real**2 + spectrum.imag**2).sum(axis=0))


def _transform_size(sample_rate: int) -> int:
    return int(2 ** np.ceil(np.log2(ZERO_PADDING * WINDOW_SECONDS * sample_rate)))


def cents(a: Array, b: Array) -> Array:
    """Interval from b to a."""
    return 1200 * np.log2(a / b)
