"""What a metric is: one function with a name, a unit, a direction and its needs, and values that carry a status.

A metric of one clip is a function of `Evidence` in a module of `sora2/metrics/measures/`, decorated with `@metric`.
Modules of that folder are found by themselves: adding a metric is adding one function or one file.

A clip that cannot be measured has no value but a reason. Averages are over measured clips and always stand beside
the share of them; the success rate is over all clips, so losing the ball, or silence, never helps.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sora2.errors import UserError

if TYPE_CHECKING:
    from sora2.metrics.evidence import Evidence
    from sora2.types import Clip

#: "lower"/"higher": which way is better. "zero": a signed quantity that is best at 0.
Direction = Literal["lower", "higher", "zero"]

Statistic = Literal["mean", "median"]

#: What a metric may need beside its clip. A row of a table that cannot offer it shows no value for that metric.
NEEDS = ("video", "audio", "truth", "reference")


class MetricError(UserError):
    """An evaluation that cannot be done: nothing to evaluate, an unknown metric, a file that cannot be read."""


class Unmeasurable(Exception):
    """Raised inside a metric when the clip does not hold what it measures; the message is the reason shown."""


@dataclass(frozen=True)
class MetricValue:
    """The outcome of one metric on one clip."""

    value: float  # in `unit`; NaN exactly when status is "unmeasurable"
    status: Literal["measured", "unmeasurable"]
    reason: str = ""  # why it is unmeasurable
    unit: str = ""
    details: dict[str, Any] = field(default_factory=dict)  # intermediate quantities, JSON-able

    @property
    def measured(self) -> bool:
        return self.status == "measured"


@dataclass(frozen=True)
class Metric:
    """A registered metric. Call it on a clip; it never raises for what the clip shows."""

    name: str
    unit: str
    direction: Direction
    needs: frozenset[str]
    tolerance: float  # a clip succeeds when its value is at least as good as this
    statistic: Statistic  # how clips are summed up: errors have heavy tails, so by their median
    description: str
    measure: Callable[[Evidence], float | tuple[float, dict[str, Any]]]

    def __call__(
        self, clip: Clip, truth: dict[str, Any] | None = None, reference: Clip | None = None
    ) -> MetricValue:
        from sora2.metrics.evidence import Evidence

        return self.evaluate(Evidence(clip, truth=truth, reference=reference))

    def evaluate(self, evidence: Evidence) -> MetricValue:
        """Measure one clip whose tracks and onsets are shared between metrics."""
        for need in NEEDS:
            if need in self.needs and not evidence.offers(need):
                return self._unmeasurable(f"the clip has no {need}")
        try:
            result = self.measure(evidence)
        except Unmeasurable as error:
            return self._unmeasurable(str(error))
        value, details = result if isinstance(result, tuple) else (result, {})
        if not math.isfinite(value):
            return self._unmeasurable(f"the value is {value}")
        return MetricValue(float(value), "measured", unit=self.unit, details=details)

    def success(self, outcome: MetricValue) -> bool:
        """Whether the clip is as good as `tolerance` asks. An unmeasurable clip is not."""
        if not outcome.measured:
            return False
        if self.direction == "higher":
            return outcome.value >= self.tolerance
        return abs(outcome.value) <= self.tolerance

    def _unmeasurable(self, reason: str) -> MetricValue:
        return MetricValue(math.nan, "unmeasurable", reason=reason, unit=self.unit)


_REGISTRY: dict[str, Metric] = {}


def metric(
    name: str,
    *,
    unit: str,
    direction: Direction,
    needs: Iterable[str],
    tolerance: float,
    statistic: Statistic = "mean",
) -> Callable[[Callable[[Evidence], Any]], Callable[[Evidence], Any]]:
    """Register the decorated function as a metric. The first paragraph of its docstring is the description."""
    unknown = set(needs) - set(NEEDS)
    if unknown:
        raise MetricError(f"metric {name!r} needs {sorted(unknown)}: choose from {NEEDS}")

    def register(function: Callable[[Evidence], Any]) -> Callable[[Evidence], Any]:
        if name in _REGISTRY:
            raise MetricError(f"metric {name!r} is registered twice; give one of them another name")
        description = " ".join((function.__doc__ if function.__doc__ else "").split("\n\n")[0].split())
        _REGISTRY[name] = Metric(
            name, unit, direction, frozenset(needs), tolerance, statistic, description, function
        )
        return function

    return register


def all_metrics() -> dict[str, Metric]:
    """Every registered metric by name, in the order of the modules and functions."""
    from sora2.metrics import measures

    for module in sorted(pkgutil.iter_modules(measures.__path__), key=lambda m: m.name):
        importlib.import_module(f"{measures.__name__}.{module.name}")
    return dict(sorted(_REGISTRY.items(), key=lambda item: item[1].measure.__module__))


def select_metrics(names: Iterable[str] | None = None) -> dict[str, Metric]:
    """The named metrics, all when None.

    Raises:
        MetricError: an unknown name; the message lists the known ones.
    """
    known = all_metrics()
    if names is None:
        return known
    wanted = list(names)
    unknown = [n for n in wanted if n not in known]
    if unknown:
        raise MetricError(f"unknown metric {', '.join(unknown)}: choose from {', '.join(known)}")
    return {n: known[n] for n in wanted}
