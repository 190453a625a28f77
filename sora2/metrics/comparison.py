"""Is A better than B? Two evaluations, clip by clip: paired differences, intervals and tests, prompt by prompt."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.registry import Metric, all_metrics
from sora2.metrics.statistics import Interval, clustered_bootstrap
from sora2.metrics.values import MetricError, MetricValue

#: Sign flips of the permutation test; all of them are tried where there are fewer.
PERMUTATIONS = 4096
#: Family-wise error rate of the verdicts, after Holm's correction.
LEVEL = 0.05


@dataclass(frozen=True)
class Side:
    """One evaluation that is compared: the subject row of a metrics.json."""

    path: Path
    row: str
    clips: list[dict[str, Any]]


@dataclass(frozen=True)
class Difference:
    """One metric: B less A, over prompts."""

    metric: Metric
    a: float  # mean or median of A's measured clips
    b: float
    measured_a: float  # share
    measured_b: float
    value: Interval  # difference where both clips of a pair are measured
    cost: Interval  # difference of cost, all pairs; below 0: B is better
    success: Interval  # difference of success rates, all pairs
    p: float  # two-sided sign-flip test on the cost of whole prompts
    adjusted_p: float  # Holm's correction over the metrics

    @property
    def verdict(self) -> str:
        if not math.isfinite(self.adjusted_p):
            return "one prompt: no test"
        if self.adjusted_p > LEVEL:
            return "no difference shown"
        return "B is better" if self.cost.estimate < 0 else "A is better"


@dataclass(frozen=True)
class Comparison:
    """All metrics, and what could not be paired."""

    a: Side
    b: Side
    differences: list[Difference]
    pairs: int
    prompts: int
    notes: list[str]


def read_side(path: Path, row: str | None = None) -> Side:
    """The subject (first) row of an evaluation's folder or metrics.json, or the named one.

    Raises:
        MetricError: no evaluation there, or no such row.
    """
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        raise MetricError(f"{path}: there is no metrics.json; give the --out folder of `sora2 evaluate`")
    try:
        entry = json.loads(file.read_text())
        rows, order = entry["rows"], entry["order"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise MetricError(f"{file} is no evaluation: {error}") from error
    if not order:
        raise MetricError(f"{file} holds no rows")
    name = order[0] if row is None else row
    if name not in rows:
        raise MetricError(f"{file} has no row {name!r}: choose from {', '.join(order)}")
    return Side(file, name, rows[name]["clips"])


def compare(a: Side, b: Side) -> Comparison:
    """Pair the clips of A and B by prompt and seed, and test every metric that both have.

    Where a prompt has the same seeds on both sides, clips of one seed are a pair; else the k-th clip of A is paired
    with the k-th of B, sorted by key. Clips of one prompt are one cluster.

    Raises:
        MetricError: the two share no prompt, or no metric.
    """
    pairs, notes = _pair(a, b)
    known = all_metrics()
    names = [n for n in known if any(n in p["metrics"] and n in q["metrics"] for _, p, q in pairs)]
    if not names:
        raise MetricError(f"{a.path} and {b.path} share no metric: evaluate both with the same --metrics")
    raw = [_difference(known[n], pairs) for n in names]
    found = [d for d in raw if d is not None]
    adjusted = holm([d.p for d in found])
    differences = [_with(d, p) for d, p in zip(found, adjusted, strict=True)]
    return Comparison(a, b, differences, len(pairs), len({prompt for prompt, _, _ in pairs}), notes)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment; NaN stays NaN and is not counted."""
    values = np.asarray(p, np.float64)
    result = np.full(len(values), np.nan)
    tested = np.flatnonzero(np.isfinite(values))
    running = 0.0
    for rank, i in enumerate(tested[np.argsort(values[tested])]):
        running = max(running, min(1.0, (len(tested) - rank) * values[i]))
        result[i] = running
    return result.tolist()


