"""Do things fall as they should?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sora2.metrics.damage import LOST_PICTURE, SHAKEN_PICTURE
from sora2.metrics.evidence import Evidence
from sora2.metrics.motion import noise_of
from sora2.metrics.registry import metric
from sora2.metrics.values import NotAsked, Unmeasurable

#: A gravity whose standard error is a larger share of it than this is not an estimate.
LARGEST_RELATIVE_ERROR = 0.2
#: Frames of one flight from which a gravity of its own is fitted; the frames next to a contact are left out.
SHORTEST_FLIGHT = 7


@dataclass(frozen=True)
class Flight:
    """Gravity of one free flight of one ball, by a parabola of its own."""

    ball: int
    seconds: float  # middle of the flight
    gravity: float  # world units per second^2
    error: float  # standard error of it


def flights(evidence: Evidence) -> list[Flight]:
    """Free flights long enough for a gravity of their own, in order of time."""
    found = []
    fps, scale = evidence.clip.fps, evidence.pixels_per_unit
    for ball, (track, (_, vertical)) in enumerate(zip(evidence.tracks, evidence.motion.pieces, strict=True)):
        sigma = noise_of(track.xy[:, 1])
        for piece in vertical:
            frames = np.arange(piece.start, piece.stop + 1)
            frames = frames[np.isfinite(track.xy[frames, 1])]
            if piece.support or len(frames) < SHORTEST_FLIGHT:
                continue
            t = (frames - frames.mean()) / fps
            design = np.stack([np.ones_like(t), t, 0.5 * t**2], axis=1)
            covariance = np.linalg.inv(design.T @ design)
            fit = covariance @ (design.T @ track.xy[frames, 1])
            error = sigma * np.sqrt(covariance[2, 2])
            found.append(Flight(ball, float(frames.mean() / fps), fit[2] / scale, float(error) / scale))
    return sorted(found, key=lambda f: f.seconds)


@metric(
    "gravity_error",
    unit="%",
    direction="lower",
    needs=("video", "truth"),
    tolerance=10,
    statistic="median",
    answers_to=("gravity", "time warp"),
    also=(*LOST_PICTURE, *SHAKEN_PICTURE, "wrong prompt", "blur"),
)
def gravity_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Error of gravity, fitted to the free flights of all balls together, against the commanded one."""
    evidence.asked_flights()
    commanded = evidence.truth.get("gravity_value")
    if commanded is None or commanded <= 0:
        raise NotAsked
    evidence.moving_tracks()
    motion = evidence.motion
    if not motion.flight_frames or not np.isfinite(motion.gravity):
        raise Unmeasurable("no ball flies freely for long enough")
    if motion.gravity_error > LARGEST_RELATIVE_ERROR * abs(motion.gravity):
        raise Unmeasurable("too few frames of free flight for an estimate of gravity")
    measured = motion.gravity / evidence.pixels_per_unit
    details = {"measured": measured, "commanded": float(commanded)}
    return 100 * abs(measured / commanded - 1), details


@metric(
    "flight_gravity_error",
    unit="%",
    direction="lower",
    needs=("video", "truth"),
    tolerance=15,
    statistic="median",
)
def flight_gravity_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Error of gravity against the commanded one in single flights of at least 7 frames, median over flights that
    determine it to 20 %."""
    evidence.asked_flights()
    commanded = evidence.truth.get("gravity_value")
    if commanded is None or commanded <= 0:
        raise NotAsked
    evidence.moving_tracks()
    clear = [f for f in flights(evidence) if f.error < LARGEST_RELATIVE_ERROR * abs(f.gravity)]
    if not clear:
        raise Unmeasurable("no single flight is long enough for a gravity of its own")
    errors = [100 * abs(f.gravity / commanded - 1) for f in clear]
    return float(np.median(errors)), {
        "flights": [
            {"ball": f.ball, "seconds": f.seconds, "gravity": f.gravity, "error": f.error} for f in clear
        ]
    }


@metric("gravity_ratio", unit="", direction="lower", needs=("video",), tolerance=0.3)
def gravity_ratio(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Disagreement about gravity between flights, with neither truth nor scale: |log(g_i / g_j)| with g = 2 h / t^2 of
    each flight's parabola, mean over pairs of flights weighted by their precision.

    The form that needs no unit of length, t_1^2 / t_2^2 = h_1 / h_2, is that ratio at 1.
    """
    evidence.unless_told(Evidence.asked_flights)
    evidence.moving_tracks()
    clear = [f for f in flights(evidence) if f.error < LARGEST_RELATIVE_ERROR * abs(f.gravity)]
    if len(clear) < 2:
        raise Unmeasurable(f"{len(clear)} flights determine a gravity of their own, 2 are needed")
    total = weight = 0.0
    for i, a in enumerate(clear):
        for b in clear[:i]:
            precision = 1 / ((a.error / a.gravity) ** 2 + (b.error / b.gravity) ** 2 + 1e-4)
            ratio = a.gravity / b.gravity
            disagreement = abs(np.log(ratio)) if ratio > 0 else np.log(10.0)  # upwards and downwards: tenfold
            total += precision * min(disagreement, np.log(10.0))
            weight += precision
    return total / weight, {"flights": len(clear)}
