"""An evaluation as tables: for the terminal, for Markdown, for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sora2.metrics.comparison import Comparison
from sora2.metrics.evaluation import Evaluation, Summary
from sora2.metrics.gates import GATES
from sora2.metrics.registry import Metric
from sora2.metrics.values import MetricValue

Table = tuple[list[str], list[list[str]]]  # headers, rows

_ARROW = {"higher": "↑", "lower": "↓", "zero": "→ 0"}


def label(metric: Metric) -> str:
    """Name, unit and which way is better, such as "av_offset, ms → 0"."""
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.name}{unit}\u00a0{_ARROW[metric.direction]}"


#: The metrics that stand first, unless others are chosen; the rest follows below.
MAIN = (
    "gravity_error", "restitution_error", "energy_gain", "momentum_error", "permanence", "continuity",
    "interpenetration", "shape_drift", "tracked_color", "struck_material", "prompt_accuracy", "prompt_scene",
    "prompt_style", "prompt_camera", "prompt_color", "prompt_material", "prompt_count", "prompt_gravity",
    "prompt_ambience", "av_offset", "av_jitter", "av_f1_45", "av_skill", "spurious_sounds", "missing_sounds",
    "loudness_correlation", "pan_correlation", "flicker", "warp_error", "clicks", "video_psnr", "audio_si_sdr",
    "word_accuracy", "speech_quality", "mouth_lag", "mouth_sync", "voice_similarity", "face_similarity", "cut_f1",
    "cut_lag",
)  # fmt: skip


def main_metrics(evaluation: Evaluation) -> list[str]:
    """Names of the metrics of the first table: `MAIN`, or all when few were chosen."""
    names = list(evaluation.metrics)
    return names if len(names) <= len(MAIN) else [n for n in MAIN if n in evaluation.metrics]


def value_table(evaluation: Evaluation, names: Sequence[str] | None = None) -> Table:
    """Metrics down, rows of clips across: estimate, 95 % interval, and the measured share where not all are.

    Where a metric rests on a trained reader, the second column says what it gave held-out real clips.
    """
    rows = list(evaluation.summaries)
    body = []
    for name in evaluation.metrics if names is None else names:
        metric = evaluation.metrics[name]
        cells = [_value_cell(evaluation.summaries[row].get(name)) for row in rows]
        if any(cell != "–" for cell in cells):
            body.append([label(metric), ceiling(metric), *cells])
    if any(line[1] != "–" for line in body):
        return ["metric", "reader on real clips", *rows], body
    return ["metric", *rows], [[line[0], *line[2:]] for line in body]


def ceiling(metric: Metric) -> str:
    """What a metric that rests on a trained reader gave held-out real clips; a dash for all others."""
    found = None if metric.ceiling is None else metric.ceiling()
    return "–" if found is None else number(found)


def success_table(evaluation: Evaluation, names: Sequence[str] | None = None) -> Table:
    """Share of all clips as good as the tolerance; an unmeasurable clip counts as a failure."""
    rows = list(evaluation.summaries)
    body = []
    for name in evaluation.metrics if names is None else names:
        metric = evaluation.metrics[name]
        summaries = [evaluation.summaries[row].get(name) for row in rows]
        if any(s is not None for s in summaries):
            body.append([criterion(metric), *[_success_cell(s) for s in summaries]])
    return ["share of clips with", *rows], body


def reason_table(evaluation: Evaluation) -> Table:
    """Why clips could not be measured, most frequent first within each row and metric."""
    body = []
    for row, summaries in evaluation.summaries.items():
        for name, summary in summaries.items():
            for reason, count in summary.reasons.items():
                if not reason.startswith("fails a gate"):
                    body.append([row, name, f"{count} of {summary.clips}", reason])
        for name, value in evaluation.corpora.get(row, {}).items():
            if not value.measured:
                body.append([row, name, "the set", value.reason])
    return ["row", "metric", "clips", "reason"], body


def gate_table(evaluation: Evaluation) -> Table:
    """Share of clips that pass each gate; gates that all clips of all rows pass are left out."""
    rows = list(evaluation.outcomes)
    failed = {row: evaluation.gates(row) for row in rows}
    body = []
    for gate in GATES:
        if any(failed[row][gate] for row in rows):
            sizes = [len(evaluation.outcomes[row]) for row in rows]
            body.append(
                [gate, *[f"{n - failed[row][gate]} of {n}" for row, n in zip(rows, sizes, strict=True)]]
            )
    return ["clips that pass", *rows], body


def corpus_table(evaluation: Evaluation) -> Table:
    """Corpus metrics down, rows across, with their intervals."""
    rows = list(evaluation.corpora)
    body = []
    for name, metric in evaluation.corpus_metrics.items():
        values = [evaluation.corpora[row].get(name) for row in rows]
        if any(v is not None for v in values):
            body.append([f"{name}\u00a0{_ARROW[metric.direction]}", *[_corpus_cell(v) for v in values]])
    return ["of the set", *rows], body


def difference_table(comparison: Comparison) -> Table:
    """Metrics down: A, B, B less A with its interval, change of success rate, corrected p, verdict."""
    body = []
    for d in comparison.differences:
        shares = [f", {m:.0%} measured" if m < 1 else "" for m in (d.measured_a, d.measured_b)]
        low, high = d.value.low, d.value.high
        interval = f" [{number(low)}, {number(high)}]" if math.isfinite(low) else ""
        body.append(
            [
                label(d.metric),
                number(d.a) + shares[0],
                number(d.b) + shares[1],
                number(d.value.estimate) + interval,
                f"{100 * d.success.estimate:+.0f} points",
                f"{d.adjusted_p:.3f}" if math.isfinite(d.adjusted_p) else "–",
                d.verdict,
            ]
        )
    return ["metric", "A", "B", "B less A", "success", "p, corrected", "verdict"], body


def definition_table(evaluation: Evaluation) -> Table:
    """What each metric is."""
    body = []
    for m in evaluation.metrics.values():
        body.append([label(m), m.statistic, criterion(m).removeprefix(m.name).strip(), m.description])
    for c in evaluation.corpus_metrics.values():
        body.append([f"{c.name}\u00a0{_ARROW[c.direction]}", "the set", "", c.description])
    return ["metric", "summed up by", "succeeds at", "definition"], body


def criterion(metric: Metric) -> str:
    """What a clip must reach to succeed, such as "|av_offset| ≤ 45 ms"."""
    unit = f" {metric.unit}" if metric.unit else ""
    if metric.direction == "higher":
        return f"{metric.name} ≥ {metric.tolerance:g}{unit}"
    if metric.best and metric.direction == "zero":
        return f"|{metric.name} - {metric.best:g}| ≤ {abs(metric.tolerance - metric.best):g}{unit}"
    name = f"|{metric.name}|" if metric.direction == "zero" else metric.name
    return f"{name} ≤ {metric.tolerance:g}{unit}"


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text too."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (headers, *rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headers))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def number(value: float) -> str:
    """Three significant digits, never in scientific notation for sizes that occur here."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3f}"


def _value_cell(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    if not summary.measured:
        return f"unmeasurable ({summary.clips} clips)"
    text = number(summary.value.estimate)
    if math.isfinite(summary.value.low):
        text += f" [{number(summary.value.low)}, {number(summary.value.high)}]"
    return text if summary.measured == summary.clips else f"{text}, {summary.measured_share:.0%} measured"


def _corpus_cell(value: MetricValue | None) -> str:
    if value is None:
        return "–"
    if not value.measured:
        return "unmeasurable"
    low, high = value.details.get("interval", (math.nan, math.nan))
    text = number(value.value)
    return f"{text} [{number(low)}, {number(high)}]" if math.isfinite(low) else text


def _success_cell(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    text = f"{summary.success.estimate:.0%}"
    if math.isfinite(summary.success.low):
        text += f" [{summary.success.low:.0%}, {summary.success.high:.0%}]"
    return text
