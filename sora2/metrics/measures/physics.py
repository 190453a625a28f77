"""Do things fall and bounce as they should?"""

from __future__ import annotations

from typing import Any

import numpy as np

from sora2.metrics.evidence import Evidence
from sora2.metrics.motion import Contact
from sora2.metrics.registry import Unmeasurable, metric
from sora2.metrics.tracking import Track
from sora2.toybox.vocabulary import COLORS

#: A gravity whose standard error is a larger share of it than this is not an estimate.
LARGEST_RELATIVE_ERROR = 0.2
#: Slower impacts (world units per second, before) give no restitution: a pixel of noise would decide it.
SLOWEST_IMPACT = 0.6
#: Frames of undisturbed motion that a velocity must rest on, before and after.
CLEAR_FRAMES = 3


@metric(
    "gravity_error", unit="%", direction="lower", needs=("video", "truth"), tolerance=10, statistic="median"
)
def gravity_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Error of gravity, fitted to the free flights of all balls, against the commanded one."""
    evidence.moving_tracks()
    motion = evidence.motion
    if not motion.flight_frames or not np.isfinite(motion.gravity):
        raise Unmeasurable("no ball flies freely for long enough")
    if motion.gravity_error > LARGEST_RELATIVE_ERROR * abs(motion.gravity):
        raise Unmeasurable("too few frames of free flight for an estimate of gravity")
    measured = motion.gravity / evidence.pixels_per_unit
    commanded = float(evidence.truth["gravity_value"])
    return 100 * abs(measured / commanded - 1), {"measured": measured, "commanded": commanded}


@metric(
    "restitution_error",
    unit="",
    direction="lower",
    needs=("video", "truth"),
    tolerance=0.1,
    statistic="median",
)
def restitution_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Error of restitution (speed after / before wall and floor impacts) against the ball's, median over impacts."""
    tracks = evidence.moving_tracks()
    commanded = {ball["color"]: float(ball["restitution"]) for ball in evidence.truth["balls"]}
    pairs = []
    for contact in evidence.contacts():
        color = evidence.tracks[contact.ball].color
        if (
            contact.frames < CLEAR_FRAMES
            or color not in commanded
            or _near_another_ball(evidence.tracks, contact, evidence.clip.fps)
        ):
            continue
        for before, after in zip(contact.before, contact.after, strict=True):
            fast = abs(before) >= SLOWEST_IMPACT * evidence.pixels_per_unit
            if fast and before * after <= 0:
                pairs.append((commanded[color], -after / before))
    if not pairs:
        raise Unmeasurable(f"no clear impact on a wall or the floor by {len(tracks)} moving balls")
    expected, measured = np.array(pairs).T
    return float(np.median(np.abs(measured - expected))), {
        "measured": measured.round(4).tolist(),
        "commanded": expected.tolist(),
    }


@metric("permanence", unit="", direction="higher", needs=("video", "truth"), tolerance=0.95)
def permanence(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Share of frames in which a commanded ball is there, mean over commanded balls, less balls not asked for."""
    wanted = [ball["color"] for ball in evidence.truth["balls"]]
    presence = {name: [t.presence for t in evidence.tracks if t.color == name] for name in COLORS}
    total = 0.0
    for color in wanted:
        if presence[color]:
            total += presence[color].pop(0)
    extra = sum(sum(p) for p in presence.values())
    return max(0.0, (total - extra) / len(wanted)), {"extra": extra}


def _near_another_ball(tracks: list[Track], contact: Contact, fps: float) -> bool:
    """Whether another ball is close enough to have caused the contact."""
    own = tracks[contact.ball]
    frames = [f for f in {int(contact.seconds * fps), int(contact.seconds * fps) + 1} if f < len(own.xy)]
    for i, other in enumerate(tracks):
        if i == contact.ball:
            continue
        gap = np.linalg.norm(other.xy[frames] - own.xy[frames], axis=1)
        if np.any(gap < 1.35 * (own.radius + other.radius) + 1.0):
            return True
    return False
