"""Does an impact sound as it looks: as loud as it is fast, on the side where it happens?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sora2.metrics.damage import BROKEN_LAW
from sora2.metrics.detector_lag import load_detector_lag
from sora2.metrics.events import FAINT_SPEED, MERGE_SECONDS, lag_of
from sora2.metrics.evidence import Evidence
from sora2.metrics.matching import match
from sora2.metrics.measures.collisions import near_another_ball
from sora2.metrics.measures.synchrony import UNMATCHED
from sora2.metrics.registry import metric
from sora2.metrics.values import Unmeasurable

Array = NDArray[np.float64]

#: Sound after an onset that is weighed, and before it that is taken away.
WINDOW_SECONDS = 0.025
#: An onset belongs to a contact at most this far away once the clip's own lag is taken out.
LINK_SECONDS = 0.040
#: Impacts that a correlation needs, and the range of speed (as a ratio) and of place (of the width) they must span.
FEWEST, SPEED_RANGE, PLACE_RANGE = 4, 1.5, 0.15


@dataclass(frozen=True)
class Heard:
    """Impacts on walls and the floor that are both seen and heard, alone within 30 ms."""

    speed: Array  # (E,) closing speed, world units per second
    place: Array  # (E,) pan of the place in the picture, -1 left to 1 right
    power: Array  # (channels, E) mean power that the impact adds


def heard_impacts(evidence: Evidence) -> Heard:
    """Contacts with their sounds.

    Raises:
        NotAsked: the truth is not about balls.
        Unmeasurable: nothing is seen, nothing is heard, or they have nothing to do with each other.
    """
    evidence.unless_told(Evidence.asked_balls)
    contacts = [c for c in evidence.contacts(FAINT_SPEED) if np.isfinite(c.position[0])]
    lag = lag_of(evidence).seconds + load_detector_lag().lag_seconds
    seconds = np.array([c.seconds for c in contacts])
    alone = np.array([np.sum(np.abs(seconds - s) < MERGE_SECONDS) == 1 for s in seconds], np.bool_)
    meets = [near_another_ball(evidence.tracks, c, evidence.clip.fps) for c in contacts]
    alone &= ~np.array(meets, np.bool_)
    rows, columns = match(seconds, evidence.onsets.seconds - lag, LINK_SECONDS)
    rows, columns = rows[alone[rows]], columns[alone[rows]]
    width = evidence.clip.video.shape[2]
    place = np.array([2 * (contacts[i].position[0] + 0.5) / width - 1 for i in rows])
    speed = np.array([_closing(contacts[i].before) for i in rows]) / evidence.pixels_per_unit
    power = (
        np.stack([_added(evidence, evidence.onsets.seconds[k]) for k in columns], axis=1)
        if len(rows)
        else None
    )
    if power is None:
        raise Unmeasurable("no single impact is both seen and heard")
    return Heard(speed, place, power)


@metric(
    "loudness_correlation",
    unit="",
    direction="higher",
    needs=("video", "audio"),
    tolerance=0.5,
    answers_to=("loudness scrambled", "wrong audio"),
    also=(*UNMATCHED, *BROKEN_LAW, "loudness flattened", "stereo narrowed", "dc offset", "hum", "teleport"),
)
def loudness_correlation(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Rank correlation of the speed and the loudness of impacts."""
    heard = heard_impacts(evidence)
    enough = len(heard.speed) >= FEWEST and heard.speed.max() >= SPEED_RANGE * heard.speed.min()
    if not enough:
        raise Unmeasurable(
            f"{len(heard.speed)} single impacts of too similar speed to compare their loudness"
        )
    return correlation(rankdata(heard.speed), rankdata(heard.power.sum(axis=0))), {
        "impacts": len(heard.speed)
    }


@metric(
    "pan_correlation",
    unit="",
    direction="higher",
    needs=("video", "audio"),
    tolerance=0.7,
    answers_to=("channels swapped", "wrong audio"),
    also=(*UNMATCHED, *BROKEN_LAW, "loudness flattened", "stereo narrowed", "dc offset", "hum", "teleport"),
)
def pan_correlation(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Correlation of an impact's place in the picture, left to right, with its place in the stereo sound; 0 for mono.

    The sound's place is that of equal-power panning, arctan(right / left).
    """
    heard, place = _placed(evidence)
    return correlation(heard.place, place), {"impacts": len(place)}


@metric(
    "pan_error",
    unit="",
    direction="lower",
    needs=("video", "audio"),
    tolerance=0.3,
    answers_to=("channels swapped", "wrong audio"),
    also=(*UNMATCHED, *BROKEN_LAW, "loudness flattened", "stereo narrowed", "dc offset", "hum", "teleport"),
)
def pan_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Distance of an impact's place in the stereo sound from that in the picture, mean over impacts; the picture is 2
    wide."""
    heard, place = _placed(evidence)
    details = {"seen": heard.place.round(3).tolist(), "heard": place.round(3).tolist()}
    return float(np.abs(place - heard.place).mean()), details


def correlation(x: Array, y: Array) -> float:
    """Pearson's, 0 where either does not vary."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 1e-9 * len(x) else 0.0


def _placed(evidence: Evidence) -> tuple[Heard, Array]:
    """Impacts, and where each is heard, -1 to 1."""
    heard = heard_impacts(evidence)
    if len(heard.place) < FEWEST or np.ptp(heard.place) < PLACE_RANGE:
        raise Unmeasurable(f"{len(heard.place)} single impacts too close together to tell left from right")
    if len(heard.power) == 1:
        return heard, np.zeros(len(heard.place))
    amplitude = np.sqrt(heard.power[:2])
    return heard, np.arctan2(amplitude[1], amplitude[0]) * 4 / np.pi - 1


def _closing(before: tuple[float, float]) -> float:
    """Speed before a contact along the axes that it changes."""
    return float(np.sqrt(np.nansum(np.array(before) ** 2)))


def _added(evidence: Evidence, onset: float) -> Array:
    """(channels,) mean power just after an onset less that just before it."""
    rate, sound = evidence.clip.sample_rate, evidence.sound
    start, length = round(onset * rate), round(WINDOW_SECONDS * rate)
    margin = round(0.001 * rate)
    after, before = (
        sound[:, start : start + length],
        sound[:, max(0, start - margin - length) : max(0, start - margin)],
    )
    power = (after**2).mean(axis=1)
    if before.shape[1]:
        power = power - (before**2).mean(axis=1)
    return np.maximum(power, 1e-10)
