"""An evaluation as files: metrics.json, table.md, plots, and one page that shows them with the clips."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sora2.atomic import save_json, save_text
from sora2.media import contact_sheet
from sora2.metrics.controls import Item
from sora2.metrics.corpus import Outcome
from sora2.metrics.evaluation import Evaluation, to_json
from sora2.metrics.measures.synchrony import TOLERANCES_MS
from sora2.metrics.page import Page
from sora2.metrics.plots import plot_commanded, plot_f1, plot_offsets, plot_overview
from sora2.metrics.tables import (
    Table,
    corpus_table,
    definition_table,
    gate_table,
    label,
    main_metrics,
    markdown,
    reason_table,
    success_table,
    value_table,
)

INTRODUCTION = (
    "Estimates are means (or medians, where stated) over the clips that could be measured, with 95 % bootstrap "
    "intervals that draw whole prompts. A clip that cannot be measured counts as a failure in every success rate. "
    "The control rows say what each number means: real is the ceiling, shuffled audio the chance level of synchrony, "
    "frozen frame that a picture which does not move is refused."
)


CORPUS_INTRODUCTION = (
    "Distances between the distributions of named features of a row and of the real clips (the real row is halved and "
    "compared with itself: that is the floor), slopes of what is measured on what is commanded, and synchrony beyond "
    "that of shuffled pairs. None of the distances is comparable with a published FVD or FAD. A bracket is the 95 % "
    "bootstrap interval."
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
    main = main_metrics(evaluation)
    values, successes = value_table(evaluation, main), success_table(evaluation, main)
    others = [n for n in evaluation.metrics if n not in main]
    more, gates, corpora = value_table(evaluation, others), gate_table(evaluation), corpus_table(evaluation)
    reasons = reason_table(evaluation)
    _write_markdown(folder / "table.md", settings, values, successes, gates, more, corpora, reasons)
    save_text(clip_table(evaluation), folder / "clips.csv")
    plots = draw_plots(evaluation, folder / "plots", main)
    page = Page(settings["title"], subtitle=settings["subtitle"])
    page.section("Results", INTRODUCTION)
    for note in settings.get("notes", ()):
        page.text(f"Note: {note}")
    page.table(*_stacked(values))
    page.section("Success rates", "Share of all clips that are as good as the tolerance in the first column.")
    page.table(*_stacked(successes))
    if gates[1]:
        page.section("Gates", "What a clip must be before it is measured. One that fails fails every metric.")
        page.table(*gates)
    if corpora[1]:
        page.section("The set as a whole", CORPUS_INTRODUCTION)
        page.table(*_stacked(corpora))
    if more[1]:
        page.section("All other metrics")
        page.table(*_stacked(more))
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


def _write_markdown(
    path: Path,
    settings: dict[str, Any],
    values: Table,
    successes: Table,
    gates: Table,
    more: Table,
    corpora: Table,
    reasons: Table,
) -> None:
    text = [f"# {settings['title']}", *settings.get("notes", ()), markdown(*values)]
    for heading, table in (
        ("Share of all clips that succeed:", successes),
        ("Gates:", gates),
        ("The set as a whole:", corpora),
        ("All other metrics:", more),
        ("Unmeasurable:", reasons),
    ):
        if table[1]:
            text += [heading, markdown(*table)]
    text.append(f"    {settings['command']}\n")
    save_text("\n\n".join(text), path)


def clip_table(evaluation: Evaluation) -> str:
    """CSV: one line per row, clip and metric."""
    file = io.StringIO()
    lines = csv.writer(file)
    lines.writerow(["row", "key", "prompt", "seed", "metric", "value", "unit", "success", "reason"])
    for row, outcomes in evaluation.outcomes.items():
        for o in outcomes:
            for name, v in o.values.items():
                value = f"{v.value:.6g}" if v.measured else ""
                success = int(evaluation.metrics[name].success(v))
                lines.writerow([row, o.key, o.prompt, o.seed, name, value, v.unit, success, v.reason])
    return file.getvalue()


def draw_plots(evaluation: Evaluation, folder: Path, main: Sequence[str]) -> list[tuple[Path, str]]:
    """All figures that the measured values allow, with captions; the overview is of the `main` metrics."""
    rows = list(evaluation.summaries)
    panels = []
    for name, metric in evaluation.metrics.items():
        if name not in main:
            continue
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
    names = [f"av_f1_{t}" for t in TOLERANCES_MS]
    if all(n in evaluation.metrics for n in names):
        curves = {
            row: (TOLERANCES_MS, [evaluation.summaries[row][n].value.estimate for n in names])
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
    """The clips of a row that fail most of the main metrics, worst first; a perfect clip is not among them."""
    main = main_metrics(evaluation)

    def failed(outcome: Outcome) -> int:
        return sum(not evaluation.metrics[n].success(v) for n, v in outcome.values.items() if n in main)

    ranked = sorted(evaluation.outcomes[row], key=failed, reverse=True)
    return [o for o in ranked if failed(o)][:count]


def _stacked(table: Table) -> Table:
    """Intervals and measured shares below their estimates, so that many rows fit side by side."""
    headers, rows = table
    return headers, [
        [c.replace(" [", "\n[").replace("], ", "]\n").replace(" (", "\n(") for c in r] for r in rows
    ]


def _failures(evaluation: Evaluation, outcome: Outcome) -> str:
    if outcome.gates:
        return (
            f"{outcome.key}. Fails the gates {', '.join(outcome.gates)}: {'; '.join(outcome.gates.values())}."
        )
    parts = []
    for name, value in outcome.values.items():
        if name not in main_metrics(evaluation):
            continue
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
