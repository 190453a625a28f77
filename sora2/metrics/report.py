"""An evaluation as files: metrics.json, table.md, plots, and one page that shows them with the clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sora2.atomic import save_json, save_text
from sora2.media import contact_sheet
from sora2.metrics.controls import Item
from sora2.metrics.evaluation import Evaluation, Outcome, to_json
from sora2.metrics.measures.synchrony import F1_TOLERANCES_MS
from sora2.metrics.page import Page
from sora2.metrics.plots import plot_commanded, plot_f1, plot_offsets, plot_overview
from sora2.metrics.tables import (
    Table,
    definition_table,
    label,
    markdown,
    reason_table,
    success_table,
    value_table,
)

INTRODUCTION = (
    "Estimates are means (or medians, where stated) over the clips that could be measured, with 95 % bootstrap "
    "intervals that draw whole prompts. A clip that cannot be measured counts as a failure in every success rate. "
    "The control rows say what each number means: real is the ceiling, shuffled audio the chance level of synchrony, "
    "frozen frame what a metric gives to a picture that does not move."
)


def write_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    subject: str,
    settings: dict[str, Any],
    shown: Mapping[str, Sequence[Item]],
    worst: Sequence[tuple[Outcome, Item]],
) -> Path:
    """Write everything under `folder`; returns the page.

    subject: the row that is evaluated. shown: clips to play, per row. worst: clips of the subject to draw.
    """
    save_json({**settings, **to_json(evaluation)}, folder / "metrics.json")
    values, successes, reasons = value_table(evaluation), success_table(evaluation), reason_table(evaluation)
    text = [
        f"# {settings['title']}",
        markdown(*values),
        "Share of all clips that succeed:",
        markdown(*successes),
    ]
    if reasons[1]:
        text += ["Unmeasurable:", markdown(*reasons)]
    text.append(f"    {settings['command']}\n")
    save_text("\n\n".join(text), folder / "table.md")
    plots = draw_plots(evaluation, folder / "plots")
    page = Page(settings["title"], subtitle=settings["subtitle"])
    page.section("Results", INTRODUCTION)
    page.table(*_stacked(values))
    page.section("Success rates", "Share of all clips that are as good as the tolerance in the first column.")
    page.table(*_stacked(successes))
    page.section("Plots")
    for path, caption in plots[:1]:
        page.figure(path, caption)
    page.figures(plots[1:], columns=2)
    for row, items in shown.items():
        if items:
            page.section(f"Clips: {row}", evaluation.descriptions[row])
            page.videos([(item.path, item.prompt) for item in items])
    if worst:
        page.section("Worst clips", f"Clips of {subject} that fail most metrics, with what they fail.")
        for i, (outcome, item) in enumerate(worst):
            sheet = contact_sheet(item.clip, folder / "sheets" / f"worst-{i + 1}.png", title=item.prompt)
            page.figure(sheet, _failures(evaluation, outcome))
    if reasons[1]:
        page.section("Unmeasurable", "Why clips have no value, per row and metric.")
        page.table(*reasons, text_columns=(0, 1, 3))
    page.section("Definitions").table(*definition_table(evaluation), text_columns=(0, 3))
    page.section("How this page was made").code(settings["command"])
    page.table(["", ""], [[k, v] for k, v in settings["versions"].items()], text_columns=(0, 1))
    return page.write(folder / "index.html")


def draw_plots(evaluation: Evaluation, folder: Path) -> list[tuple[Path, str]]:
    """All figures that the measured values allow, with captions."""
    rows = list(evaluation.summaries)
    panels = []
    for name, metric in evaluation.metrics.items():
        found = [(row, evaluation.summaries[row].get(name)) for row in rows]
        lines = [
            (row, s.value.estimate, s.value.low, s.value.high, s.measured_share)
            for row, s in found
            if s is not None
        ]
        if any(math.isfinite(line[1]) for line in lines):
            panels.append((label(metric), lines))
    plots = []
    if panels:
        path = plot_overview(panels, rows, folder / "overview.png")
        plots.append(
            (path, "Every metric with its 95 % interval; a cross is a row that could not be measured.")
        )
    if "av_offset" in evaluation.metrics:
        offsets = {row: evaluation.values(row, "av_offset") for row in rows}
        offsets = {row: v for row, v in offsets.items() if np.isfinite(v).any()}
        if offsets:
            path = plot_offsets(offsets, rows, folder / "offsets.png")
            plots.append(
                (
                    path,
                    "Shaded: lags that viewers do not notice, sound 45 ms early to 125 ms late (ITU-R BT.1359-1).",
                )
            )
    names = [f"av_f1_{t}" for t in F1_TOLERANCES_MS]
    if all(n in evaluation.metrics for n in names):
        curves = {
            row: (F1_TOLERANCES_MS, [evaluation.summaries[row][n].value.estimate for n in names])
            for row in rows
            if all(n in evaluation.summaries[row] and evaluation.summaries[row][n].measured for n in names)
        }
        if curves:
            plots.append(
                (plot_f1(curves, rows, folder / "f1.png"), "The row with shuffled audio is the chance level.")
            )
    points = {row: _commanded_points(evaluation, row) for row in rows}
    points = {
        row: p for row, p in points.items() if p[0] and row != "shuffled audio"
    }  # the pictures of "real"
    if points:
        path = plot_commanded(
            points, rows, folder / "gravity.png", quantity="Gravity", unit="picture heights / s²"
        )
        plots.append((path, "Gravity fitted to free flights against the gravity asked for."))
    return plots


def worst_outcomes(evaluation: Evaluation, row: str, count: int) -> list[Outcome]:
    """The clips of a row that fail most metrics, worst first; a perfect clip is not among them."""

    def failed(outcome: Outcome) -> int:
        return sum(not evaluation.metrics[n].success(v) for n, v in outcome.values.items())

    ranked = sorted(evaluation.outcomes[row], key=failed, reverse=True)
    return [o for o in ranked if failed(o)][:count]


def _stacked(table: Table) -> Table:
    """Intervals and measured shares below their estimates, so that many rows fit side by side."""
    headers, rows = table
    return headers, [
        [c.replace(" [", "\n[").replace("], ", "]\n").replace(" (", "\n(") for c in r] for r in rows
    ]


def _failures(evaluation: Evaluation, outcome: Outcome) -> str:
    parts = []
    for name, value in outcome.values.items():
        metric = evaluation.metrics[name]
        if not metric.success(value):
            parts.append(
                f"{name}: " + (f"{value.value:.3g} {value.unit}".strip() if value.measured else value.reason)
            )
    seed = "" if outcome.seed is None else f", seed {outcome.seed}"
    return f"{outcome.key}{seed}. Fails {'; '.join(parts)}."


def _commanded_points(evaluation: Evaluation, row: str) -> tuple[list[float], list[float]]:
    found = [
        o.values["gravity_error"].details
        for o in evaluation.outcomes[row]
        if "gravity_error" in o.values and o.values["gravity_error"].measured
    ]
    return [d["commanded"] for d in found], [d["measured"] for d in found]
