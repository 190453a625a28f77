"""Rows of clips through all metrics, and what they sum up to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from sora2.metrics.controls import Item
from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import Metric, MetricValue
from sora2.metrics.statistics import Interval, clustered_bootstrap


@dataclass(frozen=True)
class Row:
    """One line of the table: a name, what it is, and its clips. `items` may be a generator of known `size`."""

    name: str
    description: str
    items: Iterable[Item]
    size: int


@dataclass(frozen=True)
class Outcome:
    """All values of one clip."""

    key: str
    prompt: str
    seed: int | None
    path: str
    values: dict[str, MetricValue]


@dataclass(frozen=True)
class Summary:
    """One metric over one row."""

    value: Interval  # mean or median over measured clips
    success: Interval  # share of all clips that reach the tolerance; an unmeasurable clip does not
    measured: int
    clips: int
    reasons: dict[str, int]  # why clips were unmeasurable

    @property
    def measured_share(self) -> float:
        return self.measured / self.clips if self.clips else math.nan


@dataclass
class Evaluation:
    """Everything measured: per row, per clip, and summed up."""

    metrics: dict[str, Metric]
    descriptions: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    summaries: dict[str, dict[str, Summary]] = field(default_factory=dict)

    @property
    def anything_measured(self) -> bool:
        """Whether any metric has a value on any clip."""
        return any(s.measured for row in self.summaries.values() for s in row.values())

    def values(self, row: str, name: str) -> np.ndarray:
        """(clips,) of one metric, NaN where unmeasurable."""
        return np.array([o.values[name].value for o in self.outcomes[row]])


def evaluate_rows(rows: Sequence[Row], metrics: Mapping[str, Metric], *, progress: bool = True) -> Evaluation:
    """Measure every clip of every row. Metrics that need a reference are left out of rows that have none."""
    result = Evaluation(dict(metrics))
    with tqdm(total=sum(r.size for r in rows), unit="clip", desc="evaluate", disable=not progress) as bar:
        for row in rows:
            bar.set_postfix_str(row.name)
            outcomes = []
            for item in row.items:
                outcomes.append(measure_item(item, metrics))
                bar.update()
            result.descriptions[row.name] = row.description
            result.outcomes[row.name] = outcomes
            result.summaries[row.name] = summarise(outcomes, metrics)
    return result


def measure_item(item: Item, metrics: Mapping[str, Metric]) -> Outcome:
    """All metrics on one clip. One that could not be read is unmeasurable by all, for that reason."""
    values: dict[str, MetricValue] = {}
    evidence = None if item.clip is None else Evidence(item.clip, truth=item.truth, reference=item.reference)
    for name, metric in metrics.items():
        if evidence is None:
            values[name] = MetricValue(math.nan, "unmeasurable", item.failure, metric.unit)
        elif "reference" in metric.needs and item.reference is None:
            continue
        else:
            values[name] = metric.evaluate(evidence)
    return Outcome(item.key, item.prompt, item.seed, item.path, values)


def summarise(outcomes: Sequence[Outcome], metrics: Mapping[str, Metric]) -> dict[str, Summary]:
    """Per metric: estimate and success rate with intervals clustered by prompt, measured share, reasons."""
    summaries = {}
    for name, metric in metrics.items():
        rated = [(o.prompt, o.values[name]) for o in outcomes if name in o.values]
        if not rated or (
            "reference" in metric.needs
            and not any(v.measured for _, v in rated)
            and len(rated) < len(outcomes)
        ):
            continue
        good = [(p, v.value) for p, v in rated if v.measured]
        statistic = np.median if metric.statistic == "median" else np.mean
        success = [float(metric.success(v)) for _, v in rated]
        summaries[name] = Summary(
            value=clustered_bootstrap([v for _, v in good], [p for p, _ in good], statistic),
            success=clustered_bootstrap(success, [p for p, _ in rated]),
            measured=len(good),
            clips=len(rated),
            reasons=dict(Counter(v.reason for _, v in rated if not v.measured).most_common()),
        )
    return summaries


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """JSON-able form: metric definitions, and per row its clips and summaries. NaN becomes null."""
    return {
        "metrics": {
            name: {
                "unit": m.unit,
                "direction": m.direction,
                "needs": sorted(m.needs),
                "tolerance": m.tolerance,
                "statistic": m.statistic,
                "description": m.description,
            }
            for name, m in evaluation.metrics.items()
        },
        "order": list(evaluation.outcomes),
        "rows": {
            row: {
                "description": evaluation.descriptions[row],
                "summary": {name: _plain(asdict(s)) for name, s in evaluation.summaries[row].items()},
                "clips": [
                    {
                        "key": o.key,
                        "prompt": o.prompt,
                        "seed": o.seed,
                        "path": o.path,
                        "metrics": {name: _plain(asdict(v)) for name, v in o.values.items()},
                    }
                    for o in outcomes
                ],
            }
            for row, outcomes in evaluation.outcomes.items()
        },
    }


def _plain(value: Any) -> Any:
    """Nested dicts and lists with Python numbers, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
