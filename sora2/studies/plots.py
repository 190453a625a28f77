"""A study in pictures: one panel per measure, one row per cell, a point per seed and the mean with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from sora2.studies.analysis import Study


def plot_study(study: Study, measures: Sequence[str], columns: int = 3) -> Figure:
    """Panels in rows of `columns`. A dashed line is the value of real clips, where it is known."""
    cells = study.cells
    rows = -(-len(measures) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(4.6 * columns, 0.32 * len(cells) * rows + 1.1 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, measure in zip(axes.flat, measures, strict=False):
        for i, cell in enumerate(cells):
            values = list(study.by_seed(cell, measure).values())
            mean, low, high = study.mean(cell, measure)
            axis.plot(values, [i] * len(values), "o", ms=4, alpha=0.5, color=f"C{i % 10}")
            if not math.isnan(low):
                axis.plot([low, high], [i, i], "-", color=f"C{i % 10}")
            axis.plot([mean], [i], "|", ms=14, color=f"C{i % 10}")
        real = study.real(measure)
        if not math.isnan(real):
            axis.axvline(real, ls="--", color="grey", lw=1)
        axis.set(title=measure, yticks=range(len(cells)), yticklabels=[study.says(c) for c in cells])
        axis.invert_yaxis() if not axis.yaxis_inverted() else None
    for axis in list(axes.flat)[len(measures) :]:
        axis.set_visible(False)
    return figure
