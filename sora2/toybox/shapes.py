"""Shapes by signed distance: negative inside, positive outside, in the local units of a layer.

A shape is a function of local coordinates (u right, v down, origin at the layer's place) and the half sizes of a
box that holds it. A parameter may be a number, or one value per frame (T,): then the shape changes over the clip.
Sources of the formulas: Inigo Quilez, "2D distance functions" (iquilezles.org/articles/distfunctions2d).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: One value for the whole clip, or (T,) values, one for each frame.
PerFrame = float | np.ndarray


@dataclass(frozen=True)
class Shape:
    """`distance(u, v)` takes arrays that broadcast to (T, h, w) and returns signed distances of that shape.

    `extent` holds the half width and half height of a box about the local origin that contains the shape (its
    largest over the clip); None means it may be anywhere, and the whole picture is evaluated.
    """

    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]
    extent: tuple[float, float] | None
    frames: int = 1  # T when a parameter changes from frame to frame

    def at(self, x: PerFrame, y: PerFrame, angle: PerFrame = 0.0) -> Shape:
        """The shape moved by (x, y) and turned by `angle` (radians, clockwise on the screen)."""
        ox, oy, turn = column(x), column(y), column(angle)
        straight = isinstance(angle, (int, float)) and angle == 0
        cosine, sine = np.cos(turn), np.sin(turn)

        def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
            u, v = u - ox, v - oy
            return (
                self.distance(u, v)
                if straight
                else self.distance(cosine * u + sine * v, cosine * v - sine * u)
            )

        extent = None
        if self.extent is not None:
            wide, tall = self.extent if straight else (math.hypot(*self.extent),) * 2
            extent = (wide + largest(x), tall + largest(y))
        return Shape(distance, extent, max(self.frames, length(x), length(y), length(angle)))

    def grown(self, by: PerFrame) -> Shape:
        """All points within `by` of the shape (rounds its corners)."""
        more = column(by)
        extent = None if self.extent is None else tuple(e + largest(by) for e in self.extent)
        return Shape(lambda u, v: self.distance(u, v) - more, extent, max(self.frames, length(by)))

    def hollow(self, width: PerFrame) -> Shape:
        """The line of `width` along the shape's edge."""
        half = column(width) / 2
        extent = None if self.extent is None else tuple(e + largest(width) / 2 for e in self.extent)
        return Shape(lambda u, v: np.abs(self.distance(u, v)) - half, extent, max(self.frames, length(width)))

    def __or__(self, other: Shape) -> Shape:
        return union(self, other)

    def __and__(self, other: Shape) -> Shape:
        """What lies in both."""
        known = [s.extent for s in (self, other) if s.extent is not None]
        extent = None if not known else (min(e[0] for e in known), min(e[1] for e in known))
        return Shape(
            lambda u, v: np.maximum(self.distance(u, v), other.distance(u, v)),
            extent,
            max(self.frames, other.frames),
        )

    def __sub__(self, other: Shape) -> Shape:
        """What lies in this one and not in `other`."""
        return Shape(
            lambda u, v: np.maximum(self.distance(u, v), -other.distance(u, v)),
            self.extent,
            max(self.frames, other.frames),
        )


def column(value: PerFrame) -> np.ndarray:
    """A number as it is, (T,) values as (T, 1, 1), both float32."""
    array = np.asarray(value, np.float32)
    return array.reshape(-1, 1, 1) if array.ndim else array


def largest(value: PerFrame) -> float:
    return float(np.max(np.abs(value)))


def length(value: PerFrame) -> int:
    return int(np.size(value))


def circle(radius: PerFrame) -> Shape:
    r = column(radius)
    return Shape(lambda u, v: np.sqrt(u * u + v * v) - r, (largest(radius),) * 2, length(radius))


def ellipse(rx: PerFrame, ry: PerFrame) -> Shape:
    """Half axes rx, ry. The distance is of first order: exact at the edge, approximate far from it."""
    a, b = column(rx), column(ry)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        p, q = u / a, v / b
        level = np.sqrt(p * p + q * q)
        slope = np.sqrt((p / a) ** 2 + (q / b) ** 2) + np.float32(1e-6)
        return (level - 1) * level / slope

    return Shape(distance, (largest(rx), largest(ry)), max(length(rx), length(ry)))


