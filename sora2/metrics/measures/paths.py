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
from sora2.metrics.values import NotAsked, Unmeasurable
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
    """Distance of each ball from its true place in the picture, root mean square over frames and balls, in percent of
    the picture's height; a ball that is not there is a whole height away. Frames in which the truth hides a ball are
    not asked."""
    errors = [_errors(seen, true, LOST) for seen, true in _matched(evidence)]
    return _summary(np.stack(errors), evidence.clip.fps, 100)


@metric("velocity_error", unit="%/s", direction="lower", needs=("video", "paths"), tolerance=40)
def velocity_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Error of each ball's velocity from frame to frame, root mean square, in percent of the picture's height per
    second; a ball that is not there is 800 % per second wrong."""
    fps = evidence.clip.fps
    errors = [
        _errors(np.diff(seen, axis=0) * fps, np.diff(true, axis=0) * fps, LOST_SPEED)
        for seen, true in _matched(evidence)
    ]
    if not errors[0].size:
        raise Unmeasurable("one frame has no velocity")
    return _summary(np.stack(errors), fps, 100)


def _summary(errors: Array, fps: float, scale: float) -> tuple[float, dict[str, Any]]:
    """Root mean square of errors (balls, T), NaN where there is nothing to ask, and up to each horizon."""
    asked = np.isfinite(errors)
    if not asked.any():
        raise NotAsked
    seconds = (np.arange(errors.shape[1]) + 1) / fps
    over = {}
    for horizon in HORIZONS:
        within = asked & (seconds <= horizon)
        if horizon <= seconds[-1] + 1e-9 and within.any():
            over[f"{horizon:g} s"] = float(scale * np.sqrt((errors[within] ** 2).mean()))
    return float(scale * np.sqrt((errors[asked] ** 2).mean())), {"over_horizon": over}


def _matched(evidence: Evidence) -> list[tuple[Array, Array]]:
    """(seen, true) paths (T, 2) in picture heights of every true ball, NaN where it is not seen and where it is hidden.

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
    true = [_shown(evidence, ball, frames) / scale for ball in balls]
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
    errors = _errors(seen, true, LOST)
    return float(np.nansum(errors) / max(1, np.isfinite(errors).sum()))


def _errors(seen: Array, true: Array, lost: float) -> Array:
    """(T,) distances, `lost` at most and where nothing is seen, NaN where the truth has nothing."""
    error = np.linalg.norm(seen - true, axis=1)
    error = np.where(np.isfinite(error), np.minimum(error, lost), lost)
    return np.where(np.isfinite(true).all(axis=1), error, np.nan)


def _shown(evidence: Evidence, ball: dict[str, Any], frames: int) -> Array:
    """(T, 2) pixels of a true ball under the truth's camera, NaN where it is hidden."""
    height, width = evidence.clip.video.shape[1:3]
    place = np.stack([ball["x"], ball["y"]], axis=1)[:frames]
    camera = evidence.truth.get("camera", {})
    if "zoom" in camera:
        middle = np.stack([camera["x"], camera["y"]], axis=1)[:frames]
        zoom = np.array(camera["zoom"])[:frames, None]
        shown = (place - middle) * zoom * evidence.pixels_per_unit + (np.array([width, height]) - 1) / 2
    else:
        shown = world_to_pixel(place, evidence.pixels_per_unit)
    visible = ball.get("visible", ())
    if len(visible):
        shown[~np.asarray(visible[:frames], np.bool_)] = np.nan
    return shown
