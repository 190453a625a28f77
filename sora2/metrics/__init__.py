"""Metrics in physical units, tested by controlled corruption, that never forgive a clip they cannot measure.

    from sora2.metrics import all_metrics
    value = all_metrics()["av_offset"](clip)      # MetricValue(value=-3.1, status="measured", unit="ms")

`registry` says what a metric is, `measures/` holds them, `evaluation` runs them over rows of clips.
"""

from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import (
    Metric,
    MetricError,
    MetricValue,
    Unmeasurable,
    all_metrics,
    metric,
    select_metrics,
)

__all__ = [
    "Evidence",
    "Metric",
    "MetricError",
    "MetricValue",
    "Unmeasurable",
    "all_metrics",
    "metric",
    "select_metrics",
]
