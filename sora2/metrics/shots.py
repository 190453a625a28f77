"""Where does the picture cut? From pixels alone."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

#: A cut changes the picture by so many levels on average, and so many times as much as its neighbourhood does.
LEAST_LEVELS, LEAST_RATIO = 9.0, 2.5
#: Pictures are compared at this size.
SIDE = 32


def find_cuts(video: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Frames (K,) of (T, H, W, 3) that begin a new shot.

    What changes at a cut stays changed: a flash of one or two frames is none. Dissolves are not found.
    """
    if len(video) < 2:
        return np.zeros(0, np.intp)
    small = np.stack([cv2.resize(f, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for f in video]).astype(
        np.float32
    )
    step = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3))  # (T - 1,)
    last = len(small) - 1
    index = np.arange(last)
    ahead = np.abs(small[np.minimum(index + 3, last)] - small[:-1]).mean(axis=(1, 2, 3))
    behind = np.abs(small[1:] - small[np.maximum(index - 2, 0)]).mean(axis=(1, 2, 3))
    padded = np.pad(step, 3, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 7)[:, [0, 1, 2, 4, 5, 6]]
    usual = np.median(around, axis=1)
    size = np.minimum(step, np.minimum(ahead, behind))
    found = (size > LEAST_LEVELS) & (size / (usual + 1) > LEAST_RATIO)
    found[1:] &= ~(found[:-1] & (step[1:] <= step[:-1]))
    return np.flatnonzero(found) + 1


def shots_of(video: NDArray[np.uint8]) -> list[slice]:
    """The frames of each shot, in order."""
    edges = [0, *find_cuts(video).tolist(), len(video)]
    return [slice(a, b) for a, b in pairwise(edges)]
