"""Does the mouth open when the voice sounds? The lag between the opening from pixels and the envelope of the sound.

The envelope is the root of the speech band's power. It is correlated with the opening, see `mouth`, over a range of
lags. The pair has a constant bias (a mouth opens before its vowel is loudest), measured on the toybox's train split and
stored beside this file; `python -m sora2.metrics.mouth_lag` measures it anew.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from sora2.metrics.mouth import SHORTEST_SHOT, mouth_opening
from sora2.metrics.values import Unmeasurable

Array = NDArray[np.float64]

_FILE = Path(__file__).with_name("mouth_lag.json")

#: Hz of the speech band; rate of the envelope and half the length it is averaged over.
BAND, ENVELOPE_RATE, SMOOTH_SECONDS = (300.0, 3000.0), 200, 0.03
#: Lags that are looked at, seconds: so far, and so finely.
REACH, STEP = 0.6, 0.005
#: A smaller lag wins near ties by this share.
NEARER = 0.1
#: Below this correlation mouth and voice have nothing to do with each other.
LEAST_AGREEMENT = 0.3


@dataclass(frozen=True)
class MouthLag:
    """The bias of the two detectors, and on what it was measured."""

    lag_seconds: float
    jitter_seconds: float
    clips: int
    source: str


@functools.cache
def load_mouth_lag() -> MouthLag:
    """The stored measurement."""
    return MouthLag(**json.loads(_FILE.read_text()))


def speech_envelope(audio: Array, sample_rate: int) -> Array:
    """(channels, S) -> (N,) root of the power in the speech band, `ENVELOPE_RATE` values a second from 0 on.

    Raises:
        Unmeasurable: there is none.
    """
    top = min(BAND[1], 0.45 * sample_rate)
    band = butter(2, (BAND[0], top), "bandpass", fs=sample_rate, output="sos")
    power = sosfiltfilt(band, audio.mean(axis=0)) ** 2
    total = np.concatenate([[0.0], np.cumsum(power)])
    at = (np.arange(int(len(power) / sample_rate * ENVELOPE_RATE)) / ENVELOPE_RATE * sample_rate).astype(int)
    half = round(SMOOTH_SECONDS * sample_rate)
    first, last = np.maximum(at - half, 0), np.minimum(at + half, len(power))
    envelope = np.sqrt((total[last] - total[first]) / (last - first))
    if envelope.max(initial=0.0) < 1e-4:
        raise Unmeasurable("there is no sound in the speech band")
    return envelope


def agreement(opening: Array, fps: float, envelope: Array) -> tuple[Array, Array]:
    """Correlation (L,) of the mouth with the sound that comes `lag` (L,) seconds later, the bias taken out."""
    seen = np.flatnonzero(np.isfinite(opening))
    seconds, mouth = seen / fps, opening[seen]
    clock = np.arange(len(envelope)) / ENVELOPE_RATE
    lags = np.arange(-round(REACH / STEP), round(REACH / STEP) + 1) * STEP
    found = np.zeros(len(lags))
    for k, lag in enumerate(lags + load_mouth_lag().lag_seconds):
        inside = (seconds + lag >= 0) & (seconds + lag <= clock[-1])
        if inside.sum() >= max(SHORTEST_SHOT, len(seconds) // 3):
            heard = np.interp(seconds[inside] + lag, clock, envelope)
            if np.std(heard) > 1e-12 and np.std(mouth[inside]) > 1e-12:
                found[k] = np.corrcoef(heard, mouth[inside])[0, 1]
    return lags, found


def lag_seconds(lags: Array, found: Array) -> tuple[float, float]:
    """The lag of the highest correlation, and that correlation.

    Raises:
        Unmeasurable: they agree at no lag.
    """
    score = found * (1 - NEARER * np.abs(lags) / REACH)
    k = int(np.argmax(score))
    if found[k] < LEAST_AGREEMENT:
        raise Unmeasurable("the mouth does not move with the voice at any lag")
    lag = float(lags[k])
    if 0 < k < len(lags) - 1:  # the top of the parabola through three lags
        a, b, c = score[k - 1 : k + 2]
        bend = a - 2 * b + c
        lag += 0.5 * STEP * float((a - c) / bend) if bend < 0 else 0.0
    return lag, float(found[k])


def measure_mouth_lag(clips: int = 30, seed: int = 0) -> MouthLag:
    """Median lag on train clips of `talk`, with the stored bias put back."""
    from sora2.toybox import Toybox, ToyboxConfig

    box = Toybox(ToyboxConfig(seed=seed, split="train", scenes=("talk",)))
    stored = load_mouth_lag().lag_seconds if _FILE.exists() else 0.0
    found = []
    for index in range(clips):
        clip = box.clip(index)
        try:
            opening = mouth_opening(clip.video.numpy())
            envelope = speech_envelope(clip.audio.numpy().astype(np.float64), clip.sample_rate)
            found.append(lag_seconds(*agreement(opening, clip.fps, envelope))[0] + stored)
        except Unmeasurable:
            continue
    centre = float(np.median(found))
    jitter = 1.4826 * float(np.median(np.abs(np.array(found) - centre)))
    return MouthLag(
        round(centre, 6), round(jitter, 6), len(found), f"toybox train split, seed {seed}, scene talk, 16 fps"
    )


if __name__ == "__main__":
    measured = measure_mouth_lag()
    _FILE.write_text(json.dumps(asdict(measured), indent=2) + "\n")
    print(_FILE.read_text(), end="")
