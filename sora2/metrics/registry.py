"""What a metric is: one function with a name, a unit, a direction and its needs, and values that carry a status.

A clip metric is a function of `Evidence` in a module of `sora2/metrics/measures/`, decorated with `@metric`.
A corpus metric is a function of a `Corpus` in `sora2/metrics/corpora/`, decorated with `@corpus_metric`.
Modules of both folders are found by themselves: adding a metric is adding one function or one file.

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

from sora2.metrics.evidence import NEEDS, Evidence
from sora2.metrics.values import MetricError, MetricValue, NotAsked, Unmeasurable
from sora2.metrics.weights import missing_weights
from sora2.types import Clip

if TYPE_CHECKING:
    from sora2.metrics.corpus import Corpus

#: "lower"/"higher": which way is better. "zero": a signed quantity that is best at 0.
Direction = Literal["lower", "higher", "zero"]

Statistic = Literal["mean", "median"]

#: Distance from the best that counts half where the tolerance is the best value itself.
LEAST_SCALE = 0.1

ClipFunction = Callable[[Evidence], float | tuple[float, dict[str, Any]]]


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
    group: str  # module that holds it: physics, synchrony ...
    best: float  # value of a perfect clip
    answers_to: frozenset[str]  # controlled corruptions that it must notice
    also: frozenset[str]  # corruptions that it may notice; it must ignore all others
    weights: tuple[str, ...]  # weights it needs, see `sora2.metrics.weights`
    measure: ClipFunction
    domain: str = "bounce"  # what its calibration is on: clips of `sora2.metrics.calibration.DOMAINS`
    #: What it gave held-out real clips when it was made, for metrics that are only as good as a trained reader; None
    #: from the function where that was not recorded.
    ceiling: Callable[[], float | None] | None = None

    @property
    def headline(self) -> bool:
        """Whether the metric is claimed to be calibrated: it names the corruptions that it answers to."""
        return bool(self.answers_to)

    def __call__(
        self, clip: Clip, truth: dict[str, Any] | None = None, reference: Clip | None = None
    ) -> MetricValue | None:
        """See `evaluate`."""
        return self.evaluate(Evidence(clip, truth=truth, reference=reference))

    def evaluate(self, evidence: Evidence) -> MetricValue | None:
        """Measure one clip whose tracks and onsets are shared between metrics. None: the truth asks for nothing that
        this metric could measure."""
        for need in NEEDS:
            if need in self.needs and not evidence.offers(need):
                return MetricValue.missing(f"the clip has no {need}", self.unit)
        try:
            result = evidence.remember(self.measure, self.needs)
        except NotAsked:
            return None
        except Unmeasurable as error:
            return MetricValue.missing(str(error), self.unit)
        value, details = result if isinstance(result, tuple) else (result, {})
        if not math.isfinite(value):
            return MetricValue.missing(f"the value is {value}", self.unit)
        return MetricValue(float(value), "measured", unit=self.unit, details=details)

    def success(self, outcome: MetricValue) -> bool:
        """Whether the clip is as good as `tolerance` asks. An unmeasurable clip is not."""
        if not outcome.measured:
            return False
        if self.direction == "higher":
            return outcome.value >= self.tolerance
        return abs(outcome.value - self.best) <= abs(self.tolerance - self.best)

    def cost(self, outcome: MetricValue) -> float:
        """How bad a clip is on a scale that all metrics share: 0 perfect, 1/2 at the tolerance, 1 unmeasurable.

        With d the distance from the best value and s that of the tolerance (0.1 where that is none) it is
        d / (d + s): monotone in the value, and finite for a clip without one, so a missing ball can be compared with a
        wrong one.
        """
        if not outcome.measured:
            return 1.0
        distance = abs(outcome.value - self.best)
        if self.direction == "higher":
            distance = max(0.0, self.best - outcome.value)
        elif self.direction == "lower":
            distance = max(0.0, outcome.value - self.best)
        scale = abs(self.tolerance - self.best)
        return distance / (distance + (scale if scale > 0 else LEAST_SCALE))


@dataclass(frozen=True)
class CorpusMetric:
    """A metric of a set of clips as a whole, with an interval of its own."""

    name: str
    unit: str
    direction: Direction
    features: tuple[str, ...]  # named features that clips must have been described by
    compares: bool  # whether it is a distance from the reference set
    description: str
    group: str
    weights: tuple[str, ...]
    rests_on: tuple[str, ...]  # clip metrics whose details it reads
    measure: Callable[[Corpus], MetricValue]

    def __call__(self, corpus: Corpus) -> MetricValue:
        """Measure a set; it never raises for what the set holds."""
        try:
            value = self.measure(corpus)
        except Unmeasurable as error:
            return MetricValue.missing(str(error), self.unit)
        if value.measured and not math.isfinite(value.value):
            return MetricValue.missing(f"the value is {value.value}", self.unit)
        return value


@dataclass
class _Registry:
    clip: dict[str, Metric] = field(default_factory=dict)
    corpus: dict[str, CorpusMetric] = field(default_factory=dict)

    def check_new(self, name: str) -> None:
        if name in self.clip or name in self.corpus:
            raise MetricError(f"metric {name!r} is registered twice; give one of them another name")


_REGISTRY = _Registry()


def metric(
    name: str,
    *,
    unit: str,
    direction: Direction,
    needs: Iterable[str],
    tolerance: float,
    statistic: Statistic = "mean",
    best: float | None = None,
    answers_to: Iterable[str] = (),
    also: Iterable[str] = (),
    weights: Iterable[str] = (),
    paired: bool = False,
    domain: str = "bounce",
    claimed: Literal["itself", "twin"] = "itself",
    ceiling: Callable[[], float | None] | None = None,
    description: str = "",
) -> Callable[[ClipFunction], ClipFunction]:
    """Register the decorated function as a metric. The first paragraph of its docstring is the description.

    best: value of a perfect clip; default 1 for direction "higher", else 0. paired: also register NAME_excess, the
    value of the clip less that of its reference, for rows that have one (a re-encoded, corrupted or re-made clip).
    domain: the toybox clips that it is calibrated on.
    claimed: which of the two answers to the damage; the twin, where the content weighs more than the damage.
    ceiling: see `Metric.ceiling`.
    """
    unknown = set(needs) - set(NEEDS)
    if unknown:
        raise MetricError(f"metric {name!r} needs {sorted(unknown)}: choose from {NEEDS}")

    def register(function: ClipFunction) -> ClipFunction:
        text = description if description else _first_paragraph(function)
        perfect = (1.0 if direction == "higher" else 0.0) if best is None else best
        common = {
            "group": function.__module__.rpartition(".")[2],
            "weights": tuple(weights),
            "domain": domain,
        }
        _REGISTRY.check_new(name)
        _REGISTRY.clip[name] = Metric(
            name,
            unit,
            direction,
            frozenset(needs),
            tolerance,
            statistic,
            text,
            best=perfect,
            answers_to=frozenset(answers_to if claimed == "itself" else ()),
            also=frozenset(also) - frozenset(answers_to),
            measure=function,
            ceiling=ceiling,
            **common,
        )
        if paired:
            twin = f"{name}_excess"
            _REGISTRY.check_new(twin)
            _REGISTRY.clip[twin] = Metric(
                twin,
                unit,
                "zero",
                frozenset(needs) | {"reference"},
                abs(tolerance - perfect) / 2,
                statistic,
                f"{name} of the clip less {name} of its reference.",
                best=0.0,
                answers_to=frozenset(answers_to if claimed == "twin" else ()),
                also=frozenset(also) - frozenset(answers_to),
                measure=_excess_of(function, frozenset(needs)),
                **common,
            )
        return function

    return register


def corpus_metric(
    name: str,
    *,
    unit: str,
    direction: Direction,
    features: Iterable[str] = (),
    compares: bool = False,
    weights: Iterable[str] = (),
    rests_on: Iterable[str] = (),
    description: str = "",
) -> Callable[[Callable[[Corpus], MetricValue]], Callable[[Corpus], MetricValue]]:
    """Register the decorated function of a `Corpus` as a corpus metric."""

    def register(function: Callable[[Corpus], MetricValue]) -> Callable[[Corpus], MetricValue]:
        _REGISTRY.check_new(name)
        _REGISTRY.corpus[name] = CorpusMetric(
            name,
            unit,
            direction,
            tuple(features),
            compares,
            description if description else _first_paragraph(function),
            function.__module__.rpartition(".")[2],
            tuple(weights),
            tuple(rests_on),
            function,
        )
        return function

    return register


def all_metrics() -> dict[str, Metric]:
    """Every registered clip metric by name, in the order of the modules and functions."""
    from sora2.metrics import measures

    _import_all(measures)
    return dict(sorted(_REGISTRY.clip.items(), key=lambda item: item[1].group))


def all_corpus_metrics() -> dict[str, CorpusMetric]:
    """Every registered corpus metric by name."""
    from sora2.metrics import corpora

    _import_all(corpora)
    return dict(sorted(_REGISTRY.corpus.items(), key=lambda item: item[1].group))


def select_metrics(
    names: Iterable[str] | None = None,
) -> tuple[dict[str, Metric], dict[str, CorpusMetric]]:
    """The named clip and corpus metrics, and clip metrics that these rest on; when None, all whose weights are there.

    Raises:
        MetricError: an unknown name (the message lists the known ones), or one whose weights are missing (the message
            says which, and how to give them).
    """
    clip, corpus = all_metrics(), all_corpus_metrics()
    if names is None:
        return (
            {n: m for n, m in clip.items() if not missing_weights(m.weights)},
            {n: m for n, m in corpus.items() if not missing_weights(m.weights)},
        )
    wanted = list(names)
    unknown = [n for n in wanted if n not in clip and n not in corpus]
    if unknown:
        raise MetricError(f"unknown metric {', '.join(unknown)}: choose from {', '.join([*clip, *corpus])}")
    for name in wanted:
        found = clip[name] if name in clip else corpus[name]
        missing = missing_weights(found.weights)
        if missing:
            raise MetricError(f"metric {name} needs weights: {'; '.join(missing)}")
    rest = [n for name in wanted if name in corpus for n in corpus[name].rests_on]
    chosen = {n: clip[n] for n in dict.fromkeys([*wanted, *rest]) if n in clip}
    return chosen, {n: corpus[n] for n in wanted if n in corpus}


def _excess_of(function: ClipFunction, needs: frozenset[str]) -> ClipFunction:
    def excess(evidence: Evidence) -> tuple[float, dict[str, Any]]:
        own = evidence.remember(function, needs)
        other = evidence.of_reference().remember(function, needs)
        a, b = (v[0] if isinstance(v, tuple) else v for v in (own, other))
        return a - b, {"clip": a, "reference": b}

    excess.__module__ = function.__module__
    return excess


def _first_paragraph(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ if function.__doc__ else "").split("\n\n")[0].split())


def _import_all(package: Any) -> None:
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        importlib.import_module(f"{package.__name__}.{module.name}")
