"""The gate of the speedrun: fixed shares of what real clips have, on fixed captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sora2.metrics.values import MetricError

#: Metric of `sora2 evaluate` -> share of the value of real clips that a model must reach.
GATE = {"av_f1_45": 0.80, "prompt_accuracy": 0.90}
SPLIT, CLIPS = "validation", 512


@dataclass(frozen=True)
class GateResult:
    """One condition of the gate. A clip that could not be measured counts as zero."""

    metric: str
    value: float  # mean over all clips
    real: float  # the same of real clips
    needed: float  # share of `real`

    @property
    def share(self) -> float:
        return self.value / self.real

    @property
    def passed(self) -> bool:
        return self.share >= self.needed


def check_gate(generated: dict[str, Any], real: dict[str, Any]) -> list[GateResult]:
    """From the summaries of two rows of `metrics.json`.

    Raises:
        MetricError: a metric of the gate was not evaluated.
    """
    results = []
    for metric, needed in GATE.items():
        values = []
        for name, summary in (("generated", generated), ("real", real)):
            if metric not in summary:
                raise MetricError(
                    f"the {name} clips have no {metric}: evaluate with --metrics {','.join(GATE)}"
                )
            found = summary[metric]
            estimate = found["value"]["estimate"]
            values.append(0.0 if estimate is None else estimate * found["measured"] / found["clips"])
        if not values[1]:
            raise MetricError(f"{metric} of real clips is 0: the gate cannot be taken from them")
        results.append(GateResult(metric, values[0], values[1], needed))
    return results
