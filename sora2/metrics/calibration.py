"""Can a metric be trusted? Every metric over a grid of controlled corruptions of clips whose truth is exact.

    result = calibrate(clips, metrics, corruptions)
    result.responses["av_offset", "audio shift"].monotone

Damage is judged by the paired change of `Metric.cost` from the undamaged clip (0 perfect, 1/2 at the tolerance, 1
unmeasurable), so that a lost ball and a wrong one are on one scale. Gates are left out here: they would answer for
the metrics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sora2.atomic import save_json
from sora2.metrics.controls import Item
from sora2.metrics.corruptions import Corruption, Subject, all_corruptions
from sora2.metrics.enrolment import cameo_clips
from sora2.metrics.evidence import Evidence
from sora2.metrics.measuring import Task, fingerprint
from sora2.metrics.registry import Metric, all_metrics
from sora2.metrics.values import MetricError
from sora2.processes import worker_pool
from sora2.toybox import Toybox, ToyboxConfig
from sora2.toybox.physics import JammedError
from sora2.types import Clip

Array = NDArray[np.float64]

#: A change of mean cost smaller than this is no answer, however certain.
LEAST_CHANGE = 0.02
#: A change of mean cost up to this is indifference: a tenth of the way from perfect to unmeasurable.
SMALL_CHANGE = 0.1
#: Standard errors of a change that make it certain, and of the real clips' mean that make the noise floor.
CERTAIN = 2.0


@dataclass(frozen=True)
class Response:
    """One metric under one corruption, over N clips and S severities."""

    metric: Metric
    corruption: Corruption
    severities: tuple[float, ...]
    value: Array  # (S, N), NaN where unmeasurable or not asked
    cost: Array  # (S, N), NaN where not asked

    @property
    def neutral(self) -> int:
        return self.severities.index(self.corruption.neutral)

    def change(self) -> tuple[Array, Array]:
        """(S,) mean change of cost from the neutral severity, and its standard error, over clips."""
        difference = self.cost - self.cost[self.neutral]
        count = np.isfinite(difference).sum(axis=1)
        if not count.any():
            return np.zeros(len(count)), np.zeros(len(count))
        mean = np.array([np.nanmean(d) if n else 0.0 for d, n in zip(difference, count, strict=True)])
        spread = np.array([np.nanstd(d) if n else 0.0 for d, n in zip(difference, count, strict=True)])
        return mean, spread / np.sqrt(np.maximum(count, 1))

    @property
    def noise_floor(self) -> float:
        """Change of mean cost that another set of as many real clips could show."""
        real = self.cost[self.neutral]
        real = real[np.isfinite(real)]
        return CERTAIN * float(real.std() / math.sqrt(len(real))) if len(real) > 1 else math.nan

    @property
    def detected(self) -> NDArray[np.bool_]:
        """(S,) severities that are told from none with certainty, in the right direction."""
        mean, error = self.change()
        return (mean > LEAST_CHANGE) & (mean > CERTAIN * error)

    @property
    def answers(self) -> bool:
        """Whether any severity is detected."""
        return bool(self.detected.any())

    @property
    def smallest(self) -> dict[str, float]:
        """Side ("above", "below" the neutral severity) -> mildest severity from which on all worse ones are
        detected."""
        found = {}
        detected = self.detected
        for side in self.corruption.sides():
            order = [self.severities.index(s) for s in side if s in self.severities]
            mildest = None
            for i in reversed(order[1:]):
                if not detected[i]:
                    break
                mildest = self.severities[i]
            if mildest is not None:
                found["above" if side[-1] > side[0] else "below"] = mildest
        return found

    @property
    def monotone(self) -> bool:
        """Whether more damage never costs less, beyond the error of the difference, on either side."""
        for side in self.corruption.sides():
            order = [self.severities.index(s) for s in side if s in self.severities]
            for a, b in pairwise(order):
                step = self.cost[b] - self.cost[a]
                step = step[np.isfinite(step)]
                if len(step) and step.mean() < -max(
                    LEAST_CHANGE, CERTAIN * step.std() / math.sqrt(len(step))
                ):
                    return False
        return True

    @property
    def improves(self) -> bool:
        """Whether some damage makes the metric better, with certainty and beyond its noise floor: a fault."""
        mean, error = self.change()
        floor = max(LEAST_CHANGE, self.noise_floor if math.isfinite(self.noise_floor) else 0.0)
        return bool(((mean < -floor) & (mean < -CERTAIN * error)).any())

    @property
    def indifferent(self) -> bool:
        """Whether no severity changes the mean cost by more than the noise floor, or than `SMALL_CHANGE`."""
        mean, error = self.change()
        floor = max(SMALL_CHANGE, self.noise_floor if math.isfinite(self.noise_floor) else 0.0)
        return bool((np.abs(mean) <= floor + CERTAIN * error).all())

    @property
    def expected(self) -> bool:
        """Whether the metric declares that it notices this damage."""
        return self.corruption.name in self.metric.answers_to | self.metric.also


@dataclass(frozen=True)
class CalibrationResult:
    """All responses, on `clips` clips."""

    responses: dict[tuple[str, str], Response]
    metrics: dict[str, Metric]
    corruptions: dict[str, Corruption]
    clips: int

    def of_metric(self, name: str) -> Iterator[Response]:
        for corruption in self.corruptions:
            yield self.responses[name, corruption]


#: What metrics are calibrated on: balls; people who speak; the same beside their enrolment clips; stories.
DOMAINS = ("bounce", "talk", "cameo", "story")


def calibration_clips(count: int, split: str = "test", seed: int = 0, domain: str = "bounce") -> list[Clip]:
    """Real clips of a domain. Of `bounce`: as drawn, and every fourth with two balls staged to meet in the air, for
    collisions are rare. Those of `cameo` are targets of split cameo, whatever `split` says.

    Raises:
        MetricError: an unknown domain.
    """
    if domain not in DOMAINS:
        raise MetricError(f"domain {domain!r} is unknown: choose from {', '.join(DOMAINS)}")
    if domain == "cameo":
        return cameo_clips(ToyboxConfig(seed=seed, split="cameo", scenes=("talk",)), count)
    if domain != "bounce":
        return Toybox(ToyboxConfig(seed=seed, split=split, scenes=(domain,))).clips(range(count))
    box = Toybox(ToyboxConfig(seed=seed, split=split))
    return [_staged(box, i) if i % 4 == 3 else box.clip(i) for i in range(count)]


def _staged(box: Toybox, index: int) -> Clip:
    """Two balls of different mass that fly at each other under low gravity."""
    height = 0.3 + 0.02 * (index % 5)
    left = {
        "x": 0.25,
        "y": height,
        "vx": 0.5,
        "vy": -0.1,
        "size": "small",
        "color": "yellow",
        "material": "rubber",
    }
    right = {
        "x": 0.75,
        "y": height,
        "vx": -0.4,
        "vy": -0.1,
        "size": "big",
        "color": "purple",
        "material": "metal",
    }
    return box.clip(index, gravity="low", balls=[left, right])


def calibrate(
    clips: Sequence[Clip],
    metrics: Mapping[str, Metric],
    corruptions: Mapping[str, Corruption],
    *,
    severities: int | None = None,
    workers: int = 1,
    progress: bool = True,
    cache: Path | None = None,
) -> CalibrationResult:
    """Every metric on every clip under every corruption.

    severities: at most so many per side (the gross ones, and the neutral one); default all. cache: folder in which
    each clip's measurements are kept, so that an interrupted run continues.

    Raises:
        MetricError: fewer than two clips (a donor of wrong sound and prompts is needed).
    """
    if len(clips) < 2:
        raise MetricError(
            f"{len(clips)} clips: calibration needs at least 2, for the wrong sound of one is the other's"
        )
    grid = {name: _thinned(c, severities) for name, c in corruptions.items()}
    jobs = [
        _Job(clip, clips[(i + 1) % len(clips)], tuple(metrics), grid, cache) for i, clip in enumerate(clips)
    ]
    tables = []
    with tqdm(total=len(jobs), unit="clip", desc="calibrate", disable=not progress) as bar:
        for table in _run(jobs, workers):
            tables.append(table)
            bar.update()
    responses = {}
    for c, points in grid.items():
        for m, metric in metrics.items():
            pairs = np.array(
                [[_number(t[c][str(s)].get(m)) for t in tables] for s in points], np.float64
            )  # (S, N, 2)
            responses[m, c] = Response(metric, corruptions[c], points, pairs[..., 0], pairs[..., 1])
    return CalibrationResult(responses, dict(metrics), dict(corruptions), len(clips))


@dataclass(frozen=True)
class _Job:
    clip: Clip
    donor: Clip
    metrics: tuple[str, ...]
    grid: dict[str, tuple[float, ...]]
    cache: Path | None


#: corruption -> severity -> metric -> (value or None, cost); a metric that is not asked is absent.
_Table = dict[str, dict[str, dict[str, tuple[float | None, float]]]]


def _run(jobs: list[_Job], workers: int) -> Iterator[_Table]:
    if workers <= 1:
        yield from map(_measure, jobs)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(_measure, jobs)


def _measure(job: _Job) -> _Table:
    file = None
    if job.cache is not None:
        donor = Item(job.donor.key, str(sorted(job.grid.items())), job.clip, reference=job.donor)
        file = job.cache / f"{fingerprint(donor, Task(job.metrics))}.json"
        if file.exists():
            return json.loads(file.read_text())
    known, damages = all_metrics(), all_corruptions()
    metrics = {n: known[n] for n in job.metrics}
    subject = Subject(job.clip, job.donor)
    intact = Evidence(job.clip, reference=job.clip)
    undamaged = _values(intact, metrics)
    table: _Table = {}
    for name, severities in job.grid.items():
        damage = damages[name]
        table[name] = {}
        for severity in severities:
            if severity == damage.neutral:
                table[name][str(severity)] = undamaged
                continue
            if not damage.applies_to(job.clip):
                table[name][str(severity)] = {}
                continue
            try:
                made = damage.apply(subject, severity)
            except JammedError:  # there is no such world; the clip has no say at this severity
                table[name][str(severity)] = {}
                continue
            evidence = Evidence(made.clip, truth=made.truth, reference=job.clip).share(intact)
            evidence._of_reference = intact
            table[name][str(severity)] = _values(evidence, metrics)
    if file is not None:
        save_json(table, file)
    return table


def _values(evidence: Evidence, metrics: Mapping[str, Metric]) -> dict[str, tuple[float | None, float]]:
    found = {}
    for name, metric in metrics.items():
        value = metric.evaluate(evidence)
        if value is not None:
            found[name] = (value.value if value.measured else None, metric.cost(value))
    return found


def _thinned(corruption: Corruption, count: int | None) -> tuple[float, ...]:
    """The neutral severity and the `count` grossest of each side, evenly thinned."""
    kept = {corruption.neutral}
    for side in corruption.sides():
        damage = side[1:]
        if count is not None and count < len(damage):
            damage = [damage[round(i)] for i in np.linspace(len(damage) - 1, 0, count + 1)[:-1]]
        kept |= set(damage)
    return tuple(sorted(kept))


def _number(pair: Any) -> tuple[float, float]:
    if pair is None:
        return math.nan, math.nan
    value, cost = pair
    return (math.nan if value is None else value), cost
