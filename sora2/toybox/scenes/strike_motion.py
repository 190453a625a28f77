"""The flight of a mallet from bar to bar: it touches each bar exactly at the onset of its note."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Speed at contact of velocity 1, world units per second; the share that the rebound keeps.
CONTACT_SPEED, REBOUND = 2.2, 0.7
#: The mallet rises for at most this long after a hit, hovers, and falls for at most as long.
LONGEST_RISE_SECONDS = 0.22


@dataclass(frozen=True)
class Hit:
    """One contact: when, where across the picture (world units), how hard (velocity in [0, 1])."""

    seconds: float
    x: float
    velocity: float


def mallet_path(hits: list[Hit], seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and height above the bars (world units), each (T,), at instants (T,).

    The height is exactly 0 at each hit and above 0 elsewhere. It falls onto a bar at `CONTACT_SPEED *
    velocity` and leaves at `REBOUND` of that, in smooth cubics that meet at the top.
    Sideways the mallet rests at the hits and moves with the least jerk between them (Flash and Hogan 1985).
    """
    first, last = hits[0], hits[-1]
    span = 4 * LONGEST_RISE_SECONDS  # it hovers over its first and its last bar
    begin = min(first.seconds, float(seconds.min(initial=first.seconds))) - span
    end = max(last.seconds, float(seconds.max(initial=last.seconds))) + span
    before, after = Hit(begin, first.x, first.velocity), Hit(end, last.x, last.velocity)
    stops = [before, *hits, after]
    times = np.array([stop.seconds for stop in stops])
    i = np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, len(stops) - 2)
    gap = times[i + 1] - times[i]
    since = seconds - times[i]

    place = np.array([stop.x for stop in stops])
    u = np.clip(since / gap, 0.0, 1.0)
    x = place[i] + (place[i + 1] - place[i]) * u**3 * (10 - 15 * u + 6 * u * u)

    speed = CONTACT_SPEED * np.array([stop.velocity for stop in stops])
    leaving, arriving = REBOUND * speed[i], speed[i + 1]
    rise = np.minimum(gap / 2, LONGEST_RISE_SECONDS)
    top = (leaving + arriving) * rise / 4
    up = _hermite(np.minimum(since / rise, 1.0), leaving * rise, top)
    down = _hermite(np.minimum((gap - since) / rise, 1.0), arriving * rise, top)
    return x, np.where(since < gap / 2, up, down)


def _hermite(s: np.ndarray, slope: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Cubic from 0 with `slope` at s = 0 to `top`, level, at s = 1."""
    s = np.maximum(s, 0.0)
    return slope * s * (1 - s) ** 2 + top * s * s * (3 - 2 * s)


def ring(hits: list[Hit], seconds: np.ndarray, decay_seconds: float) -> np.ndarray:
    """(T,) how strongly a bar still rings: the loudest of its hits, `velocity * exp(-age / decay)`."""
    strength = np.zeros(seconds.shape)
    for hit in hits:
        age = seconds - hit.seconds
        now = np.where(age >= 0, hit.velocity * np.exp(-np.maximum(age, 0.0) / decay_seconds), 0.0)
        strength = np.maximum(strength, now)
    return strength
