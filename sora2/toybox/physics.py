"""Event-driven discs under gravity in a box: analytic flights between exactly solved collision times.

Nothing is integrated numerically. A free disc flies on a parabola; two free discs share the same
acceleration, so their relative motion is a straight line and their collision a quadratic equation. A disc
that rests on the floor slides along it without friction; against a flying disc that gives a quartic. All
arithmetic is float64.

Coordinates: x to the right, y down, so gravity is a positive acceleration in y. Energy never grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from sora2.toybox.config import ToyboxError

#: A disc comes to rest on the floor when its next hop would rise less than this (world units, 0.4 px of 64).
REST_HEIGHT = 0.006
#: Below this closing speed, contacts other than with the floor lose no energy: they cannot pile up in finite
#: time.
SLOW_SPEED = 0.05
#: More collisions than this in one clip means a jam; see `JammedError`.
MAX_CONTACTS = 2000

_NEVER = math.inf


class JammedError(ToyboxError):
    """The discs are packed so tightly that their collisions do not end."""


@dataclass(frozen=True)
class Box:
    """Inner walls of the world, in world units; `bottom > top` because y points down."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass
class Disc:
    """One disc, and the flights it makes: rows (t, x, y, vx, vy, ay) at which its motion changes."""

    x: float
    y: float
    vx: float
    vy: float
    radius: float
    mass: float
    restitution: float
    ay: float = 0.0  # gravity, or 0 while the floor carries the disc
    time: float = 0.0
    supported: bool = False
    flights: list[tuple[float, float, float, float, float, float]] = field(default_factory=list)

    def position_at(self, time: float) -> tuple[float, float, float, float]:
        """(x, y, vx, vy) at a time not before the last change of motion."""
        dt = time - self.time
        return (
            self.x + self.vx * dt,
            self.y + dt * (self.vy + 0.5 * self.ay * dt),
            self.vx,
            self.vy + self.ay * dt,
        )

    def move_to(self, time: float) -> None:
        self.x, self.y, self.vx, self.vy = self.position_at(time)
        self.time = time

    def record(self) -> None:
        self.flights.append((self.time, self.x, self.y, self.vx, self.vy, self.ay))


@dataclass(frozen=True)
class Contact:
    """One collision: `kind` is floor, ceiling, left, right or ball; `speed` closes along the normal."""

    seconds: float
    kind: str
    ball: int
    other: int | None
    speed: float
    x: float  # place of the contact: the ball's centre, or the middle of the two
    y: float


@dataclass(frozen=True)
class Trajectories:
    """Exact motion of all discs over one clip."""

    flights: tuple[np.ndarray, ...]  # per disc (K, 6) rows (t, x, y, vx, vy, ay)
    contacts: tuple[Contact, ...]

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """State of the discs at `seconds` (T,): (discs, 4, T) of x, y, vx, vy."""
        states = []
        for rows in self.flights:
            k = np.searchsorted(rows[:, 0], seconds, side="right") - 1
            t, x, y, vx, vy, ay = rows[k].T
            dt = seconds - t
            states.append(np.stack([x + vx * dt, y + dt * (vy + 0.5 * ay * dt), vx, vy + ay * dt]))
        return np.stack(states)


