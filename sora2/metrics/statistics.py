"""Confidence intervals by bootstrap over prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval. All three are NaN when there is nothing to estimate."""

    estimate: float
    low: float
    high: float
    samples: int  # values
    clusters: int  # independent groups of them


def members(clusters: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """Rows of each cluster, in the order in which clusters come first."""
    rows: dict[Hashable, list[int]] = {}
    for row, cluster in enumerate(clusters):
        rows.setdefault(cluster, []).append(row)
    return [np.array(found) for found in rows.values()]


def resample(groups: Sequence[NDArray[np.int64]], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of one bootstrap draw of whole groups of them: as many groups as there are, with replacement."""
    return np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])


def clustered_bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    statistic: Callable[[NDArray[np.float64]], float] = np.mean,
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap that draws whole clusters (prompts) with replacement.

    Clips of one prompt are not independent; drawing clips would make intervals too narrow by up to the square root
    of the clips per prompt. One cluster gives an interval of unknown width: low and high are NaN.
    """
    x = np.asarray(values, np.float64)
    if len(x) != len(clusters):
        raise ValueError(f"{len(x)} values but {len(clusters)} cluster labels")
    if not len(x):
        return Interval(np.nan, np.nan, np.nan, 0, 0)
    groups = [x[rows] for rows in members(clusters)]
    estimate = float(statistic(x))
    if len(groups) < 2:
        return Interval(estimate, np.nan, np.nan, len(x), len(groups))
    rng = np.random.default_rng(seed)
    draw = rng.integers(len(groups), size=(draws, len(groups)))
    if statistic is np.mean:  # of whole clusters, from their sums
        sums, counts = np.array([m.sum() for m in groups]), np.array([len(m) for m in groups])
        estimates = sums[draw].sum(axis=1) / counts[draw].sum(axis=1)
    elif len({len(m) for m in groups}) == 1 and statistic is np.median:
        estimates = np.median(np.stack(groups)[draw].reshape(draws, -1), axis=1)
    else:
        estimates = np.array([statistic(np.concatenate([groups[i] for i in row])) for row in draw])
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), len(x), len(groups))
