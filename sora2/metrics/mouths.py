"""Does the mouth open when the voice sounds? The opening from pixels, the envelope from sound, the lag between them.

Opening is the dark between the lips, below the middle of the face that `faces` finds. The envelope is the root of the
speech band's power. Both are correlated over a range of lags. The pair has a constant bias (a mouth opens before its
vowel is loudest), measured on the toybox's train split and stored beside this file; `python -m sora2.metrics.mouths`
measures it anew.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from sora2.metrics.faces import Face, find_face
from sora2.metrics.shots import shots_of
from sora2.metrics.values import Unmeasurable

Array = NDArray[np.float64]

_FILE = Path(__file__).with_name("mouth_lag.json")

#: The mouth in the face, in heights of it from its middle: rows from and to, half its width.
ROWS, HALF = (0.12, 0.44), 0.17
#: Darker than this share of the skin's brightness is inside of the mouth.
INSIDE = 0.6
FACE_SIDE = 96
#: Shots with fewer frames are left out.
SHORTEST_SHOT = 5
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


def mouth_opening(video: NDArray[np.uint8]) -> Array:
    """(T,) how open the mouth is, 0 to 1 in each shot; NaN in shots without a face.

    Raises:
        Unmeasurable: no shot shows a face, or no mouth moves.
    """
    opening = np.full(len(video), np.nan)
    for shot in shots_of(video):
        if shot.stop - shot.start < SHORTEST_SHOT:
            continue
        try:
            face = find_face(video[shot])
        except Unmeasurable:
            continue
        dark = darkness(video[shot], face)
        span = float(np.ptp(dark))
        opening[shot] = (dark - dark.min()) / span if span > 1.0 else np.nan
    if np.isfinite(opening).sum() < SHORTEST_SHOT:
        raise Unmeasurable("no face is seen whose mouth moves")
    return opening


def darkness(video: NDArray[np.uint8], face: Face) -> Array:
    """(T,) levels by which the mouth's place is darker than skin, mean over it."""
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)
    luma = np.stack([face.crop(frame, FACE_SIDE, 1.0) @ weights for frame in video])  # (T, 96, 96)
    top, bottom = (round((0.5 + r) * FACE_SIDE) for r in ROWS)
    left, right = round((0.5 - HALF) * FACE_SIDE), round((0.5 + HALF) * FACE_SIDE)
    mouth = luma[:, top:bottom, left:right]
    return np.maximum(0, INSIDE * float(np.median(mouth)) - mouth).mean(axis=(1, 2)).astype(np.float64)


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
