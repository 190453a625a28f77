"""Figures of an evaluation, one look for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.pyplot as plt

INK, SOFT, GRID = "#1b1f24", "#5b6470", "#e3e6ea"
#: Colour-blind safe, distinct in grey.
PALETTE = ("#2f5d8a", "#c8553d", "#3f8f6b", "#8a6bb1", "#c9a227", "#4d9fb8", "#7d7d7d")
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": SOFT,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "legend.frameon": False,
    "figure.dpi": 130,
    "savefig.bbox": "tight",
}


def plot_curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: Path,
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    log_y: bool = False,
) -> Path:
    """Named curves over one axis, labelled at their ends' colour in a legend."""
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(7.2, 3.4))
        for colour, (name, (x, y)) in zip(_cycle(len(series)), series.items(), strict=True):
            axis.plot(x, y, color=colour, linewidth=1.6, label=name)
        if log_y:
            axis.set_yscale("log")
        axis.grid(color=GRID, linewidth=0.7)
        axis.set(xlabel=x_label, ylabel=y_label, title=title)
        if len(series) > 1:
            axis.legend(ncols=min(4, len(series)), loc="upper right")
        return _save(figure, path)


Line = tuple[str, float, float, float, float]  # row, estimate, low, high, measured share


def plot_overview(
    panels: Sequence[tuple[str, Sequence[Line]]], rows: Sequence[str], path: Path, *, columns: int = 3
) -> Path:
    """A small panel per metric: one line per row with its estimate and interval, a cross where unmeasurable."""
    colour = dict(zip(rows, _cycle(len(rows)), strict=True))
    down = -(-len(panels) // columns)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            down, columns, figsize=(3.3 * columns, (0.62 + 0.21 * len(rows)) * down), squeeze=False
        )
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for i, (axis, (title, lines)) in enumerate(zip(axes.flat, panels, strict=False)):
            _draw_lines(axis, title, {line[0]: line[1:] for line in lines}, rows, colour)
            axis.set_yticks(range(len(rows)), rows if i % columns == 0 else [""] * len(rows), color=INK)
        figure.tight_layout(h_pad=1.2, w_pad=1.4)
        return _save(figure, path)


def _draw_lines(
    axis: Any,
    title: str,
    lines: Mapping[str, tuple[float, float, float, float]],
    rows: Sequence[str],
    colour: Mapping[str, str],
) -> None:
    finite = [v for line in lines.values() for v in line[:3] if np.isfinite(v)]
    low, high = min(finite), max(finite)
    if title.endswith("↑") and low >= 0 and high <= 1:  # a share
        low, high = 0.0, 1.0
    margin = 0.06 * (high - low) if high > low else max(0.5, 0.1 * abs(high))
    axis.set_xlim(low - margin, high + margin)
    for y, row in enumerate(rows):
        if row not in lines:
            continue
        estimate, start, stop, share = lines[row]
        if not np.isfinite(estimate):
            axis.plot(low, y, "x", color=SOFT, markersize=5)
            continue
        if np.isfinite(start):
            axis.plot(
                [start, stop], [y, y], color=colour[row], linewidth=3, solid_capstyle="round", alpha=0.45
            )
        axis.plot(
            estimate, y, "o", color=colour[row], markersize=5, fillstyle="full" if share > 0.995 else "none"
        )
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color=GRID, linewidth=0.7)
    axis.set_title(title, fontsize=9)


