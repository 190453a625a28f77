"""Words that were asked for and words that were heard, and how many of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def spoken_words(truth: dict[str, Any]) -> tuple[list[str], list[bool]]:
    """The words that a toybox truth says are spoken, in order, and which of them a cut or the clip's end cuts off.

    Events count where there are any (a long clip says its words again); a commanded truth has `words` alone.
    """
    events = [e for e in truth.get("events", ()) if e.get("kind") == "word"]
    if not events:
        words = list(truth.get("words", ()))
        return words, [not truth.get("complete", True)] * len(words)
    events = sorted(events, key=lambda e: e["onset_seconds"])
    cut = [bool(e.get("cut_off", False)) or not truth.get("complete", True) for e in events]
    return [e["word"] for e in events], cut


def word_errors(asked: Sequence[str], heard: Sequence[str], optional: Sequence[bool] | None = None) -> int:
    """Substitutions, deletions and insertions that make `heard` of `asked` (Levenshtein, over words).

    An optional word may be heard, misheard or missed at no cost.
    """
    free = [False] * len(asked) if optional is None else list(optional)
    cost = np.zeros((len(asked) + 1, len(heard) + 1), int)
    cost[0] = np.arange(len(heard) + 1)
    for i, word in enumerate(asked, 1):
        price = 0 if free[i - 1] else 1
        cost[i, 0] = cost[i - 1, 0] + price
        for j, other in enumerate(heard, 1):
            cost[i, j] = min(
                cost[i - 1, j - 1] + (0 if word == other else price),
                cost[i - 1, j] + price,
                cost[i, j - 1] + 1,
            )
    return int(cost[-1, -1])


def word_accuracy(
    asked: Sequence[str], heard: Sequence[str], optional: Sequence[bool] | None = None
) -> float:
    """1 - word error rate, 0 at least. The rate is over the words that are not optional."""
    free = [False] * len(asked) if optional is None else list(optional)
    return max(0.0, 1 - word_errors(asked, heard, free) / free.count(False))
