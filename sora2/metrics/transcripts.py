"""Words that were asked for and words that were heard, and how many of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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


def match_words(
    asked: Sequence[str], heard: Sequence[str], optional: Sequence[bool] | None = None
) -> tuple[int, list[bool]]:
    """Substitutions, deletions and insertions that make `heard` of `asked` (Levenshtein, over words), and which of the
    words asked for were heard (of all ways with the fewest errors, one that has the most of them).

    An optional word may be heard, misheard or missed at no cost.
    """
    free = [False] * len(asked) if optional is None else list(optional)
    rows, columns = len(asked) + 1, len(heard) + 1
    # (errors, words not heard): the second decides between ways with as many errors
    cost = [[(0, 0)] * columns for _ in range(rows)]
    came: list[list[tuple[int, int]]] = [[(0, 0)] * columns for _ in range(rows)]
    for i in range(rows):
        for j in range(columns):
            ways = []
            price = 0 if i == 0 or free[i - 1] else 1
            if i and j:
                same = asked[i - 1] == heard[j - 1]
                ways.append(
                    (_plus(cost[i - 1][j - 1], 0 if same else price, 0 if same else 1), (i - 1, j - 1))
                )
            if i:
                ways.append((_plus(cost[i - 1][j], price, 1), (i - 1, j)))
            if j:
                ways.append((_plus(cost[i][j - 1], 1, 0), (i, j - 1)))
            if ways:
                cost[i][j], came[i][j] = min(ways)
    found = [False] * len(asked)
    i, j = len(asked), len(heard)
    while i or j:
        before = came[i][j]
        if before == (i - 1, j - 1):
            found[i - 1] = asked[i - 1] == heard[j - 1]
        i, j = before
    return cost[-1][-1][0], found


def word_accuracy(
    asked: Sequence[str], heard: Sequence[str], optional: Sequence[bool] | None = None
) -> float:
    """1 - word error rate, 0 at least. The rate is over the words that are not optional."""
    free = [False] * len(asked) if optional is None else list(optional)
    return max(0.0, 1 - match_words(asked, heard, free)[0] / free.count(False))


def _plus(cost: tuple[int, int], errors: int, lost: int) -> tuple[int, int]:
    return cost[0] + errors, cost[1] + lost
