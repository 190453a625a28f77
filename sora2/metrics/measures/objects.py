"""Do things stay what and where they are: permanence, continuity, solidity, shape?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.damage import LOST_PICTURE, SHAKEN_PICTURE
from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import metric
from sora2.metrics.tracking import Track
from sora2.metrics.values import Unmeasurable
from sora2.toybox.vocabulary import COLORS

Array = NDArray[np.float64]

#: Frames that a ball may hide behind another and still be followed through.
LONGEST_HIDING = 6
#: Two balls closer than this share of the sum of their radii cover each other, or nearly.
CLOSE = 1.25


@metric(
    "permanence",
    unit="",
    direction="higher",
    needs=("video", "truth"),
    tolerance=0.95,
    answers_to=("object removed", "object added", "wrong prompt"),
    also=("black",),
)
def permanence(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 of the presence of balls, frame by frame: commanded balls that are there, against those missing and those
    not asked for. Frames in which the truth hides a ball are not asked."""
    balls = evidence.asked_balls()
    frames = len(evidence.clip.video)
    seen = {name: [t.seen for t in evidence.tracks if t.color == name] for name in COLORS}
    hit = missed = 0
    for ball in balls:
        visible = np.ones(frames, np.bool_)
        if len(ball.get("visible", ())) == frames:
            visible = np.asarray(ball["visible"], np.bool_)
        own = seen[ball["color"]].pop(0) if seen.get(ball["color"]) else np.zeros(frames, np.bool_)
        hit += int((own & visible).sum())
        missed += int((~own & visible).sum())
    extra = int(sum(s.sum() for group in seen.values() for s in group))
    return 2 * hit / max(1, 2 * hit + missed + extra), {"hit": hit, "missed": missed, "extra": extra}


@metric(
    "continuity",
    unit="",
    direction="higher",
    needs=("video",),
    tolerance=0.99,
    answers_to=("teleport",),
    also=(*LOST_PICTURE, *SHAKEN_PICTURE),
)
def continuity(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Share of steps from frame to frame that balls make by moving, not by jumping.

    A jump is a step longer than those before and after it together, by more than the ball's radius: no contact does
    that, for the speed after a contact lasts.
    """
    evidence.unless_told(Evidence.asked_balls)
    evidence.moving_tracks()
    jumps = steps = 0
    for track in evidence.tracks:
        length = np.linalg.norm(np.diff(track.xy, axis=0), axis=1)  # (T - 1,) NaN beside unseen frames
        if len(length) < 3:
            continue
        around = np.nan_to_num(length[:-2]) + np.nan_to_num(length[2:])
        jumps += int(np.nansum(length[1:-1] > around + track.radius))
        steps += int(np.isfinite(length[1:-1]).sum())
    if not steps:
        raise Unmeasurable("no ball is seen in four frames on end")
    return 1 - jumps / steps, {"jumps": jumps}


@metric(
    "interpenetration",
    unit="%",
    direction="lower",
    needs=("video", "truth"),
    tolerance=20,
    answers_to=("passed through",),
    also=("black", "object removed", "object added", "teleport", "size drift", "wrong prompt"),
)
def interpenetration(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Depth to which two balls enter each other, as a share of the sum of their radii: the deepest moment.

    A ball hidden behind another for up to 6 frames is taken to move on, so that hiding does not help.
    """
    evidence.asked_balls(least=2)
    if len(evidence.tracks) < 2:
        raise Unmeasurable(f"{len(evidence.tracks)} balls found, two are needed")
    deepest = 0.0
    for a, b, gap in _pairs(evidence.tracks):
        depth = 1 - gap / (a.radius + b.radius)
        if np.isfinite(depth).any():
            deepest = max(deepest, float(np.nanmax(depth)))
    return 100 * deepest, {}


@metric(
    "shape_drift",
    unit="%",
    direction="lower",
    needs=("video",),
    tolerance=15,
    answers_to=("size drift",),
    also=(*LOST_PICTURE, *SHAKEN_PICTURE, "blur", "picture noise", "object added"),
)
def shape_drift(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Change of a ball's radius over the clip (95th less 5th percentile, of the median), largest over balls; frames in
    which it nearly touches another ball or leaves the picture do not count."""
    evidence.unless_told(Evidence.asked_shapes)
    tracks = evidence.moving_tracks()
    height, width = evidence.clip.video.shape[1:3]
    worst = -1.0
    for track in tracks:
        clear = np.isfinite(track.radii)
        for other in evidence.tracks:
            if other is not track:
                gap = np.linalg.norm(track.xy - other.xy, axis=1)
                clear &= ~(gap < CLOSE * (track.radius + other.radius) + 1.5)
        x, y = track.xy.T
        with np.errstate(invalid="ignore"):
            clear &= (x > track.radius) & (x < width - 1 - track.radius)
            clear &= (y > track.radius) & (y < height - 1 - track.radius)
        if clear.sum() >= 5:
            low, middle, high = np.quantile(track.radii[clear], (0.05, 0.5, 0.95))
            worst = max(worst, float((high - low) / middle))
    if worst < 0:
        raise Unmeasurable("no ball is seen whole and alone in 5 frames")
    return 100 * worst, {}


def _pairs(tracks: list[Track]) -> Iterator[tuple[Track, Track, Array]]:
    """Every two tracks with the distance of their centres (T,), short gaps bridged."""
    paths = [bridged(t.xy) for t in tracks]
    for i, a in enumerate(tracks):
        for j in range(i):
            yield a, tracks[j], np.linalg.norm(paths[i] - paths[j], axis=1)


def bridged(xy: Array, longest: int = LONGEST_HIDING) -> Array:
    """A path (T, 2) with gaps of up to `longest` frames filled by straight motion."""
    result = xy.copy()
    seen = np.flatnonzero(np.isfinite(xy).all(axis=1))
    for first, last in pairwise(seen):
        if 1 < last - first <= longest + 1:
            share = (np.arange(first + 1, last) - first)[:, None] / (last - first)
            result[first + 1 : last] = xy[first] + share * (xy[last] - xy[first])
    return result
