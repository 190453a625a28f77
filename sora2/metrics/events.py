"""Impacts seen and impacts heard, made comparable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.detector_lag import load_detector_lag
from sora2.metrics.evidence import Evidence
from sora2.metrics.matching import Lag, estimate_lag, f1_score, match
from sora2.metrics.values import Unmeasurable

Array = NDArray[np.float64]

#: Events closer than this are one to the eye and to the ear.
MERGE_SECONDS = 0.030
#: Change of velocity, world units per second, of an impact that must be heard, and of one that may be.
LOUD_SPEED, FAINT_SPEED = 0.9, 0.25
#: Onset strength, dB, of a sound that must have a visible cause; weaker ones may have.
CLEAR_RISE = 6.0
#: Where nothing in a clip reaches these (rain covers all, or a ball barely hops), this share of its strongest counts.
PROMINENT = 0.6


@dataclass(frozen=True)
class Events:
    """Moments in order, with a weight, and whether each must have a counterpart in the other stream."""

    seconds: Array  # (E,)
    weight: Array  # (E,) positive
    certain: NDArray[np.bool_]  # (E,)

    def __len__(self) -> int:
        return len(self.seconds)

    def shifted(self, seconds: float) -> Events:
        return Events(self.seconds + seconds, self.weight, self.certain)


def seen_events(evidence: Evidence) -> Events:
    """Contacts of all balls, world units per second as weight.

    Raises:
        Unmeasurable: there is no ball, none moves, or none touches anything.
    """
    contacts = evidence.contacts(FAINT_SPEED)
    if not contacts:
        raise Unmeasurable("no impact is seen")
    seconds = np.array([c.seconds for c in contacts])
    speed = np.array([c.strength for c in contacts]) / evidence.pixels_per_unit
    seconds, speed = merge_events(seconds, speed)
    return Events(seconds, speed, speed >= min(LOUD_SPEED, PROMINENT * float(speed.max())))


def heard_events(evidence: Evidence) -> Events:
    """Onsets, corrected by the calibrated lag of this pair of detectors; the rise in dB as weight.

    Raises:
        Unmeasurable: nothing is heard.
    """
    onsets = evidence.onsets
    if not len(onsets):
        raise Unmeasurable("no sound begins")
    seconds, rise = merge_events(onsets.seconds, onsets.strength)
    seconds = seconds - load_detector_lag().lag_seconds
    certain = rise >= min(CLEAR_RISE, PROMINENT * float(rise.max()))
    if evidence.offers("video"):  # a bounce shows only when there are frames on both sides of it
        frames, fps = len(evidence.clip.video), evidence.clip.fps
        certain &= (seconds >= 1.5 / fps) & (seconds <= (frames - 2.5) / fps)
    return Events(seconds, rise, certain)


def merge_events(seconds: Array, weight: Array) -> tuple[Array, Array]:
    """Events closer than `MERGE_SECONDS` to the strongest of their neighbourhood join it, at its moment."""
    order = np.argsort(-weight)
    kept: list[int] = []
    for i in order:
        if all(abs(seconds[i] - seconds[k]) >= MERGE_SECONDS for k in kept):
            kept.append(int(i))
    kept.sort(key=lambda i: seconds[i])
    return seconds[kept], weight[kept]


def events_f1(seen: Events, heard: Events, tolerance: float) -> tuple[float, dict[str, int]]:
    """F1 of events within `tolerance` seconds, one to one.

    Recall is over impacts that must be heard, precision over sounds that must have a cause; the fainter ones of both
    streams may serve as partners but are not asked for, so that no score hangs on where a threshold lies.
    """
    counts = event_counts(seen, heard, tolerance)
    score = f1_score(counts["seen"], counts["heard"], counts["seen_matched"], counts["heard_matched"])
    return score, counts


def event_counts(seen: Events, heard: Events, tolerance: float) -> dict[str, int]:
    """Impacts that must be heard and sounds that must have a cause, and how many of each have a partner within
    `tolerance` seconds, one to one."""
    rows, columns = match(seen.seconds, heard.seconds, tolerance)
    return {
        "seen": int(seen.certain.sum()),
        "heard": int(heard.certain.sum()),
        "seen_matched": int(seen.certain[rows].sum()),
        "heard_matched": int(heard.certain[columns].sum()),
    }


def aligned(evidence: Evidence) -> tuple[Events, Events, float]:
    """Impacts seen, and heard once the clip's own lag (returned, seconds) is taken out."""
    lag = lag_of(evidence).seconds
    return seen_events(evidence), heard_events(evidence).shifted(-lag), lag


def chance_f1(seen: Events, heard: Events, tolerance: float, seconds: float) -> float:
    """F1 that the same two lists reach by chance: mean over turns of the sound around the clip's `seconds`.

    Turns by less than 150 ms are left out. Dense events match anything; this says how much.
    """
    turns = np.linspace(0, seconds, 25)[1:-1]
    turns = turns[(turns >= 0.15) & (turns <= seconds - 0.15)]
    if not len(turns):
        raise Unmeasurable("the clip is too short to tell agreement from chance")
    scores = []
    for turn in turns:
        moved = (heard.seconds + turn) % seconds
        order = np.argsort(moved)
        turned = Events(moved[order], heard.weight[order], heard.certain[order])
        scores.append(events_f1(seen, turned, tolerance)[0])
    return float(np.mean(scores))


def lag_of(evidence: Evidence) -> Lag:
    """Signed lag of sound behind picture.

    Raises:
        Unmeasurable: no impact is seen, nothing is heard, or the two are nowhere near each other.
    """
    seen, heard = seen_events(evidence), heard_events(evidence)
    lag = estimate_lag(seen.seconds, heard.seconds, seen_weight=seen.weight, heard_weight=heard.weight)
    if lag is None:
        raise Unmeasurable("no sound lies near an impact")
    return lag
