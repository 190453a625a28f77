"""Event-driven discs under gravity in a box with pegs and a ramp: analytic flights between exact contact times.

Nothing is integrated numerically. Between events every disc has a constant acceleration: gravity in flight, the
slope's share and friction where it rolls on the floor or the ramp, none where it lies or glides. So contacts
with planes are roots of quadratics and contacts of discs of quartics (`contact_times`). All arithmetic is
float64.

Coordinates: x to the right, y down, so gravity is a positive acceleration in y. The energy of motion and height
never grows. A disc's mass is at its centre: its spin, which rolling sets, carries no energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from sora2.toybox.config import ToyboxError
from sora2.toybox.contact_times import NEVER, circle_contact, plane_contact

#: A disc comes to rest on the floor or ramp when its next hop would rise less than this (world units, 0.4 px of
#: 64).
REST_HEIGHT = 0.006
#: Below this closing speed, contacts other than with the floor and the ramp lose no energy: they cannot pile up
#: in finite time.
SLOW_SPEED = 0.05
#: A rolling disc slower than this stays where floor and ramp meet.
STILL_SPEED = 0.02
#: More collisions than this in one clip means a jam; see `JammedError`.
MAX_CONTACTS = 2000


class JammedError(ToyboxError):
    """The discs are packed so tightly that their collisions do not end."""


@dataclass(frozen=True)
class Box:
    """Inner walls of the world, in world units; `bottom > top` because y points down."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Peg:
    """A fixed round obstacle."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Ramp:
    """A wedge in the corner: from `height` above the floor at a side wall down to the floor `length` away."""

    side: str  # "left" or "right"
    length: float
    height: float

    def normal(self) -> tuple[float, float]:
        """Unit vector out of the slope."""
        long = math.hypot(self.length, self.height)
        return (1 if self.side == "left" else -1) * self.height / long, -self.length / long

    def gap(self, x: float, y: float, box: Box) -> float:
        """Distance of a point above the slope."""
        nx, ny = self.normal()
        foot = box.left + self.length if self.side == "left" else box.right - self.length
        return nx * (x - foot) + ny * (y - box.bottom)


@dataclass(frozen=True)
class Surroundings:
    """Everything that does not move."""

    box: Box
    gravity: float
    pegs: tuple[Peg, ...] = ()
    ramp: Ramp | None = None
    #: Deceleration of rolling, as a share of the weight on the ground; None: discs glide and do not turn.
    rolling_friction: float | None = None


@dataclass
class Disc:
    """One disc, and the flights it makes: rows (t, x, y, vx, vy, ax, ay, angle, spin, spin's change)."""

    x: float
    y: float
    vx: float
    vy: float
    radius: float
    mass: float
    restitution: float
    ax: float = 0.0
    ay: float = 0.0
    angle: float = 0.0
    spin: float = 0.0
    spin_change: float = 0.0
    time: float = 0.0
    support: str = ""  # "floor", "ramp" or "" in flight
    asleep: bool = False  # leans on others and a wall: held in place until something strikes
    flights: list[tuple[float, ...]] = field(default_factory=list)
    grounds: list[str] = field(default_factory=list)  # `support` of each flight

    def position_at(self, time: float) -> tuple[float, float, float, float]:
        """(x, y, vx, vy) at a time not before the last change of motion."""
        dt = time - self.time
        return (
            self.x + dt * (self.vx + 0.5 * self.ax * dt),
            self.y + dt * (self.vy + 0.5 * self.ay * dt),
            self.vx + self.ax * dt,
            self.vy + self.ay * dt,
        )

    def move_to(self, time: float) -> None:
        dt = time - self.time
        self.x, self.y, self.vx, self.vy = self.position_at(time)
        self.angle += dt * (self.spin + 0.5 * self.spin_change * dt)
        self.spin += self.spin_change * dt
        self.time = time

    def record(self) -> None:
        self.flights.append(
            (
                *(self.time, self.x, self.y, self.vx, self.vy),
                *(self.ax, self.ay, self.angle, self.spin, self.spin_change),
            )
        )
        self.grounds.append(self.support)


@dataclass(frozen=True)
class Contact:
    """One collision: `kind` is floor, ceiling, left, right, ramp, peg or ball; `speed` closes along the normal."""

    seconds: float
    kind: str
    ball: int
    other: int | None  # the other ball
    speed: float
    x: float  # place of the contact: the ball's centre, or the middle of the two
    y: float


@dataclass(frozen=True)
class Roll:
    """A stretch of time in which a disc rolls on the ground with constant acceleration."""

    ball: int
    ground: str  # floor or ramp
    start_seconds: float
    stop_seconds: float
    start_speed: float  # along the ground, signed: positive to the right
    stop_speed: float


@dataclass(frozen=True)
class Trajectories:
    """Exact motion of all discs over one clip."""

    flights: tuple[np.ndarray, ...]  # per disc (K, 10), the rows of `Disc`
    grounds: tuple[tuple[str, ...], ...]  # per disc K supports
    contacts: tuple[Contact, ...]
    seconds: float

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """State of the discs at `seconds` (T,): (discs, 4, T) of x, y, vx, vy."""
        states = []
        for rows in self.flights:
            k = np.searchsorted(rows[:, 0], seconds, side="right") - 1
            t, x, y, vx, vy, ax, ay = rows[k, :7].T
            dt = seconds - t
            states.append(
                np.stack(
                    [
                        x + dt * (vx + 0.5 * ax * dt),
                        y + dt * (vy + 0.5 * ay * dt),
                        vx + ax * dt,
                        vy + ay * dt,
                    ]
                )
            )
        return np.stack(states)

    def angles(self, seconds: np.ndarray) -> np.ndarray:
        """(discs, T) radians that the discs have turned, clockwise on the screen."""
        turned = []
        for rows in self.flights:
            k = np.searchsorted(rows[:, 0], seconds, side="right") - 1
            dt = seconds - rows[k, 0]
            turned.append(rows[k, 7] + dt * (rows[k, 8] + 0.5 * rows[k, 9] * dt))
        return np.stack(turned)

    def rolls(self) -> list[Roll]:
        """Every stretch in which a disc rolls, in order of time."""
        found = []
        for ball, (rows, grounds) in enumerate(zip(self.flights, self.grounds, strict=True)):
            stops = [*rows[1:, 0].tolist(), self.seconds]
            for row, ground, stop in zip(rows.tolist(), grounds, stops, strict=True):
                start, _, _, vx, vy, ax, ay = row[:7]
                if ground and stop > start and (vx, vy, ax, ay) != (0, 0, 0, 0):
                    sign = math.copysign(1, vx if vx != 0 else ax)
                    first = math.copysign(math.hypot(vx, vy), vx) if vx else 0.0
                    last_x, last_y = vx + ax * (stop - start), vy + ay * (stop - start)
                    last = math.copysign(math.hypot(last_x, last_y), last_x if abs(last_x) > 1e-12 else sign)
                    found.append(Roll(ball, ground, start, stop, first, last))
        return sorted(found, key=lambda roll: (roll.start_seconds, roll.ball))


def simulate(
    discs: list[Disc],
    box: Box,
    gravity: float,
    seconds: float,
    *,
    pegs: tuple[Peg, ...] = (),
    ramp: Ramp | None = None,
    rolling_friction: float | None = None,
) -> Trajectories:
    """Run `discs` (changed in place) for `seconds`.

    Raises `ToyboxError` when a disc does not fit the box or two things overlap at the start, `JammedError` when
    collisions do not end.
    """
    around = Surroundings(box, gravity, pegs, ramp, rolling_friction)
    _check_start(discs, around)
    n = len(discs)
    for disc in discs:
        _move_freely(disc, around)
        disc.record()
    alone = [_next_alone(disc, around) for disc in discs]
    pair = {(i, j): _next_pair(discs[i], discs[j], 0.0) for i in range(n) for j in range(i + 1, n)}
    contacts: list[Contact] = []
    events = 0
    while True:
        i = min(range(n), key=lambda k: alone[k][0])
        time, kind, peg = alone[i]
        j: int | None = None
        for (a, b), when in pair.items():
            if when < time:
                time, kind, i, j = when, "ball", a, b
        if time >= seconds:
            break
        events += 1
        if events > MAX_CONTACTS:
            raise JammedError(
                f"more than {MAX_CONTACTS} collisions in {time:.4f} s: give the {n} balls more room"
            )
        changed = [i] if j is None else [i, j]
        slept = any(discs[k].asleep for k in changed)
        for k in changed:
            discs[k].move_to(time)
        if j is not None:
            contacts.append(_bounce_off_disc(i, j, discs[i], discs[j], around))
        elif kind == "stop":
            _stop(discs[i], around)
        elif kind == "peg":
            contacts.append(_bounce_off_peg(i, discs[i], peg, around))
        else:
            contacts.append(_bounce_off_wall(i, discs[i], kind, around))
        if slept and not all(discs[k].asleep for k in changed):
            changed += _wake(discs, changed, time, around)
        for k in changed:
            discs[k].record()
            alone[k] = _next_alone(discs[k], around)
        for a, b in pair:
            if a in changed or b in changed:
                pair[a, b] = _next_pair(discs[a], discs[b], time)
    return Trajectories(
        tuple(np.array(disc.flights) for disc in discs),
        tuple(tuple(disc.grounds) for disc in discs),
        tuple(contacts),
        seconds,
    )


def _check_start(discs: list[Disc], around: Surroundings) -> None:
    box = around.box
    if not around.gravity >= 0:
        raise ToyboxError(f"gravity={around.gravity} must be at least 0")
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
        if around.ramp is not None and around.ramp.gap(disc.x, disc.y, box) < disc.radius:
            raise ToyboxError(f"ball {i} starts inside the ramp: move it up or away from the corner")
        for k, peg in enumerate(around.pegs):
            if math.hypot(disc.x - peg.x, disc.y - peg.y) < disc.radius + peg.radius:
                raise ToyboxError(f"ball {i} overlaps peg {k} at the start: move it")
        for j, other in enumerate(discs[:i]):
            if math.hypot(disc.x - other.x, disc.y - other.y) < disc.radius + other.radius:
                raise ToyboxError(f"balls {j} and {i} overlap at the start: move one of them")


def _next_alone(disc: Disc, around: Surroundings) -> tuple[float, str, int]:
    """(time, kind, number of the peg) of the next event of one disc with what does not move."""
    box, best, kind, number = around.box, NEVER, "", -1
    candidates = [
        (max(0.0, box.right - disc.radius - disc.x), disc.vx, disc.ax, "right"),
        (max(0.0, disc.x - disc.radius - box.left), -disc.vx, -disc.ax, "left"),
    ]
    if disc.support != "floor":
        candidates.append((max(0.0, box.bottom - disc.radius - disc.y), disc.vy, disc.ay, "floor"))
        candidates.append((max(0.0, disc.y - disc.radius - box.top), -disc.vy, -disc.ay, "ceiling"))
    if around.ramp is not None and disc.support != "ramp":
        nx, ny = around.ramp.normal()
        gap = max(0.0, around.ramp.gap(disc.x, disc.y, box) - disc.radius)
        candidates.append((gap, -(nx * disc.vx + ny * disc.vy), -(nx * disc.ax + ny * disc.ay), "ramp"))
    for gap, closing, acceleration, name in candidates:
        when = plane_contact(gap, closing, acceleration)
        if when < best:
            best, kind = when, name
    if disc.support:
        along = disc.vx * disc.ax + disc.vy * disc.ay
        if along < 0:
            when = -along / (disc.ax * disc.ax + disc.ay * disc.ay)
            if when < best:
                best, kind = when, "stop"
    for k, peg in enumerate(around.pegs):
        when = circle_contact(
            disc.x - peg.x, disc.y - peg.y, disc.vx, disc.vy, disc.ax, disc.ay, disc.radius + peg.radius
        )
        if when < best:
            best, kind, number = when, "peg", k
    return disc.time + max(0.0, best), kind, number


def _next_pair(a: Disc, b: Disc, now: float) -> float:
    """Time of the next contact of two discs, seen from `now`."""
    ax, ay, avx, avy = a.position_at(now)
    bx, by, bvx, bvy = b.position_at(now)
    reach = a.radius + b.radius
    return now + circle_contact(bx - ax, by - ay, bvx - avx, bvy - avy, b.ax - a.ax, b.ay - a.ay, reach)


def _wake(discs: list[Disc], awake: list[int], time: float, around: Surroundings) -> list[int]:
    """All others that lean may lose their hold: let them go; returns which."""
    woken = [k for k, disc in enumerate(discs) if disc.asleep and k not in awake]
    for k in woken:
        discs[k].move_to(time)
        _rest_on(discs[k], discs[k].support, around)
    return woken


def _move_freely(disc: Disc, around: Surroundings) -> None:
    disc.asleep = False
    disc.support, disc.ax, disc.ay, disc.spin_change = "", 0.0, around.gravity, 0.0


def _ground_normal(support: str, around: Surroundings) -> tuple[float, float]:
    if support == "ramp" and around.ramp is not None:
        return around.ramp.normal()
    return 0.0, -1.0


def _rest_on(disc: Disc, support: str, around: Surroundings) -> None:
    """Take away the motion into the ground; what is left rolls along it."""
    nx, ny = _ground_normal(support, around)
    tx, ty = -ny, nx  # along the ground, to the right
    along = disc.vx * tx + disc.vy * ty
    disc.support, disc.asleep = support, False
    disc.vx, disc.vy = along * tx, along * ty
    pull = around.gravity * ty
    drag = 0.0
    if around.rolling_friction is not None:
        drag = around.rolling_friction * around.gravity * abs(ny)
        disc.spin = along / disc.radius
    if along != 0:
        change = pull - math.copysign(drag, along)
    else:
        change = math.copysign(max(0.0, abs(pull) - drag), pull)
    disc.ax, disc.ay = change * tx, change * ty
    disc.spin_change = 0.0 if around.rolling_friction is None else change / disc.radius


def _stop(disc: Disc, around: Surroundings) -> None:
    """Friction or the slope has used up the motion."""
    disc.vx = disc.vy = disc.spin = 0.0
    _rest_on(disc, disc.support, around)


def _bounce_off_wall(index: int, disc: Disc, kind: str, around: Surroundings) -> Contact:
    box, support = around.box, disc.support
    if kind in ("left", "right"):
        speed = abs(disc.vx)
        disc.x = box.left + disc.radius if kind == "left" else box.right - disc.radius
        disc.vx *= -disc.restitution if speed >= SLOW_SPEED else -1.0
        if support == "floor":
            _rest_on(disc, "floor", around)
        else:
            _move_freely(disc, around)
    elif kind == "ceiling":
        speed = abs(disc.vy)
        disc.y = box.top + disc.radius
        disc.vy *= -disc.restitution if speed >= SLOW_SPEED else -1.0
        _move_freely(disc, around)
    else:
        nx, ny = _ground_normal(kind, around)
        speed = abs(disc.vx * nx + disc.vy * ny)
        if kind == "floor":
            disc.y = box.bottom - disc.radius
        still = bool(support) and math.hypot(disc.vx, disc.vy) < STILL_SPEED
        rebound = disc.restitution * speed
        if still:  # in the corner of floor and ramp
            disc.vx = disc.vy = disc.spin = disc.spin_change = disc.ax = disc.ay = 0.0
            disc.support = "floor"
        elif rebound * rebound < 2 * around.gravity * abs(ny) * REST_HEIGHT:
            _rest_on(disc, kind, around)
        else:
            _leave_ground(disc, nx, ny, rebound, around)
    return Contact(disc.time, kind, index, None, speed, disc.x, disc.y)


def _leave_ground(disc: Disc, nx: float, ny: float, rebound: float, around: Surroundings) -> None:
    """Bounce off a ground of normal (nx, ny) with speed `rebound`; the grip of the ground sets the spin."""
    if nx == 0:
        disc.vy = -rebound
    else:
        along = -disc.vx * ny + disc.vy * nx
        disc.vx, disc.vy = -along * ny + rebound * nx, along * nx + rebound * ny
    if around.rolling_friction is not None:
        disc.spin = (-disc.vx * ny + disc.vy * nx) / disc.radius
    _move_freely(disc, around)


def _bounce_off_peg(index: int, disc: Disc, number: int, around: Surroundings) -> Contact:
    peg = around.pegs[number]
    nx, ny = disc.x - peg.x, disc.y - peg.y
    distance = math.hypot(nx, ny)
    nx, ny = nx / distance, ny / distance
    closing = -(disc.vx * nx + disc.vy * ny)
    restitution = disc.restitution if closing >= SLOW_SPEED else 1.0
    _push(disc, nx, ny, (1 + restitution) * closing * disc.mass, around)
    return Contact(
        disc.time, "peg", index, None, closing, disc.x - nx * disc.radius, disc.y - ny * disc.radius
    )


def _bounce_off_disc(i: int, j: int, a: Disc, b: Disc, around: Surroundings) -> Contact:
    """Frictionless collision along the line of centres.

    A disc that is pushed into the ground it lies on moves only along it (the ground takes the rest), which is an
    impulse along a constraint: kinetic energy changes by -(1 - e^2) / 2 * closing^2 / (w_a + w_b), never
    upwards.
    """
    nx, ny = b.x - a.x, b.y - a.y
    distance = math.hypot(nx, ny)
    nx, ny = nx / distance, ny / distance
    closing = -((b.vx - a.vx) * nx + (b.vy - a.vy) * ny)
    restitution = math.sqrt(a.restitution * b.restitution) if closing >= SLOW_SPEED else 1.0
    mobility = _mobility(a, -nx, -ny, around) + _mobility(b, nx, ny, around)
    impulse = (1 + restitution) * closing / mobility
    if closing < STILL_SPEED and _may_sleep(a, b, around):
        for disc in (a, b):
            disc.vx = disc.vy = disc.ax = disc.ay = disc.spin = disc.spin_change = 0.0
            disc.asleep = True
    else:
        _push(a, -nx, -ny, impulse, around)
        _push(b, nx, ny, impulse, around)
    return Contact(a.time, "ball", i, j, closing, 0.5 * (a.x + b.x), 0.5 * (a.y + b.y))


def _may_sleep(a: Disc, b: Disc, around: Surroundings) -> bool:
    """Whether two slow discs on the ground have nowhere to go: one is against a wall, or held already."""
    slow = all(disc.support and math.hypot(disc.vx, disc.vy) < STILL_SPEED for disc in (a, b))
    return slow and any(
        disc.asleep
        or (
            disc.support == "floor"
            and min(disc.x - around.box.left, around.box.right - disc.x) < disc.radius + REST_HEIGHT
        )
        for disc in (a, b)
    )


def _free_direction(disc: Disc, dx: float, dy: float, around: Surroundings) -> tuple[float, float]:
    """The part of a push along (dx, dy) that the ground under the disc lets through."""
    if not disc.support:
        return dx, dy
    nx, ny = _ground_normal(disc.support, around)
    into = dx * nx + dy * ny
    return (dx - into * nx, dy - into * ny) if into < 0 else (dx, dy)


def _mobility(disc: Disc, dx: float, dy: float, around: Surroundings) -> float:
    fx, fy = _free_direction(disc, dx, dy, around)
    return (fx * fx + fy * fy) / disc.mass


def _push(disc: Disc, dx: float, dy: float, impulse: float, around: Surroundings) -> None:
    """Give `impulse` along (dx, dy); a disc that is pushed off its ground flies."""
    fx, fy = _free_direction(disc, dx, dy, around)
    disc.vx += impulse * fx / disc.mass
    disc.vy += impulse * fy / disc.mass
    if disc.support:
        nx, ny = _ground_normal(disc.support, around)
        if disc.vx * nx + disc.vy * ny > 1e-12:
            _move_freely(disc, around)
        else:
            _rest_on(disc, disc.support, around)
