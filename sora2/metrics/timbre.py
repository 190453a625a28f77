"""What was struck? The material of an impact, from its spectrum against the toybox's public table of modes."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from sora2.toybox.vocabulary import MATERIALS, SIZES

Array = NDArray[np.float64]

WINDOW_SECONDS = 0.080  # of sound after the onset
LOWEST_HZ, HIGHEST_HZ, BANDS_PER_OCTAVE = 110.0, 4400.0, 9


@functools.lru_cache(maxsize=8)
def band_edges(sample_rate: int) -> NDArray[np.intp]:
    """Edges, in bins of the zero-padded transform, of logarithmic bands below the Nyquist frequency."""
    size = transform_size(sample_rate)
    highest = min(HIGHEST_HZ, 0.45 * sample_rate)
    count = int(np.log2(highest / LOWEST_HZ) * BANDS_PER_OCTAVE)
    hertz = LOWEST_HZ * 2.0 ** (np.arange(count + 1) / BANDS_PER_OCTAVE)
    return np.unique(np.round(hertz * size / sample_rate).astype(np.intp))


def transform_size(sample_rate: int) -> int:
    """Length of the transform: the window, zero-padded to a finer grid."""
    return int(2 ** np.ceil(np.log2(2 * WINDOW_SECONDS * sample_rate)))


def band_amplitudes(x: Array, sample_rate: int) -> Array:
    """(channels, S) that begins at an onset -> (bands,) root of band power, under a window that falls to zero."""
    length = round(WINDOW_SECONDS * sample_rate)
    piece = x[:, :length]
    window = 0.5 + 0.5 * np.cos(np.pi * np.arange(piece.shape[1]) / length)
    spectrum = np.fft.rfft(piece * window, transform_size(sample_rate), axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
    total = np.concatenate([[0.0], np.cumsum(power)])
    edges = band_edges(sample_rate)
    return np.sqrt(total[edges[1:]] - total[edges[:-1]])


@functools.lru_cache(maxsize=8)
def voices(sample_rate: int) -> tuple[tuple[tuple[str, str], ...], Array]:
    """(material, size) of every voice of the table, and their band amplitudes (bands, V), unit length each."""
    t = np.arange(round(WINDOW_SECONDS * sample_rate)) / sample_rate
    names, columns = [], []
    for material, spec in MATERIALS.items():
        for size in SIZES:
            wave = np.zeros_like(t)
            for hertz, amplitude, decay in zip(
                spec.mode_frequencies(size), spec.amplitudes, spec.decay_seconds, strict=True
            ):
                if hertz < 0.45 * sample_rate:
                    wave += amplitude * np.exp(-t / decay) * np.sin(2 * np.pi * hertz * t)
            column = band_amplitudes(wave[None], sample_rate)
            names.append((material, size))
            columns.append(column / np.linalg.norm(column))
    return tuple(names), np.stack(columns, axis=1)


def material_amplitudes(audio: Array, sample_rate: int, onset_seconds: float) -> dict[str, float]:
    """Amplitude of each material in the impact at `onset_seconds`; audio (channels, S).

    The spectrum is explained by non-negative amounts of all voices and of the sound just before the onset, so that
    the ring of an earlier impact, rain and wind are not taken for the impact.
    """
    start = round(onset_seconds * sample_rate)
    length = round(WINDOW_SECONDS * sample_rate)
    observed = band_amplitudes(audio[:, start : start + length], sample_rate)
    names, columns = voices(sample_rate)
    margin = round(0.002 * sample_rate)
    before = audio[:, max(0, start - margin - length) : max(0, start - margin)]
    if before.shape[1] > length // 4:
        past = band_amplitudes(before[:, ::-1], sample_rate)  # weighted towards the onset
        if np.linalg.norm(past) > 1e-6:
            columns = np.concatenate([columns, (past / np.linalg.norm(past))[:, None]], axis=1)
    amounts, _ = nnls(columns, observed)
    result = dict.fromkeys(MATERIALS, 0.0)
    for (material, _), amount in zip(names, amounts, strict=False):
        result[material] += float(amount)
    return result
