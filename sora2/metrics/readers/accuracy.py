"""How often the readers are right: on held-out real clips, and on the same clips made a little worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from sora2.metrics.corruptions import Subject, select_corruptions
from sora2.metrics.readers.attributes import ATTRIBUTES, asked_attributes
from sora2.metrics.readers.reading import Reader, read_all
from sora2.types import Clip

#: Clips in memory at a time.
CHUNK = 64
#: Name of the mean over all attributes that a clip is asked of.
OVERALL = "accuracy"


@dataclass(frozen=True)
class Accuracy:
    """Mean agreement with the truth and its 95 % bootstrap interval over clips."""

    mean: float
    low: float
    high: float
    clips: int


def damaged(clips: Iterable[Clip], name: str, severity: float) -> Iterable[Clip]:
    """The clips under a controlled corruption of the picture or the sound."""
    corruption = select_corruptions([name])[name]
    for clip in clips:
        yield corruption.apply(Subject.of(clip), severity).clip


def agreements(reader: Reader, clips: Iterable[Clip]) -> dict[str, list[float]]:
    """Attribute -> agreement of each clip that it is asked of; `OVERALL` -> their mean of each clip."""
    found: dict[str, list[float]] = {name: [] for name in (*ATTRIBUTES, OVERALL)}
    source = iter(clips)
    while chunk := list(islice(source, CHUNK)):
        for clip, answers in zip(chunk, read_all(reader, chunk), strict=True):
            asked = asked_attributes(clip.meta["truth"])
            own = {n: ATTRIBUTES[n].agreement(wanted, answers[n].value) for n, wanted in asked.items()}
            for name, value in own.items():
                found[name].append(value)
            found[OVERALL].append(float(np.mean(list(own.values()))))
    return found


def summarise(values: Sequence[float]) -> Accuracy:
    draws = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    low, high = np.quantile(np.asarray(values)[draws].mean(axis=1), (0.025, 0.975))
    return Accuracy(float(np.mean(values)), float(low), float(high), len(values))


def table(found: dict[str, list[float]]) -> dict[str, Accuracy]:
    """Of every attribute that any clip was asked of."""
    return {name: summarise(values) for name, values in found.items() if values}


def as_json(accuracies: dict[str, Accuracy]) -> dict[str, dict[str, float]]:
    return {name: {k: round(v, 4) for k, v in asdict(a).items()} for name, a in accuracies.items()}
