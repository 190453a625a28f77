"""A picture of any pattern: which query tile sees which key tile, to the scale of the tokens."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from torch import Tensor

from sora2.kernels.pattern import Lists, TilePattern
from sora2.kernels.tiles import KINDS, Tiles

#: Not listed, listed with a mask inside, listed whole.
COLOURS = ("#f4f4f4", "#f2a93b", "#2b5f8a")


def draw_pattern(pattern: TilePattern, path: str | Path, group: int = 0, title: str = "") -> Path:
    """Save the pattern of one group of lists as an image; the format follows the suffix of `path`."""
    figure, axes = plt.subplots(figsize=(7, 7.4), layout="constrained")
    edges = [tiles.start.cpu().numpy() for tiles in (pattern.keys, pattern.queries)]
    axes.pcolormesh(*edges, states(pattern, group).numpy(), cmap=ListedColormap(COLOURS), vmin=0, vmax=2)
    axes.invert_yaxis()
    axes.set_aspect("auto")
    _mark(axes, pattern.keys, pattern.queries)
    axes.set(xlabel="keys", ylabel="queries", title=f"{title}  density {pattern.density:.3f}".strip())
    labels = ("no pair", "pairs by mask", "all pairs")
    axes.legend(
        handles=[Patch(facecolor=c, edgecolor="grey", label=n) for c, n in zip(COLOURS, labels, strict=True)],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.08),
        ncols=3,
        frameon=False,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return Path(path)


def states(pattern: TilePattern, group: int = 0) -> Tensor:
    """(query tiles, key tiles) int: 0 not listed, 1 PARTIAL with a comparison, 2 every pair of tokens allowed."""
    n, lists = pattern.queries.count, pattern.by_query
    found = torch.zeros(n, pattern.keys.count, dtype=torch.int64)
    for row in range(n):
        entries, full = _row(lists, group * n + row)
        found[row, entries] = 2 if pattern.key_rank is None else 1
        found[row, entries[:full]] = 2
    return found


def _row(lists: Lists, row: int) -> tuple[Tensor, int]:
    entries = lists.entry[int(lists.start[row]) : int(lists.start[row + 1])]
    return entries.long().cpu(), int(lists.full[row])


def _mark(axes: Axes, keys: Tiles, queries: Tiles) -> None:
    """Lines and names where the modality or the sample changes."""
    for tiles, line, ticks in (
        (keys, axes.axvline, axes.set_xticks),
        (queries, axes.axhline, axes.set_yticks),
    ):
        runs = torch.stack([tiles.sample.cpu(), tiles.kind.cpu()], dim=1)
        first = [0, *((runs.diff(dim=0) != 0).any(1).nonzero()[:, 0] + 1).tolist(), tiles.count]
        start = tiles.start.cpu()
        for at in first[1:-1]:
            line(int(start[at]), color="black", linewidth=0.6)
        middles = [float(start[a] + start[b]) / 2 for a, b in itertools.pairwise(first)]
        ticks(middles, [KINDS[int(tiles.kind[i])] for i in first[:-1]], fontsize=8)
