"""Metrics in physical units, tested by controlled corruption, that never forgive a clip they cannot measure.

    from sora2.metrics import all_metrics
    value = all_metrics()["av_offset"](clip)      # MetricValue(value=-3.1, status="measured", unit="ms")

`registry` says what a metric is; `measures/` holds those of a clip, `corpora/` those of a set; `gates` what a clip
must be first; `evaluation` runs them over rows of clips; `corruptions/` and `calibration` show that they can be
trusted.
"""

from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import (
    CorpusMetric,
    Metric,
    all_corpus_metrics,
    all_metrics,
    corpus_metric,
    metric,
    select_metrics,
)
from sora2.metrics.values import MetricError, MetricValue, NotAsked, Unmeasurable

__all__ = [
    "CorpusMetric",
    "Evidence",
    "Metric",
    "MetricError",
    "MetricValue",
    "NotAsked",
    "Unmeasurable",
    "all_corpus_metrics",
    "all_metrics",
    "corpus_metric",
    "metric",
    "select_metrics",
]
