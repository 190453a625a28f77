"""One-to-one matching of two lists of moments, and the signed lag between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Lag:
    """The shift that brings `heard` onto `seen`."""

    seconds: float  # positive: the sound is late
    jitter_seconds: float  # spread (1.48 median absolute deviation) of the matched pairs about it
    pairs: int  # events that agree with it


def match(first: Seconds, second: Seconds, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair moments that are at most `tolerance` seconds apart, each used once.

    The number of pairs is the largest possible; among those the total distance is the smallest. (Counting every
    neighbour instead, many to one, lets one sound answer for several events and scores above 1 possible.)

    Returns indices (P,) into `first` and (P,) into `second`.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not len(first) or not len(second):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    distance = np.abs(first[:, None] - second[None, :])
    allowed = distance <= tolerance + 1e-9
    # An illegal pair costs more than all legal ones together, so no legal pair is given up for a short distance.
    price = np.where(allowed, distance, (tolerance + 1e-3) * (min(distance.shape) + 1))
    rows, columns = linear_sum_assignment(price)
    keep = allowed[rows, columns]
    return rows[keep], columns[keep]


def estimate_lag(
    seen: Seconds,
    heard: Seconds,
    *,
    seen_weight: NDArray[np.float64] | None = None,
    heard_weight: NDArray[np.float64] | None = None,
    limit: float = 0.6,
    width: float = 0.015,
) -> Lag | None:
    """Signed lag of the sound behind the picture, from events alone.

    Every difference heard - seen within `limit` is a candidate; the one that the most weight of events agrees with
    (one to one, a Gaussian of `width` seconds) wins, a smaller lag breaking near ties. So a clip with a steady rhythm
    is not matched to the wrong beat as long as any event tells the beats apart. None when no pair is in range.
    """
    seen, heard = np.asarray(seen, np.float64), np.asarray(heard, np.float64)
    difference = heard[None, :] - seen[:, None]  # (A, B)
    candidates = np.unique(difference[np.abs(difference) <= limit].round(4))
    if not len(candidates):
        return None
    a = np.ones(len(seen)) if seen_weight is None else np.asarray(seen_weight, np.float64)
    b = np.ones(len(heard)) if heard_weight is None else np.asarray(heard_weight, np.float64)
    pair_weight = np.sqrt(a[:, None] * b[None, :])  # (A, B)
    best, best_score = 0.0, -np.inf
    for lag in candidates:
        agreement = np.exp(-0.5 * ((difference - lag) / width) ** 2) * pair_weight
        score = min(agreement.max(axis=1).sum(), agreement.max(axis=0).sum())
        score *= 1 - 0.1 * abs(lag) / limit
        if score > best_score:
            best, best_score = float(lag), score
    rows, columns = match(seen, heard - best, 3 * width)
    residual = difference[rows, columns]
    weight = pair_weight[rows, columns]
    if not len(residual):
        return None
    lag = weighted_median(residual, weight)
    jitter = 1.4826 * float(np.median(np.abs(residual - lag)))
    return Lag(lag, jitter, len(residual))


def weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The value that splits the weight in halves, interpolated, so it moves smoothly with its inputs."""
    order = np.argsort(values)
    v, w = values[order], weights[order]
    centre = np.cumsum(w) - 0.5 * w
    return float(np.interp(0.5 * w.sum(), centre, v))


def f1_score(seen: int, heard: int, seen_matched: int, heard_matched: int) -> float:
    """F1 of events: recall over what is seen, precision over what is heard. 0 when there is nothing to match."""
    if not seen or not heard:
        return 0.0
    recall, precision = seen_matched / seen, heard_matched / heard
    return 0.0 if recall + precision == 0 else 2 * recall * precision / (recall + precision)
