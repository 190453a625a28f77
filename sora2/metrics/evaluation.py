"""Rows of clips through all metrics, and what they sum up to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sora2.metrics.controls import Item
from sora2.metrics.corpus import Corpus, Outcome
from sora2.metrics.gates import GATES, Expected
from sora2.metrics.measuring import Task, measure_all
from sora2.metrics.registry import CorpusMetric, Metric
from sora2.metrics.statistics import Interval, clustered_bootstrap
from sora2.metrics.values import MetricValue

#: The row that corpus metrics compare with.
REFERENCE_ROW = "real"


@dataclass(frozen=True)
class Row:
    """One line of the table: a name, what it is, and its clips. `items` may be a generator of known `size`."""

    name: str
    description: str
    items: Iterable[Item]
    size: int
    expected: Expected = field(default_factory=Expected)


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
    corpus_metrics: dict[str, CorpusMetric] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    summaries: dict[str, dict[str, Summary]] = field(default_factory=dict)
    corpora: dict[str, dict[str, MetricValue]] = field(default_factory=dict)

    def values(self, row: str, name: str) -> np.ndarray:
        """(clips,) of one metric, NaN where unmeasurable; clips that are not asked for it are left out."""
        return np.array([o.values[name].value for o in self.outcomes[row] if name in o.values])

    def gates(self, row: str) -> dict[str, int]:
        """Clips that fail each gate."""
        failed = Counter(name for o in self.outcomes[row] for name in o.gates)
        return {name: failed[name] for name in GATES}

    def measured_anything(self, row: str) -> bool:
        """Whether any metric has a value on any clip of a row, or on all of it."""
        return any(s.measured for s in self.summaries[row].values()) or any(
            value.measured for value in self.corpora[row].values()
        )


def evaluate_rows(
    rows: Sequence[Row],
    metrics: Mapping[str, Metric],
    corpus_metrics: Mapping[str, CorpusMetric] | None = None,
    *,
    progress: bool = True,
    workers: int = 1,
    cache: Path | None = None,
) -> Evaluation:
    """Measure every clip of every row, then every row as a whole.

    Metrics that need a reference are left out of rows that have none. `cache`: a folder in which outcomes are kept,
    so that an interrupted evaluation can be continued.
    """
    corpus_metrics = {} if corpus_metrics is None else dict(corpus_metrics)
    if len({row.name for row in rows}) < len(rows):
        raise ValueError(f"rows of one name: {[row.name for row in rows]}")
    features = tuple(dict.fromkeys(f for m in corpus_metrics.values() for f in m.features))
    weights = tuple(dict.fromkeys(w for m in corpus_metrics.values() for w in m.weights))
    result = Evaluation(dict(metrics), corpus_metrics)
    with tqdm(total=sum(r.size for r in rows), unit="clip", desc="evaluate", disable=not progress) as bar:
        for row in rows:
            bar.set_postfix_str(row.name)
            task = Task(tuple(metrics), features, weights, row.expected)
            file = None if cache is None else cache / f"{re.sub('[^a-z0-9]+', '-', row.name.lower())}.jsonl"
            outcomes = []
            for outcome in measure_all(row.items, task, workers=workers, cache_file=file):
                outcomes.append(outcome)
                bar.update()
            result.descriptions[row.name] = row.description
            result.outcomes[row.name] = outcomes
            result.summaries[row.name] = summarise(outcomes, metrics)
    reference = result.outcomes.get(REFERENCE_ROW, [])
    for name, outcomes in result.outcomes.items():
        found = {n: _of_corpus(m, name, outcomes, reference) for n, m in corpus_metrics.items()}
        result.corpora[name] = {n: v for n, v in found.items() if v is not None}
    return result


def _of_corpus(
    metric: CorpusMetric, row: str, outcomes: list[Outcome], reference: list[Outcome]
) -> MetricValue | None:
    """None where there is nothing to compare with. The real row is compared with itself, one half with the other."""
    if not metric.compares:
        return metric(Corpus(outcomes))
    if not reference:
        return None
    if row == REFERENCE_ROW:
        return metric(Corpus(outcomes[::2], outcomes[1::2]))
    return metric(Corpus(outcomes, reference))


def summarise(outcomes: Sequence[Outcome], metrics: Mapping[str, Metric]) -> dict[str, Summary]:
    """Per metric: estimate and success rate with intervals clustered by prompt, measured share, reasons."""
    summaries = {}
    for name, metric in metrics.items():
        rated = [(o.prompt, o.values[name]) for o in outcomes if name in o.values]
        unread_only = not any(v.measured for _, v in rated) and len(rated) < len(outcomes)
        if not rated or (metric.needs & {"reference", "enrolment"} and unread_only):
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
                "best": m.best,
                "statistic": m.statistic,
                "group": m.group,
                "answers_to": sorted(m.answers_to),
                "ceiling": None if m.ceiling is None else m.ceiling(),
                "description": m.description,
            }
            for name, m in evaluation.metrics.items()
        },
        "corpus_metrics": {
            name: {
                "unit": m.unit,
                "direction": m.direction,
                "features": m.features,
                "description": m.description,
            }
            for name, m in evaluation.corpus_metrics.items()
        },
        "order": list(evaluation.outcomes),
        "rows": {
            row: {
                "description": evaluation.descriptions[row],
                "gates": evaluation.gates(row),
                "summary": {name: plain(asdict(s)) for name, s in evaluation.summaries[row].items()},
                "corpus": {name: plain(asdict(v)) for name, v in evaluation.corpora.get(row, {}).items()},
                "clips": [
                    {
                        "key": o.key,
                        "prompt": o.prompt,
                        "seed": o.seed,
                        "path": o.path,
                        "fps": o.fps,
                        "size": list(o.size),
                        "gates": o.gates,
                        "metrics": {name: plain(asdict(v)) for name, v in o.values.items()},
                    }
                    for o in outcomes
                ],
            }
            for row, outcomes in evaluation.outcomes.items()
        },
    }


def plain(value: Any) -> Any:
    """Nested dicts and lists with Python numbers, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
