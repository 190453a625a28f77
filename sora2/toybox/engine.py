"""Sounds that vehicles give off, as functions of their own time: engine, tyres, horn.

A function of time can be heard at any retarded time (`sora2.toybox.doppler`), so a passing vehicle is never
resampled by a rounded ratio.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sora2.toybox.config import check_choice

_TABLE = 4096  # points of one period; linear reading is exact to 1e-4 of the amplitude for 24 harmonics


@dataclass(frozen=True)
class Engine:
    """Frequencies and shares of level of one kind of vehicle."""

    fundamental_hz: float
    harmonics: int
    slope: float  # the k-th harmonic has the amplitude k ** -slope
    formant_hz: float  # harmonics near it are raised
    tyres: float  # share of rolling noise
    horn_hz: tuple[float, float]


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "car": Engine(98.0, 16, 0.9, 420.0, 0.35, (415.0, 523.0)),
        "truck": Engine(58.0, 20, 0.7, 240.0, 0.55, (233.0, 294.0)),
        "motorbike": Engine(146.0, 20, 0.5, 900.0, 0.15, (587.0, 740.0)),
    }
)


@functools.lru_cache(maxsize=16)
def _period(kind: str) -> np.ndarray:
    """(TABLE + 1,) float32, one period of the engine with root mean square 1."""
    check_choice("vehicle", kind, tuple(ENGINES))
    spec = ENGINES[kind]
    phase = 2 * math.pi * np.arange(_TABLE + 1) / _TABLE
    wave = np.zeros(_TABLE + 1)
    for k in range(1, spec.harmonics + 1):
        formant = 1 + 2 * math.exp(-((math.log(k * spec.fundamental_hz / spec.formant_hz) / 0.5) ** 2))
        wave += k**-spec.slope * formant * np.sin(k * phase + 0.7 * k * k)  # spread phases: no sharp pulse
    return (wave / math.sqrt(np.mean(wave[:-1] ** 2))).astype(np.float32)


def engine_sound(kind: str, seconds: np.ndarray) -> np.ndarray:
    """(S,) float32 of the engine at its own times (S,), root mean square about 1."""
    place = (seconds * ENGINES[kind].fundamental_hz) % 1.0 * _TABLE
    return _read(_period(kind), place)


def horn_sound(kind: str, seconds: np.ndarray, start: float, stop: float) -> np.ndarray:
    """(S,) float32 of the two-tone horn between `start` and `stop` of its own time, exactly 0 elsewhere."""
    sound = np.zeros(seconds.shape, np.float32)
    on = (seconds >= start) & (seconds < stop)
    t = seconds[on] - start
    rise, fall = 1 - np.exp(-t / 0.004), 1 - np.exp(-(stop - start - t) / 0.02)
    tones = sum(
        np.sin(2 * math.pi * f * t) + 0.5 * np.sin(4 * math.pi * f * t) + 0.3 * np.sin(6 * math.pi * f * t)
        for f in ENGINES[kind].horn_hz
    )
    sound[on] = rise * fall * tones
    return sound


def rolling_noise(table: np.ndarray, seconds: np.ndarray, sample_rate: int) -> np.ndarray:
    """(S,) a looped noise table (N + 1,), recorded at `sample_rate`, heard at the source's times (S,)."""
    return _read(table, (seconds * sample_rate) % (table.size - 1))


def rolling_noise_table(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """(N + 1,) float32 of tyre noise with root mean square 1: one second of noise around 500 Hz, a loop."""
    size = sample_rate
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    gain = (frequency / 500) / (1 + (frequency / 500) ** 3)
    spectrum = rng.standard_normal((frequency.size, 2)).view(np.complex128)[:, 0] * gain
    noise = np.fft.irfft(spectrum, size)
    noise /= math.sqrt(np.mean(noise**2))
    return np.append(noise, noise[0]).astype(np.float32)


def _read(table: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Linear interpolation of a table whose last point repeats the first."""
    whole = place.astype(np.int64)
    share = (place - whole).astype(np.float32)
    low = table[whole]
    return low + share * (table[whole + 1] - low)
