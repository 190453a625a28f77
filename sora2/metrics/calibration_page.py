"""A calibration as files: calibration.json, plots, and one page that says what each metric sees and what it ignores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sora2.atomic import save_json
from sora2.metrics.calibration import CalibrationResult, Response
from sora2.metrics.evaluation import plain
from sora2.metrics.page import Page
from sora2.metrics.plots import plot_matrix, plot_responses
from sora2.metrics.registry import Metric
from sora2.metrics.tables import label, number

INTRODUCTION = (
    "Every metric is measured on real toybox clips and on the same clips with one thing damaged, by degrees. Damage is "
    "judged by the paired change of the metric's cost: 0 for a perfect clip, 1/2 at the metric's tolerance, 1 for a "
    "clip that it cannot measure, so that hiding never helps. A metric should be monotone in its own damage, "
    "indifferent to all other, and best on the undamaged clip.\n\n"
    "Noise floor: change of the mean cost that another draw of as many real clips could show (2 standard errors). "
    "Smallest detected: the mildest severity from which on all worse ones are told from none at 2 standard errors of "
    "the paired change, on this many clips. Gates are left out here."
)
PUBLISHED = (
    "AV-Align, VBench's temporal flickering and a Physics-IQ style score, re-implemented, under the same damage. "
    "What to look for: a metric that does not fall with its own damage, or that prefers a frozen or an empty picture."
)


def write_calibration(result: CalibrationResult, folder: Path, settings: dict[str, Any]) -> Path:
    """Write calibration.json, plots/ and index.html under `folder`; returns the page."""
    save_json({**settings, **to_json(result)}, folder / "calibration.json")
    headline = [m for m in result.metrics.values() if m.headline]
    published = [m for m in result.metrics.values() if m.name.startswith(("published_", "vbench_"))]
    page = Page("Calibration of the metrics", subtitle=settings["subtitle"])
    page.section("What is shown", INTRODUCTION)
    page.section("Metrics and what they see")
    page.table(*verdict_table(result, headline), text_columns=(0, 1, 5, 6))
    page.section("Every metric under every damage")
    matrix = plot_matrix(*change_matrix(result, headline), folder / "plots" / "matrix.png")
    page.figure(matrix, "Change of mean cost at the damage that changes it most. Framed: its own damage.")
    page.section(
        "Responses",
        "Median over clips with the middle half of them, under the metric's own damage; open dots where under half of "
        "the clips can be measured, none where none can.",
    )
    page.figures(_response_plots(result, headline, folder), columns=3)
    if published:
        page.section("Published metrics, for comparison", PUBLISHED)
        page.figures(_published_plots(result, published, folder), columns=3)
        page.table(*comparison_table(result, published), text_columns=(0, 1))
    page.section("Damage").table(*corruption_table(result), text_columns=(0, 3))
    page.section("How this page was made").code(settings["command"])
    return page.write(folder / "index.html")


def to_json(result: CalibrationResult) -> dict[str, Any]:
    """Per metric and corruption: severities, mean value, mean cost change with its error, verdicts."""
    found: dict[str, Any] = {}
    for (metric, corruption), r in result.responses.items():
        change, error = r.change()
        with np.errstate(all="ignore"):
            measured = np.isfinite(r.value).mean(axis=1)
        found.setdefault(metric, {})[corruption] = plain(
            {
                "severities": list(r.severities),
                "median": [_median(v) for v in r.value],
                "measured_share": measured.tolist(),
                "cost_change": change.tolist(),
                "standard_error": error.tolist(),
                "own": corruption in r.metric.answers_to,
                "monotone": r.monotone,
                "detected_from": r.smallest,
                "indifferent": r.indifferent,
                "improves": r.improves,
                "noise_floor": r.noise_floor,
            }
        )
    return {"clips": result.clips, "responses": found}


def verdict_table(result: CalibrationResult, metrics: Sequence[Metric]) -> tuple[list[str], list[list[str]]]:
    """One line per metric."""
    headers = ["metric", "its own damage, detected from", "monotone", "real clips, median", "noise floor",
               "also notices", "damage that improves it"]  # fmt: skip
    rows = []
    for metric in metrics:
        responses = list(result.of_metric(metric.name))
        own = [r for r in responses if r.corruption.name in metric.answers_to]
        others = [r for r in responses if r.corruption.name not in metric.answers_to]
        monotone = [r.monotone for r in own]
        rows.append(
            [
                label(metric),
                "; ".join(_detected(r) for r in own),
                "yes" if all(monotone) else f"{sum(monotone)} of {len(monotone)}",
                number(_median(responses[0].value[responses[0].neutral])) if responses else "",
                number(responses[0].noise_floor) if responses else "",
                _listed([r for r in others if not r.indifferent and not r.improves], "nothing else"),
                _listed([r for r in responses if r.improves], "none"),
            ]
        )
    return headers, rows


def change_matrix(
    result: CalibrationResult, metrics: Sequence[Metric]
) -> tuple[np.ndarray, list[str], list[str], np.ndarray]:
    """(values, rows, columns, own): largest change of mean cost per metric and corruption, and whether it is its
    own."""
    values = np.zeros((len(metrics), len(result.corruptions)))
    own = np.zeros(values.shape, np.bool_)
    for i, metric in enumerate(metrics):
        for j, r in enumerate(result.of_metric(metric.name)):
            change, _ = r.change()
            values[i, j] = change[int(np.argmax(np.abs(change)))]
            own[i, j] = r.corruption.name in metric.answers_to
    return values, [m.name for m in metrics], list(result.corruptions), own


def comparison_table(
    result: CalibrationResult, metrics: Sequence[Metric]
) -> tuple[list[str], list[list[str]]]:
    """Medians of published metrics on real clips and under gross damage."""
    damage = [n for n in ("audio shift", "wrong audio", "frames frozen", "object removed", "gravity", "restitution",
                          "flicker", "time warp", "sound noise") if n in result.corruptions]  # fmt: skip
    rows = []
    for metric in metrics:
        cells = [label(metric), ""]
        first = result.responses[metric.name, next(iter(result.corruptions))]
        cells[1] = number(_median(first.value[first.neutral]))
        for name in damage:
            r = result.responses[metric.name, name]
            cells.append(f"{number(_median(r.value[-1]))}\nat {r.severities[-1]:g}")
        rows.append(cells)
    return ["metric", "real", *damage], rows


def corruption_table(result: CalibrationResult) -> tuple[list[str], list[list[str]]]:
    """What each corruption does."""
    rows = []
    for c in result.corruptions.values():
        scale = ", ".join(f"{s:g}" for s in c.severities)
        rows.append([c.name, f"{scale} {c.unit}", f"{c.neutral:g}", c.description])
    return ["damage", "severities", "none at", "what it is"], rows


def _listed(responses: Sequence[Response], nothing: str) -> str:
    return ", ".join(r.corruption.name for r in responses) if responses else nothing


def _detected(r: Response) -> str:
    found = [f"{s:g} {r.corruption.unit}".strip() for s in r.smallest.values()]
    return f"{r.corruption.name}: {' and '.join(found) if found else 'not detected'}"


def _response_plots(
    result: CalibrationResult, metrics: Sequence[Metric], folder: Path
) -> list[tuple[Path, str]]:
    plots = []
    for metric in metrics:
        own = [r for r in result.of_metric(metric.name) if r.corruption.name in metric.answers_to]
        for r in own:
            name = f"{metric.name}-{r.corruption.name}".replace(" ", "-")
            path = plot_responses([_curve(r)], folder / "plots" / f"{name}.png", title=metric.name)
            plots.append((path, _caption(r)))
    return plots


def _published_plots(
    result: CalibrationResult, metrics: Sequence[Metric], folder: Path
) -> list[tuple[Path, str]]:
    plots = []
    for metric in metrics:
        for r in result.of_metric(metric.name):
            if r.corruption.name in (
                "audio shift",
                "wrong audio",
                "frames frozen",
                "object removed",
                "gravity",
            ):
                name = f"{metric.name}-{r.corruption.name}".replace(" ", "-")
                path = plot_responses([_curve(r)], folder / "plots" / f"{name}.png", title=metric.name)
                plots.append((path, _caption(r)))
    return plots


def _curve(r: Response) -> dict[str, Any]:
    """What a response plot draws."""
    order = np.arange(len(r.severities))
    quantiles = np.array([_quantiles(v) for v in r.value])
    return {
        "x": [r.severities[i] for i in order],
        "low": quantiles[:, 0],
        "middle": quantiles[:, 1],
        "high": quantiles[:, 2],
        "measured": np.array(
            [
                np.isfinite(v).sum() / max(1, np.isfinite(c).sum())
                for v, c in zip(r.value, r.cost, strict=True)
            ]
        ),
        "x_label": f"{r.corruption.name}, {r.corruption.unit}" if r.corruption.unit else r.corruption.name,
        "y_label": r.metric.unit,
        "neutral": r.corruption.neutral,
    }


def _caption(r: Response) -> str:
    verdict = "monotone" if r.monotone else "not monotone"
    return f"{label(r.metric)}. {_detected(r)}; {verdict}."


def _quantiles(values: np.ndarray) -> tuple[float, float, float]:
    seen = values[np.isfinite(values)]
    if not len(seen):
        return np.nan, np.nan, np.nan
    low, middle, high = np.quantile(seen, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def _median(values: np.ndarray) -> float:
    return _quantiles(np.asarray(values))[1]