def sign_flip_p(differences: NDArray[np.float64], seed: int = 0) -> float:
    """Two-sided p of a mean of zero: how often flipping the signs of whole prompts gives as large a mean.

    Exact where all sign patterns can be tried. NaN for fewer than two prompts.
    """
    n = len(differences)
    if n < 2:
        return math.nan
    if 2**n <= PERMUTATIONS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        means = np.abs(signs @ differences)
        return float((means >= abs(differences.sum()) - 1e-12).mean())
    signs = np.random.default_rng(seed).choice((-1, 1), (PERMUTATIONS, n))
    means = np.abs(signs @ differences)
    return float((1 + (means >= abs(differences.sum()) - 1e-12).sum()) / (1 + PERMUTATIONS))


Pair = tuple[str, dict[str, Any], dict[str, Any]]


def _pair(a: Side, b: Side) -> tuple[list[Pair], list[str]]:
    of_a, of_b = _by_prompt(a), _by_prompt(b)
    shared = [p for p in of_a if p in of_b]
    if not shared:
        raise MetricError(
            f"no prompt of {a.path} ({len(of_a)} prompts, such as {next(iter(of_a), '')!r}) is in {b.path} "
            f"({len(of_b)}, such as {next(iter(of_b), '')!r}): "
            "evaluate both on the same prompts, with KEY.json beside KEY.mp4"
        )
    notes = []
    for name, own, other in (("A", of_a, of_b), ("B", of_b, of_a)):
        alone = [p for p in own if p not in other]
        if alone:
            notes.append(f"{len(alone)} prompts are in {name} only and are left out, such as {alone[0]!r}.")
    pairs: list[Pair] = []
    unequal = 0
    for prompt in shared:
        left, right = of_a[prompt], of_b[prompt]
        seeds = {c["seed"]: c for c in right}
        if None not in seeds and len(seeds) == len(right) and {c["seed"] for c in left} == set(seeds):
            pairs += [(prompt, c, seeds[c["seed"]]) for c in left]
            continue
        unequal += len(left) != len(right)
        pairs += [(prompt, p, q) for p, q in zip(left, right, strict=False)]
    if unequal:
        notes.append(f"{unequal} prompts have more clips on one side; the surplus is left out.")
    return pairs, notes


def _by_prompt(side: Side) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for clip in sorted(side.clips, key=lambda c: c["key"]):
        found[clip["prompt"]].append(clip)
    return dict(found)


def _difference(metric: Metric, pairs: list[Pair]) -> Difference | None:
    """None where neither side was measured at all."""
    rated = [
        (prompt, _value(p["metrics"][metric.name]), _value(q["metrics"][metric.name]))
        for prompt, p, q in pairs
        if metric.name in p["metrics"] and metric.name in q["metrics"]
    ]
    if not any(v.measured or w.measured for _, v, w in rated):
        return None
    prompts = [prompt for prompt, _, _ in rated]
    cost = np.array([metric.cost(w) - metric.cost(v) for _, v, w in rated])
    success = [float(metric.success(w)) - float(metric.success(v)) for _, v, w in rated]
    both = [(prompt, w.value - v.value) for prompt, v, w in rated if v.measured and w.measured]
    statistic = np.median if metric.statistic == "median" else np.mean
    per_prompt = [
        cost[[i for i, p in enumerate(prompts) if p == name]].mean() for name in dict.fromkeys(prompts)
    ]

    def summed(values: list[MetricValue]) -> float:
        measured = [v.value for v in values if v.measured]
        return float(statistic(measured)) if measured else math.nan

    left, right = [v for _, v, _ in rated], [w for _, _, w in rated]
    return Difference(
        metric,
        summed(left),
        summed(right),
        float(np.mean([v.measured for v in left])),
        float(np.mean([w.measured for w in right])),
        clustered_bootstrap([d for _, d in both], [p for p, _ in both], statistic),
        clustered_bootstrap(cost.tolist(), prompts),
        clustered_bootstrap(success, prompts),
        sign_flip_p(np.array(per_prompt)),
        math.nan,
    )


def _value(plain: dict[str, Any]) -> MetricValue:
    value = math.nan if plain["value"] is None else plain["value"]
    return MetricValue(value, plain["status"], plain["reason"], plain["unit"], plain["details"])


def _with(d: Difference, adjusted: float) -> Difference:
    return replace(d, adjusted_p=adjusted)
