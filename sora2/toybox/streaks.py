"""Many short thin lines at once (rain, sparks, splashes) as one shape: the cost grows with the lines' pixels."""

from __future__ import annotations

from collections.abc import Sequence
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


def streaks_shape(groups: Sequence[Streaks], frames: int) -> Shape:
    """The union of the lines of each of the T = `frames` frames. Lines of about one size make one group.

    Its distance is exact within half a pixel of a line and far outside elsewhere: do not blur or grow it.
    """

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        field = np.full((frames, v.shape[1], u.shape[2]), 1e3, np.float32)
        for streaks in groups:
            if streaks.frame.size:
                _draw(field, streaks, u, v)
        return field

    return Shape(distance, None, frames)


def _draw(field: np.ndarray, streaks: Streaks, u: np.ndarray, v: np.ndarray) -> None:
    """Lower field (T, h, w) to the distance of the lines; u (n, 1, w) and v (n, h, 1) are world places."""
    _, tall, wide = field.shape
    frame = streaks.frame
    step = (u[:, 0, -1] - u[:, 0, 0]) / max(1, wide - 1)  # (n,) size of a pixel
    own = frame if u.shape[0] > 1 else np.zeros_like(frame)
    step, left, top = (value.astype(np.float64)[own] for value in (step, u[:, 0, 0], v[:, 0, 0]))
    # in pixels from here on
    x0, x1 = (streaks.x0 - left) / step, (streaks.x1 - left) / step
    y0, y1 = (streaks.y0 - top) / step, (streaks.y1 - top) / step
    reach = np.maximum(streaks.radius / step, 0) + 0.6
    low_x, high_x = np.minimum(x0, x1) - reach, np.maximum(x0, x1) + reach
    low_y, high_y = np.minimum(y0, y1) - reach, np.maximum(y0, y1) + reach
    seen = np.flatnonzero((high_x > 0) & (low_x < wide - 1) & (high_y > 0) & (low_y < tall - 1))
    if seen.size == 0:
        return
    column, row = np.ceil(low_x[seen]).astype(int), np.ceil(low_y[seen]).astype(int)
    width = int(np.ceil((high_x - low_x)[seen].max())) + 1
    height = int(np.ceil((high_y - low_y)[seen].max())) + 1

    def each(value: np.ndarray) -> np.ndarray:
        return value.astype(np.float32)[:, None, None]

    p = each(column - x0[seen]) + np.arange(width, dtype=np.float32)  # (N, 1, w)
    q = each(row - y0[seen]) + np.arange(height, dtype=np.float32)[:, None]  # (N, h, 1)
    dx, dy = each((x1 - x0)[seen]), each((y1 - y0)[seen])
    along = np.clip((p * dx + q * dy) / (dx * dx + dy * dy + np.float32(1e-9)), 0, 1)  # (N, h, w)
    near = np.sqrt((p - dx * along) ** 2 + (q - dy * along) ** 2) * each(step[seen])
    near -= each(streaks.radius[seen])
    columns, rows = column[:, None] + np.arange(width), row[:, None] + np.arange(height)
    inside = ((columns >= 0) & (columns < wide))[:, None, :] & ((rows >= 0) & (rows < tall))[:, :, None]
    inside &= near < each(step[seen])
    place = ((frame[seen, None] * tall + rows) * wide)[:, :, None] + columns[:, None, :]
    np.minimum.at(field.reshape(-1), place[inside], near[inside])
