"""Struck things: a sum of decaying modes, placed at any instant between two samples.

`(1 - exp(-t/attack)) * sum_k a_k exp(-t/decay_k) sin(2 pi f_k t)` for t >= 0. The attack splits every mode
into two decaying exponentials, so the sound at any fractional delay is a linear combination of fixed waves:
onsets are exact between samples at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ModalVoice:
    """The decaying exponentials of one struck thing, each as long as it is heard.

    The sum runs over them one by one in plain array arithmetic: the last bits of a matrix product would
    depend on the number of threads.
    """

    rates: np.ndarray  # (M,) complex 1/s
    weights: np.ndarray  # (M,) real, scaled so that the sound peaks at 1
    waves: tuple[tuple[np.ndarray, np.ndarray], ...]  # M of imaginary and real part (L_m,) float32
    length: int  # of the longest

    def render(self, delays: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """(E,) seconds from onset to the first sample, (E,) peak amplitudes -> (E, L) float32 waveforms."""
        coefficients = levels[:, None] * self.weights * np.exp(self.rates * delays[:, None])  # (E, M)
        real, imaginary = coefficients.real.astype(np.float32), coefficients.imag.astype(np.float32)
        sound = np.zeros((delays.size, self.length), np.float32)
        for m, (sine, cosine) in enumerate(self.waves):
            for event in range(delays.size):  # Im(c * wave)
                part = sound[event, : sine.size]
                part += real[event, m] * sine
                part += imaginary[event, m] * cosine
        return sound


def modal_voice(
    frequencies: Sequence[float],
    amplitudes: Sequence[float],
    decay_seconds: Sequence[float],
    attack_seconds: float,
    sample_rate: int,
    samples: int,
) -> ModalVoice:
    """The voice of modes in Hz, at most `samples` long. Modes above 0.45 of the sample rate are left out."""
    rates: list[complex] = []
    weights: list[float] = []
    for frequency, amplitude, decay in zip(frequencies, amplitudes, decay_seconds, strict=True):
        if frequency > 0.45 * sample_rate:
            continue
        slow = complex(-1 / decay, 2 * math.pi * frequency)
        rates += [slow, slow - 1 / attack_seconds]
        weights += [amplitude, -amplitude]
    rate, weight = np.array(rates), np.array(weights)
    fine = np.arange(0, 0.03, 1 / 192000)
    peak = np.abs((weight[:, None] * np.exp(rate[:, None] * fine)).imag.sum(0)).max()
    waves = []
    for each in rate:
        length = min(samples, math.ceil(-12 / each.real * sample_rate))  # down to -104 dB
        wave = np.exp(each * (np.arange(length) / sample_rate))
        waves.append((wave.imag.astype(np.float32), wave.real.astype(np.float32)))
    return ModalVoice(rate, weight / peak, tuple(waves), max(sine.size for sine, _ in waves))
