"""Does a story cut where it should, and does its sound cut with it?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.damage import LOST_PICTURE
from sora2.metrics.evidence import Evidence
from sora2.metrics.matching import f1_score, match
from sora2.metrics.registry import metric
from sora2.metrics.spectra import log_mel
from sora2.metrics.values import NotAsked, Unmeasurable

#: A cut that is seen further from where it should be than this is another one, seconds.
REACH = 0.25
#: Picture damage that makes cuts, or hides them.
OF_PICTURE = (
    *LOST_PICTURE,
    "picture seam",
    "flicker",
    "frames swapped",
    "frames dropped",
    "ghosting",
    "backwards",
)
#: Scenes that bring a background sound of their own: where one of them meets another scene the sound changes.
SOUNDING = ("street", "weather")
#: Seconds on each side of a moment whose sounds are compared, and the distance (natural logarithm of mel amplitude,
#: root mean square over bands) from which on the sound has changed.
SIDE_SECONDS, CHANGED = 0.16, 0.8


def _asked(evidence: Evidence) -> NDArray[np.float64]:
    if "cut_seconds" not in evidence.truth:
        raise NotAsked
    return np.array(evidence.truth["cut_seconds"], np.float64)


@metric(
    "cut_f1",
    unit="",
    direction="higher",
    needs=("video", "truth"),
    tolerance=0.8,
    answers_to=("cut shift",),
    also=OF_PICTURE,
    domain="story",
)
def cut_f1(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 of the cuts that are seen and those of the truth, within one frame."""
    asked, seen = _asked(evidence), evidence.cuts / evidence.clip.fps
    both = len(match(asked, seen, 1.01 / evidence.clip.fps)[0])
    counts = {"asked": len(asked), "seen": len(seen), "both": both}
    return f1_score(len(asked), len(seen), both, both), counts


@metric(
    "cut_lag",
    unit="ms",
    direction="zero",
    needs=("video", "truth"),
    tolerance=63,
    statistic="median",
    answers_to=("cut shift",),
    also=OF_PICTURE,
    domain="story",
)
def cut_lag(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Median lag of the cuts that are seen behind those of the truth (positive: the picture cuts late)."""
    asked, seen = _asked(evidence), evidence.cuts / evidence.clip.fps
    rows, columns = match(asked, seen, REACH)
    if not len(rows):
        raise Unmeasurable("no cut is seen near one that was asked for")
    return 1e3 * float(np.median(seen[columns] - asked[rows])), {"pairs": len(rows)}


@metric(
    "cut_sound_lag",
    unit="ms",
    direction="zero",
    needs=("video", "audio"),
    tolerance=63,
    statistic="median",
    domain="story",
)
def cut_sound_lag(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Median lag of changes of the sound behind the cuts that are seen (positive: the sound cuts late), where the sound
    changes near a cut. Stories whose scenes share one background are not asked."""
    truth = evidence.truth
    if truth is not None:
        scenes = {strand["scene"] for strand in truth.get("strands", ())}
        if len(scenes) < 2 or not scenes & set(SOUNDING):
            raise NotAsked
    seen = evidence.cuts / evidence.clip.fps
    if not len(seen):
        raise Unmeasurable("no cut is seen")
    clock, change = sound_change(evidence.sound, evidence.clip.sample_rate)
    lags = []
    for cut in seen:
        near = np.abs(clock - cut) <= REACH
        if near.any() and change[near].max() >= CHANGED:
            lags.append(float(clock[near][np.argmax(change[near])] - cut))
    if not lags:
        raise Unmeasurable("the sound does not change near any cut")
    return 1e3 * float(np.median(lags)), {"cuts": len(seen), "changes": len(lags)}


def sound_change(
    audio: NDArray[np.float64], sample_rate: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moments (N,) in seconds, and how much the sound after each differs from that before."""
    mel = log_mel(audio, sample_rate, bands=24, floor=1e-4).mean(axis=0)  # (frames, bands), every 16 ms
    side = round(SIDE_SECONDS / 0.016)
    at = np.arange(side, len(mel) - side)
    change = [
        np.sqrt(
            (
                (np.median(mel[k + 1 : k + 1 + side], axis=0) - np.median(mel[k - side : k], axis=0)) ** 2
            ).mean()
        )
        for k in at
    ]
    return at * round(0.016 * sample_rate) / sample_rate, np.array(change)
