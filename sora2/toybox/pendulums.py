"""Pendulums in closed form: any amplitude, by Jacobi's elliptic functions, with a click at every lowest point.

A pendulum of length L under gravity g obeys angle'' = -(g / L) sin(angle). From the lowest point with angular
speed w it reaches sin(max / 2) = k = w / (2 w0), w0 = sqrt(g / L), and comes back after 2 K(k) / w0:
angle(t) = 2 arcsin(k sn(w0 t, k)). Each passage of the lowest point keeps the share `restitution` of the speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ellipj, ellipk

from sora2.toybox.config import ToyboxError, check_range

MOST_SWINGS = 10_000


@dataclass(frozen=True)
class Swings:
    """Half swings between passages of the lowest point. Angles are positive to the right."""

    frequency: float  # w0, 1 / s
    starts: np.ndarray  # (N,) seconds at which each begins at the lowest point; the first may lie before 0
    modulus: np.ndarray  # (N,) k of each
    sides: np.ndarray  # (N,) -1 left, 1 right

    def at(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(angle, angular speed, number of the half swing) at `seconds`, (T,) each."""
        n = np.clip(np.searchsorted(self.starts, seconds, side="right") - 1, 0, None)
        k, side = self.modulus[n], self.sides[n]
        sn, cn, _, _ = ellipj(self.frequency * (seconds - self.starts[n]), k * k)
        return 2 * side * np.arcsin(k * sn), 2 * side * self.frequency * k * cn, n

    @property
    def clicks(self) -> list[tuple[float, float, int]]:
        """(seconds, angular speed before it, side it comes from) of every passage of the lowest point after 0."""
        return [
            (float(self.starts[n]), float(2 * self.frequency * self.modulus[n - 1]), int(self.sides[n - 1]))
            for n in range(1, len(self.starts))
        ]


def swing(
    length: float, gravity: float, angle: float, restitution: float, seconds: float, *, passes: bool
) -> Swings:
    """Released at rest at `angle` (radians, the sign is the side) at second 0.

    `passes`: after the lowest point it goes on to the other side, as a single pendulum does.
    Raises `ToyboxError` for lengths, angles and restitutions that no pendulum has.
    """
    check_range("length", length, 1e-3)
    check_range("gravity", gravity, 1e-6)
    check_range("restitution", restitution, 0.0, 1.0)
    if not 0 < abs(angle) <= 0.9 * math.pi:
        raise ToyboxError(f"angle={angle} must be in [-2.83, 2.83] and not 0")
    frequency = math.sqrt(gravity / length)
    k, side = math.sin(abs(angle) / 2), int(math.copysign(1, angle))
    starts, moduli, sides = [-float(ellipk(k * k)) / frequency], [k], [side]
    while len(starts) < MOST_SWINGS:
        following = starts[-1] + 2 * float(ellipk(moduli[-1] ** 2)) / frequency
        if following >= seconds or moduli[-1] < 1e-6:
            break
        starts.append(following)
        moduli.append(moduli[-1] * restitution)
        sides.append(-sides[-1] if passes else sides[-1])
    return Swings(frequency, np.array(starts), np.array(moduli), np.array(sides))
