"""What synchrony a set reaches by chance: every picture with the sounds of every other clip."""

from __future__ import annotations

from typing import Any

import numpy as np

from sora2.metrics.corpus import Corpus
from sora2.metrics.events import Events, events_f1
from sora2.metrics.registry import corpus_metric
from sora2.metrics.values import MetricValue, Unmeasurable

#: Shuffles of the set over which the chance level is averaged.
SHUFFLES = 10
TOLERANCE_SECONDS = 0.045


@corpus_metric("av_f1_45_above_chance", unit="", direction="higher", features=("events",))
def av_f1_45_above_chance(corpus: Corpus) -> MetricValue:
    """Mean F1 of impacts seen and heard within 45 ms beyond that of shuffled pairs of picture and sound: 1 perfect, 0
    no better than any other clip's sound. A clip without events counts 0."""
    found = [o.features["events"] for o in corpus.outcomes if o.features.get("events") is not None]
    if len(found) < 4:
        raise Unmeasurable(f"{len(found)} clips have picture and sound; 4 are needed to shuffle them")
    seen, heard = [_events(f["seen"]) for f in found], [_events(f["heard"]) for f in found]
    own = np.array([events_f1(s, h, TOLERANCE_SECONDS)[0] for s, h in zip(seen, heard, strict=True)])
    rng = np.random.default_rng(0)
    chance = []
    for _ in range(SHUFFLES):
        order = rng.permutation(len(found))
        other = {
            int(order[i]): heard[int(order[i - 1])] for i in range(len(order))
        }  # a cycle: none keeps its own
        chance.append(np.mean([events_f1(seen[i], other[i], TOLERANCE_SECONDS)[0] for i in other]))
    level = float(np.mean(chance))
    if level > 0.9:
        raise Unmeasurable("events are so dense that any sound would match")
    draws = own[rng.integers(len(own), size=(1000, len(own)))].mean(axis=1)
    low, high = (np.quantile(draws, (0.025, 0.975)) - level) / (1 - level)
    details: dict[str, Any] = {
        "f1": float(own.mean()),
        "chance": level,
        "interval": [float(low), float(high)],
    }
    return MetricValue((float(own.mean()) - level) / (1 - level), "measured", details=details)


def _events(plain: list[list[Any]]) -> Events:
    seconds, weight, certain = plain
    return Events(np.array(seconds, float), np.array(weight, float), np.array(certain, bool))
