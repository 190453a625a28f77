"""Rows of a codec evaluation summed up per group, with 95 % bootstrap intervals over clips, as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sora2.codecs.evaluate import Row

#: group -> metric -> statistics
Table = dict[str, dict[str, dict[str, float]]]

#: Events with these endings are shares: their mean counts. Of all others, signed errors, it is the median of the size.
SHARES = ("_percent", "_points")
DRAWS = 1000


def summarise(rows: Sequence[Row], seed: int = 0) -> Table:
    """group -> metric -> mean, median, low, high and n, groups in the order in which they are met.

    Values have one number per clip; low and high are the interval of the mean, `unmeasurable` counts NaNs. Events are
    pooled over clips: mean, median and p90 of their size, low and high of the median. Shares: of the mean. Clips are
    drawn, not events, for those of a clip are not independent.
    """
    rng = np.random.default_rng(seed)
    table: Table = {}
    for group in dict.fromkeys(group for row in rows for group in row.groups):
        members = [row for row in rows if group in row.groups]
        table[group] = {}
        for name in dict.fromkeys(n for row in members for n in row.values):
            found = _of_values(np.array([row.values[name] for row in members if name in row.values]), rng)
            if found:
                table[group][name] = found
        for name in dict.fromkeys(n for row in members for n in row.events):
            lists = [np.asarray(row.events[name]) for row in members if row.events.get(name)]
            if lists:
                table[group][name] = _of_events(lists, name.endswith(SHARES), rng)
    return table


def _of_values(values: NDArray[np.float64], rng: np.random.Generator) -> dict[str, float]:
    missing = int(np.isnan(values).sum())
    values = values[~np.isnan(values)]
    if not len(values):
        return {}
    means = rng.choice(values, (DRAWS, len(values))).mean(1)
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "low": float(np.quantile(means, 0.025)),
        "high": float(np.quantile(means, 0.975)),
        "n": len(values),
        "unmeasurable": missing,
    }


def _of_events(
    lists: list[NDArray[np.float64]], is_share: bool, rng: np.random.Generator
) -> dict[str, float]:
    if not is_share:
        lists = [np.abs(values) for values in lists]
    pooled = np.concatenate(lists)
    statistic = np.mean if is_share else np.median
    drawn = [
        statistic(np.concatenate([lists[i] for i in row]))
        for row in rng.integers(len(lists), size=(DRAWS, len(lists)))
    ]
    found = {
        "mean": float(pooled.mean()),
        "median": float(np.median(pooled)),
        "low": float(np.quantile(drawn, 0.025)),
        "high": float(np.quantile(drawn, 0.975)),
        "n": len(pooled),
        "clips": len(lists),
    }
    return found if is_share else found | {"p90": float(np.quantile(pooled, 0.9))}


def format_table(table: Table) -> str:
    """One line per group, one column per metric: the mean with its interval; of pooled errors median and p90."""
    metrics = list(dict.fromkeys(name for values in table.values() for name in values))
    lines = ["| clips | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for group, values in table.items():
        cells = [_cell(values[name]) if name in values else "" for name in metrics]
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(v: dict[str, float]) -> str:
    interval = f"[{v['low']:.2f}, {v['high']:.2f}], n={v['n']}"
    if "p90" in v:
        return f"median {v['median']:.2f} {interval}, p90 {v['p90']:.2f}"
    return f"{v['mean']:.2f} {interval}"