def box(half_width: PerFrame, half_height: PerFrame, rounding: float = 0.0) -> Shape:
    """A rectangle with corners of radius `rounding` (inside the half sizes)."""
    w, h, r = column(half_width) - rounding, column(half_height) - rounding, np.float32(rounding)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        p, q = np.abs(u) - w, np.abs(v) - h
        outside = np.sqrt(np.maximum(p, 0) ** 2 + np.maximum(q, 0) ** 2)
        return outside + np.minimum(np.maximum(p, q), 0) - r

    extent = (largest(half_width), largest(half_height))
    return Shape(distance, extent, max(length(half_width), length(half_height)))


def capsule(x0: PerFrame, y0: PerFrame, x1: PerFrame, y1: PerFrame, radius: PerFrame) -> Shape:
    """The line from (x0, y0) to (x1, y1), `radius` thick on either side, with round ends."""
    ax, ay, bx, by, r = (column(value) for value in (x0, y0, x1, y1, radius))
    dx, dy = bx - ax, by - ay
    squared = dx * dx + dy * dy + np.float32(1e-12)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        p, q = u - ax, v - ay
        along = np.clip((p * dx + q * dy) / squared, 0, 1)
        return np.sqrt((p - dx * along) ** 2 + (q - dy * along) ** 2) - r

    extent = (
        max(largest(x0), largest(x1)) + largest(radius),
        max(largest(y0), largest(y1)) + largest(radius),
    )
    return Shape(distance, extent, max(length(value) for value in (x0, y0, x1, y1, radius)))


def polygon(corners: Sequence[tuple[float, float]]) -> Shape:
    """A filled polygon, convex or not."""
    points = np.asarray(corners, np.float32)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        u, v = np.broadcast_arrays(u, v)
        squared = np.full(u.shape, np.inf, np.float32)
        inside = np.zeros(u.shape, bool)
        for (ax, ay), (bx, by) in zip(points, np.roll(points, 1, axis=0), strict=True):
            ex, ey, p, q = bx - ax, by - ay, u - ax, v - ay
            along = np.clip((p * ex + q * ey) / (ex * ex + ey * ey), 0, 1)
            squared = np.minimum(squared, (p - ex * along) ** 2 + (q - ey * along) ** 2)
            if ey != 0:
                inside ^= ((v >= ay) != (v >= by)) & (p < ex * q / ey)
        return np.where(inside, -1, 1).astype(np.float32) * np.sqrt(squared)

    return Shape(distance, (float(np.abs(points[:, 0]).max()), float(np.abs(points[:, 1]).max())))


def half_plane(nx: float, ny: float, offset: PerFrame = 0.0) -> Shape:
    """Points with nx * u + ny * v <= offset, (nx, ny) of length 1. Without an extent: cut it with `&`."""
    limit = column(offset)
    return Shape(lambda u, v: np.float32(nx) * u + np.float32(ny) * v - limit, None, length(offset))


def union(*shapes: Shape) -> Shape:
    """What lies in any of the shapes."""

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        nearest = shapes[0].distance(u, v)
        for shape in shapes[1:]:
            nearest = np.minimum(nearest, shape.distance(u, v))
        return nearest

    extents = [shape.extent for shape in shapes if shape.extent is not None]
    whole = (max(e[0] for e in extents), max(e[1] for e in extents)) if len(extents) == len(shapes) else None
    return Shape(distance, whole, max(shape.frames for shape in shapes))


def smooth_union(first: Shape, second: Shape, radius: float) -> Shape:
    """The union with its inner corners filled over `radius`."""
    plain, k = union(first, second), np.float32(radius)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        a, b = first.distance(u, v), second.distance(u, v)
        share = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
        return b + (a - b) * share - k * share * (1 - share)

    return Shape(distance, plain.extent, plain.frames)
