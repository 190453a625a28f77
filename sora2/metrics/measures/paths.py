"""How far is each ball from where the truth has it? For clips whose first frames fix the rest: a re-encoded clip, a
continuation, a simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import metric
from sora2.metrics.tracking import Track
from sora2.metrics.values import Unmeasurable
from sora2.toybox import world_to_pixel

Array = NDArray[np.float64]

#: Error, in picture heights, of a ball that is not there, and the most that any frame counts.
LOST = 1.0
#: The same for velocities, picture heights per second.
LOST_SPEED = 8.0
#: Horizons (seconds) at which the error is also reported.
HORIZONS = (0.25, 0.5, 1.0, 2.0, 4.0)

DAMAGED = ("gravity", "restitution", "energy", "time warp", "object removed", "teleport", "passed through",
           "backwards", "frames frozen", "frames dropped", "frames swapped")  # fmt: skip


@metric(
    "position_error",
    unit="%",
    direction="lower",
    needs=("video", "paths"),
    tolerance=5,
    answers_to=DAMAGED,
    also=("mass", "black", "ghosting", "compression", "size drift", "wrong prompt"),
)
def position_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Distance of each ball from its true place, root mean square over frames and balls, in percent of the picture's
    height; a ball that is not there is a whole height away."""
    errors = [np.minimum(np.linalg.norm(p - q, axis=1), LOST) for p, q in _matched(evidence)]
    return _summary(np.stack([np.where(np.isfinite(e), e, LOST) for e in errors]), evidence.clip.fps, 100)


@metric("velocity_error", unit="%/s", direction="lower", needs=("video", "paths"), tolerance=40)
def velocity_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Error of each ball's velocity from frame to frame, root mean square, in percent of the picture's height per
    second; a ball that is not there is 800 % per second wrong."""
    fps = evidence.clip.fps
    errors = []
    for p, q in _matched(evidence):
        e = np.linalg.norm(np.diff(p, axis=0) - np.diff(q, axis=0), axis=1) * fps
        errors.append(np.where(np.isfinite(e), np.minimum(e, LOST_SPEED), LOST_SPEED))
    if not errors[0].size:
        raise Unmeasurable("one frame has no velocity")
    return _summary(np.stack(errors), fps, 100)


def _summary(errors: Array, fps: float, scale: float) -> tuple[float, dict[str, Any]]:
    """Root mean square of errors (balls, T), and up to each horizon."""
    seconds = (np.arange(errors.shape[1]) + 1) / fps
    over = {f"{h:g} s": float(scale * np.sqrt((errors[:, seconds <= h] ** 2).mean()))
            for h in HORIZONS if h <= seconds[-1] + 1e-9 and (seconds <= h).any()}  # fmt: skip
    return float(scale * np.sqrt((errors**2).mean())), {"over_horizon": over}


def _matched(evidence: Evidence) -> list[tuple[Array, Array]]:
    """(seen, true) paths (T, 2) in world units of every true ball, NaN where it is not seen.

    Balls of one colour are told apart by the assignment with the smallest error.

    Raises:
        Unmeasurable: the clip is at another frame rate than its truth, or shows no ball.
    """
    balls, clip = evidence.asked_balls(), evidence.clip
    truth_fps = evidence.truth.get("fps", clip.fps)
    if abs(clip.fps / truth_fps - 1) > 0.005:
        raise Unmeasurable(f"the truth is at {truth_fps:g} frames per second, the clip at {clip.fps:g}")
    if not evidence.tracks:
        raise Unmeasurable("no ball found")
    frames = min(len(clip.video), len(balls[0]["x"]))
    scale = evidence.pixels_per_unit
    true = [world_to_pixel(np.stack([b["x"], b["y"]], axis=1)[:frames], scale) / scale for b in balls]
    seen = [t.xy[:frames] / scale for t in evidence.tracks]
    price = np.array([[_distance(ball, track, p, q) for q, track in zip(seen, evidence.tracks, strict=True)]
                      for p, ball in zip(true, balls, strict=True)])  # fmt: skip
    rows, columns = linear_sum_assignment(price)
    partner = {int(r): int(c) for r, c in zip(rows, columns, strict=True) if price[r, c] < 10 * LOST}
    lost = np.full((frames, 2), np.nan)
    return [(seen[partner[i]] if i in partner else lost, p) for i, p in enumerate(true)]


def _distance(ball: dict[str, Any], track: Track, true: Array, seen: Array) -> float:
    """Mean distance with lost frames at their price; a ball of another colour is another ball."""
    if track.color != ball["color"]:
        return 100 * LOST
    error = np.linalg.norm(true - seen, axis=1)
    return float(np.where(np.isfinite(error), np.minimum(error, LOST), LOST).mean())
