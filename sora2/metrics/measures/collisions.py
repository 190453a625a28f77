"""Do things bounce as they should: restitution, energy, momentum?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.damage import LOST_PICTURE, SHAKEN_PICTURE
from sora2.metrics.evidence import Evidence
from sora2.metrics.motion import Contact, Piece
from sora2.metrics.registry import metric
from sora2.metrics.tracking import Track
from sora2.metrics.values import NotAsked, Unmeasurable

#: Slower impacts (world units per second, before) give no restitution: a pixel of noise would decide it.
SLOWEST_IMPACT = 0.6
#: Frames of undisturbed motion that a velocity must rest on, before and after.
CLEAR_FRAMES = 3
#: Contacts of two balls within this many frames are one collision.
TOGETHER_FRAMES = 1.0
#: A collision this close to a side wall (world units, besides the radius) may be one with the wall as well.
WALL_MARGIN = 0.05


@metric(
    "restitution_error",
    unit="",
    direction="lower",
    needs=("video", "truth"),
    tolerance=0.1,
    statistic="median",
    answers_to=("restitution", "energy"),
    also=(*LOST_PICTURE, *SHAKEN_PICTURE, "wrong prompt", "time warp", "blur"),
)
def restitution_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Error of restitution (speed after / before wall and floor impacts) against the ball's, median over impacts."""
    commanded = {ball["color"]: float(ball["restitution"]) for ball in evidence.asked_flights()}
    tracks = evidence.moving_tracks()
    pairs = []
    for contact in evidence.contacts():
        color = evidence.tracks[contact.ball].color
        if (
            contact.frames < CLEAR_FRAMES
            or color not in commanded
            or near_another_ball(evidence.tracks, contact, evidence.clip.fps)
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


@metric(
    "energy_gain",
    unit="%",
    direction="lower",
    needs=("video",),
    tolerance=15,
    answers_to=("energy", "backwards"),
    also=(*LOST_PICTURE, *SHAKEN_PICTURE),
)
def energy_gain(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Kinetic energy that contacts create, as a share of the most that the clip's balls carry together.

    Loss is no fault: the world is lossy. Masses are those of the truth, else they grow with the radius cubed. Contacts
    of several balls at one moment count together, for one may give to the other.
    """
    evidence.unless_told(Evidence.asked_flights)
    evidence.moving_tracks()
    tracks, motion = evidence.tracks, evidence.motion
    mass = masses(evidence)
    clear = [c for c in motion.contacts if c.frames >= CLEAR_FRAMES]
    if not clear:
        raise Unmeasurable("no contact with clear motion on both sides")
    gains = []
    for group in together(list(motion.contacts), evidence.clip.fps):
        if any(c.frames < CLEAR_FRAMES for c in group):
            continue
        change = 0.0
        for c in group:
            squares = np.nansum(np.array(c.after) ** 2) - np.nansum(np.array(c.before) ** 2)
            change += 0.5 * mass[c.ball] * float(squares)
        gains.append(change)
    speeds = [_fastest(x, y, evidence.clip.fps) for x, y in motion.pieces]
    carried = sum(0.5 * mass[i] * speeds[i] ** 2 for i in range(len(tracks)))
    if not gains or carried <= 0:
        raise Unmeasurable("no contact with clear motion on both sides")
    return 100 * max(0.0, max(gains)) / carried, {"contacts": len(gains)}


@metric(
    "momentum_error",
    unit="%",
    direction="lower",
    needs=("video", "truth"),
    tolerance=25,
    statistic="median",
    answers_to=("mass",),
    also=(*LOST_PICTURE, *SHAKEN_PICTURE, "wrong prompt", "passed through", "restitution", "blur"),
)
def momentum_error(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Horizontal momentum that collisions of two balls create or destroy, as a share of what they carry, median over
    collisions away from the walls.

    Vertical momentum is left out: the floor takes part of it whenever one of the two lies on it.
    """
    evidence.asked_flights(least=2)
    if "events" in evidence.truth and not any(e.get("kind") == "ball" for e in evidence.truth["events"]):
        raise NotAsked  # a full truth says that no two balls meet
    tracks = evidence.moving_tracks()
    if len(tracks) < 2:
        raise Unmeasurable("one ball moves, two are needed for a collision")
    mass, motion, fps = masses(evidence), evidence.motion, evidence.clip.fps
    errors = []
    for a, b, seconds in collisions(evidence):
        change = carried = 0.0
        for ball in (a, b):
            sides = velocities_around(motion.pieces[ball][0], seconds, fps)
            if sides is None:
                break
            change += mass[ball] * (sides[1] - sides[0])
            carried += mass[ball] * max(abs(sides[0]), abs(sides[1]))
        else:
            errors.append(100 * abs(change) / max(carried, 1e-9))
    if not errors:
        raise Unmeasurable("no collision of two balls with clear motion on both sides")
    return float(np.median(errors)), {"collisions": len(errors)}


def masses(evidence: Evidence) -> NDArray[np.float64]:
    """(tracks,) masses: of the ball of the truth that has the track's colour, else density 1."""
    balls = {} if evidence.truth is None else {b["color"]: b for b in evidence.truth.get("balls", [])}
    known = [balls.get(t.color, {}).get("mass") for t in evidence.tracks]
    if any(m is None for m in known):
        return np.array([(t.radius / evidence.pixels_per_unit) ** 3 for t in evidence.tracks])
    return np.array(known, np.float64)


def together(contacts: list[Contact], fps: float) -> list[list[Contact]]:
    """Contacts in groups that lie within `TOGETHER_FRAMES` of each other."""
    groups: list[list[Contact]] = []
    for contact in contacts:
        if groups and contact.seconds - groups[-1][-1].seconds < TOGETHER_FRAMES / fps:
            groups[-1].append(contact)
        else:
            groups.append([contact])
    return groups


def collisions(evidence: Evidence) -> list[tuple[int, int, float]]:
    """(track, track, seconds) of contacts of two balls that touch, away from the side walls and from other balls."""
    found = []
    fps, width = evidence.clip.fps, evidence.clip.video.shape[2]
    margin = WALL_MARGIN * evidence.pixels_per_unit
    for group in together(list(evidence.motion.contacts), fps):
        balls = sorted({c.ball for c in group})
        if len(balls) != 2:
            continue
        a, b = (evidence.tracks[i] for i in balls)
        seconds = float(np.mean([c.seconds for c in group]))
        frame = int(np.clip(round(seconds * fps), 0, len(a.xy) - 1))
        reach = a.radius + b.radius
        gap = float(np.linalg.norm(a.xy[frame] - b.xy[frame]))
        around = slice(max(0, frame - 1), frame + 2)
        wall = any(
            not np.all(
                (t.xy[around, 0] > t.radius + margin) & (t.xy[around, 0] < width - 1 - t.radius - margin)
            )
            for t in (a, b)
        )
        others = [t for i, t in enumerate(evidence.tracks) if i not in balls]
        crowd = any(
            np.linalg.norm(t.xy[frame] - s.xy[frame]) < 1.5 * (t.radius + s.radius) + 1
            for t in others
            for s in (a, b)
        )
        if gap < 1.35 * reach + 1.0 and not wall and not crowd:
            found.append((balls[0], balls[1], seconds))
    return found


def velocities_around(pieces: tuple[Piece, ...], seconds: float, fps: float) -> tuple[float, float] | None:
    """Velocity (pixels per second) of one axis just before and after a moment; None where the motion is not clear."""
    before = [p for p in pieces if p.start / fps <= seconds - 0.5 / fps]
    after = [p for p in pieces if p.stop / fps >= seconds + 0.5 / fps]
    if not before or not after:
        return None
    first, second = before[-1], after[0]
    if min(first.frames, second.frames) < CLEAR_FRAMES:
        return None
    return first.velocity(seconds), second.velocity(seconds)


def near_another_ball(tracks: list[Track], contact: Contact, fps: float) -> bool:
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


def _fastest(x: tuple[Piece, ...], y: tuple[Piece, ...], fps: float) -> float:
    """Speed of a ball at its fastest: the fastest of each axis together, over pieces of clear motion."""

    def axis(pieces: tuple[Piece, ...]) -> float:
        clear = [p for p in pieces if p.frames >= CLEAR_FRAMES]
        return max((abs(p.velocity(f / fps)) for p in clear for f in (p.start, p.stop)), default=0.0)

    return float(np.hypot(axis(x), axis(y)))
