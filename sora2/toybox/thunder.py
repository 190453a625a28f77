"""Thunder: heard after the light by the distance over the speed of sound; a shock, a crackle, a rumble."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft

from sora2.toybox.config import check_range
from sora2.toybox.doppler import SPEED_OF_SOUND
from sora2.toybox.sound import pan_gains

#: Amplitude of the shock, before panning, of thunder from `REFERENCE_METRES`.
REFERENCE_LEVEL, REFERENCE_METRES = 0.6, 100.0
_SECONDS = 3.0  # of one thunder


def thunder_seconds(flash_seconds: float, metres: float) -> float:
    """When the thunder of a flash at `flash_seconds` begins to be heard."""
    return flash_seconds + metres / SPEED_OF_SOUND


def thunder_level(metres: float) -> float:
    """Amplitude at the onset, before panning: it falls slower than 1/r, for a bolt is long."""
    check_range("distance_metres", metres, 10.0)
    return min(0.85, float(REFERENCE_LEVEL * (REFERENCE_METRES / metres) ** 0.7))


def add_thunder(
    audio: np.ndarray,
    rng: np.random.Generator,
    onset_seconds: float,
    metres: float,
    pan: float,
    sample_rate: int,
) -> None:
    """Add one thunder to audio (channels, S) in place; before its onset it is exactly zero.

    The shock front is placed exactly between two samples. Far thunder has less crackle and a duller rumble.
    """
    channels, samples = audio.shape
    start = math.ceil(onset_seconds * sample_rate)
    if start >= samples:
        return
    size = scipy.fft.next_fast_len(int(_SECONDS * sample_rate), real=True)
    frequency = scipy.fft.rfftfreq(size, 1 / sample_rate)
    frequency = frequency[frequency <= 6000]
    spectrum = rng.standard_normal((frequency.size, 2), np.float32).view(np.complex64)[:, 0]
    cutoff = 4000 / (1 + metres / 150)
    low = spectrum / (1 + (40 / np.maximum(frequency, 1)) ** 4).astype(np.float32)
    filters = [1 / (1 + (frequency / hertz) ** 2) for hertz in (140, cutoff)]
    rumble, crackle = (scipy.fft.irfft(low * gain.astype(np.float32), size) for gain in filters)
    rumble *= np.float32(0.28 / rumble.std())
    crackle *= np.float32(0.28 / crackle.std())

    length = min(samples - start, int(_SECONDS * sample_rate))
    coarse = np.arange(0, _SECONDS + 0.002, 0.002)  # the slow envelopes, read between these instants
    swell, burst = 0.6 * np.exp(-coarse / 0.9), np.exp(-coarse / 0.07)
    for when, strength in rng.uniform((0.05, 0.3), (0.6, 0.9), (4, 2)):
        swell += strength * np.exp(-(((coarse - when) / 0.09) ** 2))  # a bolt is long: its parts come later
        burst += 0.6 * strength * np.exp(-(((coarse - when) / 0.03) ** 2))
    near = 1 / (1 + metres / 200)
    fade = 1 - (coarse / coarse[-1]) ** 4
    t = np.arange(start, start + length) / sample_rate - onset_seconds
    sound = np.interp(t, coarse, (1 - 0.5 * near) * fade * swell) * rumble[:length]
    sound += np.interp(t, coarse, near * burst) * crackle[:length]
    first = t[: int(0.06 * sample_rate)]
    sound[: first.size] *= 1 - np.exp(-first / 0.0005)
    sound[: first.size] += (0.4 + 0.6 * near) * np.exp(-first / 0.005) * np.cos(2 * math.pi * 70 * first)
    sound *= thunder_level(metres)
    audio[:, start : start + length] += (pan_gains(pan, channels)[:, None] * sound).astype(np.float32)
