"""Does what is measured follow what is commanded? Slopes over a set of clips; 1 is perfect, 0 is no response.

With clips of one seed that differ in one attribute of the prompt (`sora2 evaluate --interventions`) the slope is that
of the intervention: clips of one group are compared with each other alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.corpus import Corpus
from sora2.metrics.registry import corpus_metric
from sora2.metrics.statistics import members
from sora2.metrics.values import MetricValue, Unmeasurable

Array = NDArray[np.float64]

#: Clips, and ratio of the largest to the smallest command, that a slope needs.
FEWEST, LEAST_RANGE = 6, 1.2


def response(commanded: Sequence[float], measured: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    """Least-squares slope of measured on commanded within groups, with its bootstrap interval over groups.

    Where a group has a command several times, the median of what was measured stands for all of them, so that single
    impacts that were misread do not tilt the line. Within groups of one clip nothing can be compared, so when all are
    such, the clips are one group.

    Raises:
        Unmeasurable: too few clips, or commands too alike.
    """
    x, y = np.asarray(commanded, np.float64), np.asarray(measured, np.float64)
    if len(x) < FEWEST:
        raise Unmeasurable(f"{len(x)} clips were measured; {FEWEST} are needed for a slope")
    if np.ptp(x) < 1e-9:
        raise Unmeasurable("all clips command the same value")
    names = list(groups) if len(set(groups)) < len(groups) else [""] * len(x)
    table = np.array([_moments(x[m], y[m]) for m in members(names)])  # (groups, 3)
    if table[:, 1].sum() < 1e-12:
        raise Unmeasurable("within groups all clips command the same value")
    xy, xx, yy = table.sum(axis=0)
    rng = np.random.default_rng(0)
    if len(table) > 1:
        draws = table[rng.integers(len(table), size=(1000, len(table)))].sum(axis=1)
    else:
        draws = np.array([_moments(x[i], y[i]) for i in rng.integers(len(x), size=(1000, len(x)))])
    low, high = np.quantile(draws[:, 0] / np.maximum(draws[:, 1], 1e-12), (0.025, 0.975))
    return {
        "slope": xy / xx,
        "interval": [float(low), float(high)],
        "correlation": float(xy / np.sqrt(xx * yy)) if yy > 0 else 0.0,
        "clips": len(x),
        "groups": len(table),
    }


def _moments(x: Array, y: Array) -> tuple[float, float, float]:
    """Sums of dx dy, dx^2, dy^2 over (n,) pairs, with the median of y at each distinct x in place of each y there."""
    values, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    in_order = y[np.lexsort((y, place))]
    first = np.cumsum(counts) - counts
    middle = (in_order[first + (counts - 1) // 2] + in_order[first + counts // 2]) / 2
    dx, dy = values - np.average(values, weights=counts), middle - np.average(middle, weights=counts)
    return float(counts @ (dx * dy)), float(counts @ dx**2), float(counts @ dy**2)


def _slope(found: dict[str, Any]) -> MetricValue:
    return MetricValue(float(found.pop("slope")), "measured", details=found)


@corpus_metric("gravity_response", unit="", direction="higher", rests_on=("gravity_error",))
def gravity_response(corpus: Corpus) -> MetricValue:
    """Slope of the logarithm of measured gravity on that of commanded gravity."""
    rows = [o for o in corpus.outcomes if "gravity_error" in o.values and o.values["gravity_error"].measured]
    rows = [o for o in rows if o.values["gravity_error"].details["measured"] > 0]
    details = [o.values["gravity_error"].details for o in rows]
    x = np.log([d["commanded"] for d in details])
    y = np.log([d["measured"] for d in details])
    return _slope(response(x, y, [_group(o.key) for o in rows]))


@corpus_metric("restitution_response", unit="", direction="higher", rests_on=("restitution_error",))
def restitution_response(corpus: Corpus) -> MetricValue:
    """Slope of measured restitution on that commanded, over single impacts."""
    x: list[float] = []
    y: list[float] = []
    groups: list[str] = []
    for o in corpus.outcomes:
        value = o.values.get("restitution_error")
        if value is not None and value.measured:
            x += value.details["commanded"]
            y += value.details["measured"]
            groups += [_group(o.key)] * len(value.details["measured"])
    return _slope(response(x, y, groups if any(g for g in groups) else [""] * len(x)))


@corpus_metric("pan_response", unit="", direction="higher", rests_on=("pan_error",))
def pan_response(corpus: Corpus) -> MetricValue:
    """Slope of the place of impacts in the stereo sound on that in the picture."""
    x: list[float] = []
    y: list[float] = []
    for d in corpus.details("pan_error"):
        x += d["seen"]
        y += d["heard"]
    return _slope(response(x, y, [""] * len(x)))


@corpus_metric("material_response", unit="", direction="higher", rests_on=("struck_material",))
def material_response(corpus: Corpus) -> MetricValue:
    """Share of balls that sound of their material, beyond what guessing one of three would reach: 1 all, 0 chance."""
    right = total = 0
    for o in corpus.outcomes:
        value = o.values.get("struck_material")
        if value is not None and value.measured:
            asked = int(value.details.get("asked", 1))
            right += round(value.value * asked)
            total += asked
    if total < FEWEST:
        raise Unmeasurable(f"{total} balls were heard; {FEWEST} are needed")
    return MetricValue(
        (right / total - 1 / 3) / (2 / 3), "measured", details={"right": right, "balls": total}
    )


def _group(key: str) -> str:
    """Clips whose keys agree up to "--" are one intervention."""
    return key.split("--")[0] if "--" in key else ""
