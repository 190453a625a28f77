"""Many short thin lines at once (rain, sparks, splashes) as one shape: the cost grows with the lines' pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sora2.toybox.shapes import Shape


@dataclass(frozen=True)
class Streaks:
    """Lines with round ends, all (N,): the frame that shows each, its two ends and its half width.

    A half width below half a pixel, even below 0, makes a line fainter instead of thinner.
    """

    frame: np.ndarray  # index
    x0: np.ndarray
    y0: np.ndarray
    x1: np.ndarray
    y1: np.ndarray
    radius: np.ndarray

    def __add__(self, other: Streaks) -> Streaks:
        names = self.__dataclass_fields__
        return Streaks(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in names))


def streaks_shape(streaks: Streaks, frames: int) -> Shape:
    """The union of the lines of each of the T = `frames` frames.

    Its distance is exact within 1.5 pixels of a line and far outside elsewhere, which is all that drawing needs.
    """

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        tall, wide = v.shape[1], u.shape[2]
        field = np.full((frames, tall, wide), 1e3, np.float32)
        if streaks.frame.size == 0 or wide < 2 or tall < 2:
            return field
        frame = streaks.frame
        own = frame if u.shape[0] > 1 else np.zeros_like(frame)
        left, step = u[own, 0, 0], u[own, 0, 1] - u[own, 0, 0]  # (N,) world place and size of pixels
        top = v[own, 0, 0]
        reach = np.maximum(streaks.radius, 0) + 1.5 * step
        column = np.floor((np.minimum(streaks.x0, streaks.x1) - reach - left) / step).astype(int)
        row = np.floor((np.minimum(streaks.y0, streaks.y1) - reach - top) / step).astype(int)
        width = math.ceil(float(((np.abs(streaks.x1 - streaks.x0) + 2 * reach) / step).max())) + 1
        height = math.ceil(float(((np.abs(streaks.y1 - streaks.y0) + 2 * reach) / step).max())) + 1
        columns = (column[:, None] + np.arange(width))[:, None, :]  # (N, 1, w)
        rows = (row[:, None] + np.arange(height))[:, :, None]  # (N, h, 1)

        def each(value: np.ndarray) -> np.ndarray:
            return value.astype(np.float32)[:, None, None]

        p = each(left - streaks.x0) + columns.astype(np.float32) * each(step)
        q = each(top - streaks.y0) + rows.astype(np.float32) * each(step)
        dx, dy = each(streaks.x1 - streaks.x0), each(streaks.y1 - streaks.y0)
        along = np.clip((p * dx + q * dy) / (dx * dx + dy * dy + np.float32(1e-12)), 0, 1)
        near = np.sqrt((p - dx * along) ** 2 + (q - dy * along) ** 2) - each(streaks.radius)  # (N, h, w)
        seen = (columns >= 0) & (columns < wide) & (rows >= 0) & (rows < tall)
        seen &= near < each(step)
        place = (frame[:, None, None] * tall + rows) * wide + columns
        np.minimum.at(field.reshape(-1), place[seen], near[seen])
        return field

    return Shape(distance, None, frames)
