"""When do things meet? Exact first contact times of motions with constant acceleration."""

from __future__ import annotations

import math

NEVER = math.inf
#: Squared gaps up to this are contact: what rounding leaves of two discs that touch.
ROUNDING = 1e-13


def plane_contact(gap: float, closing: float, acceleration: float) -> float:
    """Delay until `closing * t + acceleration * t^2 / 2` has used up `gap` (0 or more), or NEVER.

    `closing` is the speed towards the plane. The form of the roots avoids cancellation.
    """
    if acceleration == 0.0:
        return gap / closing if closing > 0 else NEVER
    inside = closing * closing + 2 * acceleration * gap
    if inside < 0:
        return NEVER
    root = math.sqrt(inside)
    if closing > 0:
        return 2 * gap / (closing + root)
    return (root - closing) / acceleration if acceleration > 0 else NEVER


def circle_contact(x: float, y: float, vx: float, vy: float, ax: float, ay: float, reach: float) -> float:
    """Delay until |p + v t + a t^2 / 2| falls to `reach`, entering, or NEVER.

    p, v, a are relative; they touch or are apart at first. Without acceleration the squared gap is quadratic in
    t, else quartic: its stationary points, the roots of a cubic, split time into stretches where it only falls
    or rises, and the first stretch that falls through zero holds the contact.
    """
    gap = x * x + y * y - reach * reach  # squared distance above contact
    closing = x * vx + y * vy
    if gap <= 0 and closing < 0:
        return 0.0
    speed2 = vx * vx + vy * vy
    if ax == 0.0 and ay == 0.0:
        if closing >= 0:
            return NEVER
        gap = max(0.0, gap)
        inside = closing * closing - speed2 * gap
        return NEVER if inside < 0 else gap / (math.sqrt(inside) - closing)
    a2, va, pa = ax * ax + ay * ay, vx * ax + vy * ay, x * ax + y * ay
    quartic = (0.25 * a2, va, speed2 + pa, 2 * closing, gap)
    low, at_low = 0.0, _touching(gap)
    for stationary in _cubic_roots(a2, 3 * va, 2 * (speed2 + pa), 2 * closing):
        if stationary <= low:
            continue
        at_high = _value(quartic, stationary)
        if at_low >= 0 and at_high < -ROUNDING:
            return _root(quartic, low, stationary)
        low, at_low = stationary, _touching(at_high)
    return NEVER  # it rises for ever after the last one


def _touching(gap: float) -> float:
    return 0.0 if abs(gap) <= ROUNDING else gap


def _cubic_roots(a: float, b: float, c: float, d: float) -> tuple[float, ...]:
    """Real roots of a t^3 + b t^2 + c t + d (a > 0), in order; Cardano and Viete."""
    shift = b / (3 * a)
    p = (3 * a * c - b * b) / (3 * a * a)
    q = (2 * b**3 - 9 * a * b * c + 27 * a * a * d) / (27 * a**3)
    inside = q * q / 4 + p**3 / 27
    if inside > 0 or p >= 0:
        root = math.sqrt(max(inside, 0.0))
        u = -q / 2 + math.copysign(root, -q)
        u = math.copysign(abs(u) ** (1 / 3), u)
        return ((u - p / (3 * u) if u != 0 else 0.0) - shift,)
    size = 2 * math.sqrt(-p / 3)
    angle = math.acos(max(-1.0, min(1.0, 3 * q / (p * size))))
    return tuple(sorted(size * math.cos((angle - 2 * math.pi * k) / 3) - shift for k in range(3)))


def _root(quartic: tuple[float, ...], low: float, high: float) -> float:
    """Where the quartic falls through zero between `low` (above) and `high` (not above): Newton, kept inside by
    bisection."""
    t = 0.5 * (low + high)
    for _ in range(80):
        value, slope = _value(quartic, t), _slope(quartic, t)
        if value > 0:
            low = t
        else:
            high = t
        following = t - value / slope if slope != 0 else low
        if not low < following < high:
            following = 0.5 * (low + high)
        if following == t or high - low < 1e-16 * (1 + high):
            break
        t = following
    return t


def _value(polynomial: tuple[float, ...], t: float) -> float:
    a, b, c, d, e = polynomial
    return (((a * t + b) * t + c) * t + d) * t + e


def _slope(polynomial: tuple[float, ...], t: float) -> float:
    a, b, c, d, _ = polynomial
    return ((4 * a * t + 3 * b) * t + 2 * c) * t + d