def plot_offsets(
    offsets_ms: Mapping[str, Sequence[float]], rows: Sequence[str], path: Path, *, limit_ms: float = 250
) -> Path:
    """Histogram of signed lags of sound behind picture, one panel per row of the table."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            len(offsets_ms), 1, figsize=(6.4, 0.7 + 0.85 * len(offsets_ms)), sharex=True, squeeze=False
        )
        bins = np.linspace(-limit_ms, limit_ms, 101)
        for axis, (name, values) in zip(axes[:, 0], offsets_ms.items(), strict=True):
            colour = PALETTE[rows.index(name) % len(PALETTE)]
            finite = np.asarray([v for v in values if np.isfinite(v)])
            axis.axvspan(-45, 125, color=GRID, alpha=0.45, linewidth=0)
            axis.hist(np.clip(finite, -limit_ms, limit_ms), bins=bins, color=colour)
            label = f"{name}\nn={len(finite)}" + (
                f", median {np.median(finite):+.1f} ms" if len(finite) else ""
            )
            axis.text(0.01, 0.92, label, transform=axis.transAxes, va="top", fontsize=8)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
        axes[0, 0].set_title("Lag of sound behind picture, per clip")
        axes[-1, 0].set_xlabel("ms (positive: sound is late)")
        return _save(figure, path)


def plot_f1(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], rows: Sequence[str], path: Path
) -> Path:
    """F1 of events against the tolerance in ms, one line per row of the table."""
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(5.4, 3.2))
        for name, (tolerance, f1) in curves.items():
            colour = PALETTE[rows.index(name) % len(PALETTE)]
            axis.plot(tolerance, f1, "o-", color=colour, linewidth=1.8, markersize=4, label=name)
        axis.set(
            xlabel="tolerance, ms", ylabel="F1", ylim=(-0.02, 1.02), title="Events seen and heard together"
        )
        axis.grid(color=GRID, linewidth=0.7)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _save(figure, path)


def plot_commanded(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    rows: Sequence[str],
    path: Path,
    *,
    quantity: str,
    unit: str,
) -> Path:
    """Measured against commanded quantity, one colour per row of the table; the diagonal is perfect."""
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(4.4, 4.0))
        everything = [v for x, y in points.values() for v in (*x, *y) if np.isfinite(v)]
        low, high = (min(0.0, *everything), max(everything)) if len(everything) > 1 else (0.0, 1.0)
        axis.plot([low, high], [low, high], color=SOFT, linewidth=1, linestyle=(0, (3, 3)))
        for name, (x, y) in points.items():
            colour = PALETTE[rows.index(name) % len(PALETTE)]
            axis.scatter(x, y, s=14, color=colour, alpha=0.65, linewidths=0, label=name)
        axis.grid(color=GRID, linewidth=0.7)
        axis.set(xlabel=f"commanded, {unit}", ylabel=f"measured, {unit}", title=quantity)
        if points:
            axis.legend(loc="upper left")
        return _save(figure, path)


def plot_differences(lines: Sequence[tuple[str, float, float, float]], path: Path) -> Path:
    """(name, estimate, low, high) of each metric about zero; coloured where the interval leaves zero out."""
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(6.4, 0.8 + 0.19 * len(lines)))
        for y, (_, estimate, low, high) in enumerate(lines):
            colour = PALETTE[2] if high < 0 else PALETTE[1] if low > 0 else SOFT
            if np.isfinite(low):
                axis.plot([low, high], [y, y], color=colour, linewidth=3, solid_capstyle="round", alpha=0.45)
            axis.plot(estimate, y, "o", color=colour, markersize=4)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(range(len(lines)), [line[0] for line in lines], fontsize=7, color=INK)
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.grid(axis="x", color=GRID, linewidth=0.7)
        axis.set(xlabel="change of cost, B less A")
        return _save(figure, path)


def plot_matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], own: np.ndarray, path: Path
) -> Path:
    """Heat map of values in [-1, 1] (rows, columns); cells where `own` are framed."""
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(2.2 + 0.27 * len(columns), 1.6 + 0.21 * len(rows)))
        image = axis.imshow(values, cmap="RdBu_r", vmin=-0.8, vmax=0.8, aspect="auto")
        axis.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7)
        axis.set_yticks(range(len(rows)), rows, fontsize=7)
        for i, j in np.argwhere(own):
            frame = plt.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.1)
            axis.add_patch(frame)
        axis.tick_params(length=0)
        for side in axis.spines.values():
            side.set_visible(False)
        figure.colorbar(image, ax=axis, shrink=0.5, pad=0.01, label="change of cost")
        return _save(figure, path)


def plot_responses(curves: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> Path:
    """Response of a metric to a corruption: median and middle half over clips; open dots where under half of the
    clips are measured, none where none is.

    Each curve has x, low, middle, high, measured (S,), x_label, y_label and neutral.
    """
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, len(curves), figsize=(3.3 * len(curves), 2.3), squeeze=False)
        for axis, curve in zip(axes[0], curves, strict=True):
            x = np.arange(len(curve["x"]))
            axis.fill_between(x, curve["low"], curve["high"], color=PALETTE[0], alpha=0.18, linewidth=0)
            axis.plot(x, curve["middle"], color=PALETTE[0], linewidth=1.6)
            for k in x:
                full = "full" if curve["measured"][k] >= 0.5 else "none"
                axis.plot(k, curve["middle"][k], "o", color=PALETTE[0], markersize=4, fillstyle=full)
            axis.axvline(curve["x"].index(curve["neutral"]), color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)))
            axis.set_xticks(x, [f"{v:g}" for v in curve["x"]], fontsize=7, rotation=60 if len(x) > 8 else 0)
            axis.grid(color=GRID, linewidth=0.7)
            axis.set(xlabel=curve["x_label"], ylabel=curve["y_label"])
        axes[0][0].set_title(title)
        return _save(figure, path)


def _cycle(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return path
