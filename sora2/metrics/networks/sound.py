"""What the networks of sound are given: one channel at 16 kHz."""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from sora2.metrics.values import Unmeasurable

SAMPLE_RATE = 16000
#: Sound whose peak is below this (-60 dBFS) says nothing.
QUIET = 1e-3


def mono(audio: NDArray[np.float64], sample_rate: int) -> NDArray[np.float32]:
    """(channels, S) at any rate -> (S',) at 16 kHz, the mean of the channels.

    Raises:
        Unmeasurable: it is silent.
    """
    sound = np.atleast_2d(audio).mean(axis=0)
    if np.abs(sound).max(initial=0.0) < QUIET:
        raise Unmeasurable("the sound is silent")
    shared = gcd(sample_rate, SAMPLE_RATE)
    if sample_rate != SAMPLE_RATE:
        sound = resample_poly(sound, SAMPLE_RATE // shared, sample_rate // shared)
    return sound.astype(np.float32)