def simulate(discs: list[Disc], box: Box, gravity: float, seconds: float) -> Trajectories:
    """Run `discs` (changed in place) for `seconds`.

    Raises `ToyboxError` when a disc does not fit the box or two overlap at the start, `JammedError` when
    collisions do not end.
    """
    _check_start(discs, box, gravity)
    n = len(discs)
    for disc in discs:
        disc.ay = gravity
        disc.record()
    wall = [_next_wall(disc, box) for disc in discs]
    pair = {(i, j): _next_pair(discs[i], discs[j], 0.0) for i in range(n) for j in range(i + 1, n)}
    contacts: list[Contact] = []
    while True:
        i = min(range(n), key=lambda k: wall[k][0])
        time, kind = wall[i]
        j: int | None = None
        for (a, b), when in pair.items():
            if when < time:
                time, kind, i, j = when, "ball", a, b
        if time >= seconds:
            break
        if len(contacts) == MAX_CONTACTS:
            raise JammedError(
                f"more than {MAX_CONTACTS} collisions in {time:.4f} s: give the {n} balls more room"
            )
        changed = (i,) if j is None else (i, j)
        for k in changed:
            discs[k].move_to(time)
        if j is None:
            contacts.append(_bounce_off_wall(i, discs[i], kind, box, gravity))
        else:
            contacts.append(_bounce_off_disc(i, j, discs[i], discs[j], gravity))
        for k in changed:
            discs[k].record()
            wall[k] = _next_wall(discs[k], box)
        for a, b in pair:
            if a in changed or b in changed:
                pair[a, b] = _next_pair(discs[a], discs[b], time)
    return Trajectories(tuple(np.array(disc.flights) for disc in discs), tuple(contacts))


def _check_start(discs: list[Disc], box: Box, gravity: float) -> None:
    if not gravity >= 0:
        raise ToyboxError(f"gravity={gravity} must be at least 0")
    for i, disc in enumerate(discs):
        if 2 * disc.radius >= min(box.right - box.left, box.bottom - box.top):
            raise ToyboxError(
                f"ball {i} is larger than the box: diameter {2 * disc.radius:.4g} in "
                f"{box.right - box.left:.4g} x {box.bottom - box.top:.4g}"
            )
        for name, value, low, high in (
            ("x", disc.x, box.left, box.right),
            ("y", disc.y, box.top, box.bottom),
        ):
            if not low + disc.radius <= value <= high - disc.radius:
                raise ToyboxError(
                    f"ball {i}: {name}={value:.4g} must be in "
                    f"[{low + disc.radius:.4g}, {high - disc.radius:.4g}] to lie wholly in the box"
                )
        for j, other in enumerate(discs[:i]):
            if math.hypot(disc.x - other.x, disc.y - other.y) < disc.radius + other.radius:
                raise ToyboxError(f"balls {j} and {i} overlap at the start: move one of them")


def _next_wall(disc: Disc, box: Box) -> tuple[float, str]:
    """(time, kind) of the next wall contact."""
    best, kind = _NEVER, ""
    if disc.vx > 0:
        best, kind = (box.right - disc.radius - disc.x) / disc.vx, "right"
    elif disc.vx < 0:
        best, kind = (box.left + disc.radius - disc.x) / disc.vx, "left"
    if not disc.supported:
        drop = max(0.0, box.bottom - disc.radius - disc.y)
        root = math.sqrt(disc.vy * disc.vy + 2 * disc.ay * drop)
        if disc.vy > 0:
            when = 2 * drop / (disc.vy + root)
        else:
            when = (root - disc.vy) / disc.ay if disc.ay > 0 else _NEVER
        if when < best:
            best, kind = when, "floor"
        rise = max(0.0, disc.y - disc.radius - box.top)
        inside = disc.vy * disc.vy - 2 * disc.ay * rise
        if disc.vy < 0 and inside >= 0:
            when = 2 * rise / (math.sqrt(inside) - disc.vy)
            if when < best:
                best, kind = when, "ceiling"
    return disc.time + max(0.0, best), kind


def _next_pair(a: Disc, b: Disc, now: float) -> float:
    """Time of the next contact of two discs, seen from `now`."""
    ax, ay, avx, avy = a.position_at(now)
    bx, by, bvx, bvy = b.position_at(now)
    x, y, vx, vy, acceleration = bx - ax, by - ay, bvx - avx, bvy - avy, b.ay - a.ay
    reach = a.radius + b.radius
    gap = x * x + y * y - reach * reach  # squared distance above contact
    closing = x * vx + y * vy
    if acceleration != 0.0:
        return now + _quartic_contact(x, y, vx, vy, acceleration, gap, closing)
    if closing >= 0:
        return _NEVER
    gap = max(0.0, gap)
    inside = closing * closing - (vx * vx + vy * vy) * gap
    return _NEVER if inside < 0 else now + gap / (math.sqrt(inside) - closing)


