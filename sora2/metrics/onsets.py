"""When does a sound begin? Onsets of impacts from the waveform, to a fraction of a millisecond.

Two stages. Energy flux finds candidates: the rise of log power per frequency band over its own recent past, against
a noise floor measured in the clip, so steady rain or wind raises nothing. Then each candidate is placed to the sample
where a change of variance is most likely (maximum likelihood, Gaussian), on the waveform whitened by linear
prediction from what came before, so that the ring of an earlier impact does not hide the attack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

Array = NDArray[np.float64]

WINDOW_SECONDS = 0.008  # analysis window of the flux
HOP_SECONDS = 0.002
BANDS = 16
FLOOR_DB = 60.0  # power further below the clip's loudest frame than this is silence
SILENCE = 1e-4  # a clip whose peak is below this (-80 dBFS) has no onsets
MINIMUM_GAP_SECONDS = 0.030  # onsets closer than this are one


@dataclass(frozen=True)
class Onsets:
    """Moments at which a sound begins, in order."""

    seconds: Array  # (E,)
    strength: Array  # (E,) mean rise over bands in dB, above the clip's own fluctuation
    level_db: Array  # (E,) power of the 30 ms that follow, dB relative to full scale

    def __len__(self) -> int:
        return len(self.seconds)

    def stronger_than(self, strength: float) -> Onsets:
        keep = self.strength >= strength
        return Onsets(self.seconds[keep], self.strength[keep], self.level_db[keep])


def empty_onsets() -> Onsets:
    return Onsets(np.zeros(0), np.zeros(0), np.zeros(0))


def detect_onsets(audio: Array, sample_rate: int, *, threshold: float = 2.4) -> Onsets:
    """Onsets of a clip. audio (channels, S) in [-1, 1]; `threshold` in dB of mean rise over the bands."""
    x = np.atleast_2d(np.asarray(audio, np.float64))
    if x.shape[1] < round(0.03 * sample_rate) or np.abs(x).max() < SILENCE:
        return empty_onsets()
    flux, hop = energy_flux(x, sample_rate)
    peaks = pick_peaks(flux, threshold, round(MINIMUM_GAP_SECONDS / HOP_SECONDS))
    mono = x[np.argmax((x**2).sum(axis=1))] if len(x) > 1 else x[0]
    seconds = np.array([refine_onset(mono, sample_rate, int(p * hop)) for p in peaks])
    order = np.argsort(seconds)
    power = np.cumsum(np.concatenate([[0.0], (x**2).mean(axis=0)]))
    start = np.clip(np.round(seconds[order] * sample_rate).astype(int), 0, len(power) - 2)
    stop = np.minimum(start + round(0.03 * sample_rate), len(power) - 1)
    level = 10 * np.log10((power[stop] - power[start]) / (stop - start) + 1e-12)
    return Onsets(seconds[order], flux[peaks][order], level)


def energy_flux(x: Array, sample_rate: int) -> tuple[Array, int]:
    """Rise of band power, dB, averaged over bands. (channels, S) -> (frames,) at a hop of the returned samples."""
    window = max(32, 2 * round(WINDOW_SECONDS * sample_rate / 2))
    hop = max(1, round(HOP_SECONDS * sample_rate))
    padded = np.pad(x, ((0, 0), (window // 2, window // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[
        :, ::hop
    ]  # (channels, F, window)
    spectrum = np.fft.rfft(frames * np.hanning(window), axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=0)  # (F, bins)
    band = power @ band_matrix(power.shape[1], sample_rate).T  # (F, BANDS)
    floor = np.maximum(np.quantile(band, 0.2, axis=0), band.sum(axis=1).max() * 10 ** (-FLOOR_DB / 10))
    level = 10 * np.log10(band + floor)  # (F, BANDS)
    step = max(1, round(WINDOW_SECONDS / 2 / HOP_SECONDS))
    past = np.concatenate([np.repeat(level[:1], step, axis=0), level[:-step]])
    older = np.concatenate([np.repeat(level[:1], 2 * step, axis=0), level[: -2 * step]])
    rise = np.maximum(level - np.maximum(past, older), 0).mean(axis=1)  # (F,)
    return rise - np.median(rise), hop


def band_matrix(bins: int, sample_rate: int) -> Array:
    """(BANDS, bins) of 0/1: bins grouped into bands of about equal width on the mel scale, none empty."""
    hertz = np.linspace(0, sample_rate / 2, bins)
    mel = np.log1p(hertz / 700)
    index = np.minimum((mel / mel[-1] * BANDS).astype(int), BANDS - 1)
    used = np.unique(index)
    return (index[None, :] == used[:, None]).astype(np.float64)


def pick_peaks(flux: Array, threshold: float, gap: int) -> NDArray[np.intp]:
    """Frames that are the maximum of their +-gap neighbourhood and above the threshold."""
    padded = np.pad(flux, gap, constant_values=-np.inf)
    neighbourhood = np.lib.stride_tricks.sliding_window_view(padded, 2 * gap + 1).max(axis=1)
    peaks = np.flatnonzero((flux >= neighbourhood) & (flux >= threshold))
    return peaks[np.concatenate([[True], np.diff(peaks) > gap])] if len(peaks) else peaks


def refine_onset(x: Array, sample_rate: int, coarse: int, *, reach: float = 0.010) -> float:
    """The sample near `coarse` where the variance of the prediction residual most likely steps up, in seconds."""
    reach_samples = round(reach * sample_rate)
    before = round(0.020 * sample_rate)
    after = round(0.006 * sample_rate)
    start, stop = max(0, coarse - reach_samples - before), min(len(x), coarse + reach_samples + after)
    segment = x[start:stop]
    past = x[max(0, coarse - reach_samples - 2 * before) : max(coarse - reach_samples, 1)]
    residual = lfilter(prediction_filter(past), [1.0], segment) ** 2
    total = np.concatenate([[0.0], np.cumsum(residual)])
    low = max(coarse - reach_samples, start + 8) - start
    high = min(coarse + reach_samples, stop - 8) - start
    if high <= low:
        return coarse / sample_rate
    tau = np.arange(low, high)
    end = np.minimum(tau + after, len(residual))
    n_before, n_after = tau - np.maximum(tau - before, 0), end - tau
    tiny = 1e-6 * residual.max() + 1e-14
    v_before = (total[tau] - total[np.maximum(tau - before, 0)]) / n_before + tiny
    v_after = (total[end] - total[tau]) / n_after + tiny
    v_both = (v_before * n_before + v_after * n_after) / (n_before + n_after)
    gain = (n_before + n_after) * np.log(v_both) - n_before * np.log(v_before) - n_after * np.log(v_after)
    gain = np.where(v_after > v_before, gain, -np.inf)
    if not np.isfinite(gain).any():
        return coarse / sample_rate
    return (start + tau[np.argmax(gain)]) / sample_rate


def prediction_filter(past: Array, order: int = 12) -> Array:
    """Coefficients (order + 1,) of the whitening filter fitted to `past` by the autocorrelation method."""
    if len(past) < 4 * order or np.abs(past).max() < 1e-6:
        return np.array([1.0, -0.9])
    windowed = past * np.hanning(len(past))
    correlation = np.array([windowed[k:] @ windowed[: len(past) - k] for k in range(order + 1)])
    correlation[0] *= 1 + 1e-6
    prediction = solve_toeplitz(correlation[:-1], correlation[1:])
    return np.concatenate([[1.0], -prediction])
