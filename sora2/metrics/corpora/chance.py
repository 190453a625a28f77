"""What synchrony a set reaches by chance: every picture with the sounds of every other clip."""

from __future__ import annotations

from typing import Any

import numpy as np

from sora2.metrics.corpus import Corpus
from sora2.metrics.events import Events, events_f1
from sora2.metrics.registry import corpus_metric
from sora2.metrics.statistics import clustered_bootstrap
from sora2.metrics.values import MetricValue, Unmeasurable

#: Shuffles of the set over which the chance level is averaged.
SHUFFLES = 10
TOLERANCE_SECONDS = 0.045


@corpus_metric("av_f1_45_above_chance", unit="", direction="higher", features=("events",))
def av_f1_45_above_chance(corpus: Corpus) -> MetricValue:
    """Mean F1 of impacts seen and heard within 45 ms beyond that of shuffled pairs of picture and sound: 1 perfect, 0
    no better than the sound of any clip of another caption. A clip without events counts 0."""
    found = [o.features["events"] for o in corpus.described("events")]
    prompts = corpus.prompts("events")
    if len(found) < 4:
        raise Unmeasurable(f"{len(found)} clips have picture and sound; 4 are needed to shuffle them")
    if len(set(prompts)) < 2:
        raise Unmeasurable("all clips are of one caption: there is no other to shuffle them with")
    seen, heard = [_events(f["seen"]) for f in found], [_events(f["heard"]) for f in found]
    own = np.array([events_f1(s, h, TOLERANCE_SECONDS)[0] for s, h in zip(seen, heard, strict=True)])
    rng = np.random.default_rng(0)
    chance = []
    for _ in range(SHUFFLES):
        order = rng.permutation(len(found)).tolist()
        other = {
            i: heard[_before(order, at, prompts)] for at, i in enumerate(order)
        }  # none keeps its own, or that of its caption
        chance.append(np.mean([events_f1(seen[i], other[i], TOLERANCE_SECONDS)[0] for i in other]))
    level = float(np.mean(chance))
    if level > 0.9:
        raise Unmeasurable("events are so dense that any sound would match")
    drawn = clustered_bootstrap(own, prompts)
    low, high = ((bound - level) / (1 - level) for bound in (drawn.low, drawn.high))
    details: dict[str, Any] = {
        "f1": float(own.mean()),
        "chance": level,
        "interval": [float(low), float(high)],
    }
    return MetricValue((float(own.mean()) - level) / (1 - level), "measured", details=details)


def _before(order: list[int], at: int, prompts: list[str]) -> int:
    """The clip before place `at` of a cycle, or before that, whose caption is another."""
    back = (order[at - k] for k in range(1, len(order)))
    return next(i for i in back if prompts[i] != prompts[order[at]])


def _events(plain: list[list[Any]]) -> Events:
    seconds, weight, certain = plain
    return Events(np.array(seconds, float), np.array(weight, float), np.array(certain, bool))