def _quartic_contact(
    x: float, y: float, vx: float, vy: float, acceleration: float, gap: float, closing: float
) -> float:
    """Delay until a flying and a resting disc meet: |p + v t + a t^2 / 2|^2 = reach^2, entering."""
    if gap <= 0 and closing < 0:
        return 0.0
    speed2 = vx * vx + vy * vy
    polynomial = (0.25 * acceleration**2, acceleration * vy, speed2 + acceleration * y, 2 * closing, gap)
    best = _NEVER
    for root in np.roots(polynomial):
        t = float(root.real)
        if abs(root.imag) > 1e-7 * (1 + abs(t)) or t <= 0:
            continue
        for _ in range(2):  # polish: the roots come from an eigenvalue problem
            slope = _slope(polynomial, t)
            if slope != 0:
                t -= _value(polynomial, t) / slope
        if t > 0 and _slope(polynomial, t) < 0:
            best = min(best, t)
    return best


def _value(polynomial: tuple[float, ...], t: float) -> float:
    a, b, c, d, e = polynomial
    return (((a * t + b) * t + c) * t + d) * t + e


def _slope(polynomial: tuple[float, ...], t: float) -> float:
    a, b, c, d, _ = polynomial
    return ((4 * a * t + 3 * b) * t + 2 * c) * t + d


def _bounce_off_wall(index: int, disc: Disc, kind: str, box: Box, gravity: float) -> Contact:
    if kind in ("left", "right"):
        speed = abs(disc.vx)
        disc.x = box.left + disc.radius if kind == "left" else box.right - disc.radius
        disc.vx *= -disc.restitution if speed >= SLOW_SPEED else -1.0
    elif kind == "ceiling":
        speed = abs(disc.vy)
        disc.y = box.top + disc.radius
        disc.vy *= -disc.restitution if speed >= SLOW_SPEED else -1.0
    else:
        speed = abs(disc.vy)
        disc.y = box.bottom - disc.radius
        disc.vy *= -disc.restitution
        if disc.vy * disc.vy < 2 * gravity * REST_HEIGHT:
            disc.vy, disc.ay, disc.supported = 0.0, 0.0, True
    return Contact(disc.time, kind, index, None, speed, disc.x, disc.y)


def _bounce_off_disc(i: int, j: int, a: Disc, b: Disc, gravity: float) -> Contact:
    """Frictionless collision along the line of centres.

    A disc on the floor that is pushed down moves only sideways (the floor takes the rest), which is an
    impulse along a constraint: kinetic energy changes by -(1 - e^2) / 2 * closing^2 / (w_a + w_b), never
    upwards.
    """
    nx, ny = b.x - a.x, b.y - a.y
    distance = math.hypot(nx, ny)
    nx, ny = nx / distance, ny / distance
    closing = -((b.vx - a.vx) * nx + (b.vy - a.vy) * ny)
    restitution = math.sqrt(a.restitution * b.restitution) if closing >= SLOW_SPEED else 1.0
    a_held, b_held = a.supported and ny < 0, b.supported and ny > 0
    mobility = (nx * nx if a_held else 1.0) / a.mass + (nx * nx if b_held else 1.0) / b.mass
    impulse = (1 + restitution) * closing / mobility
    for disc, sign, held in ((a, -1.0, a_held), (b, 1.0, b_held)):
        disc.vx += sign * impulse * nx / disc.mass
        if not held:
            disc.vy += sign * impulse * ny / disc.mass
            if disc.supported and disc.vy < 0:
                disc.supported, disc.ay = False, gravity
    return Contact(a.time, "ball", i, j, closing, 0.5 * (a.x + b.x), 0.5 * (a.y + b.y))
