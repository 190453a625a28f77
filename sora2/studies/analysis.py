"""A study's record as numbers and sentences: means over seeds, differences from the base paired by seed, verdicts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sora2.errors import UserError

RESULTS = Path(__file__).resolve().parents[2] / "notebooks" / "results"


@dataclass(frozen=True)
class Difference:
    """A cell against the base on one measure: the mean over seeds of the paired differences, and its 95 % interval."""

    cell: str
    mean: float
    low: float  # NaN with a single seed
    high: float
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


class Study:
    """What `sora2 study` recorded. A measure is the name of a loss or value on held-out shards
    ("held_out/text_to_av/video", "held_out/all/psnr_db"), or of a metric within an evaluation ("text_to_av:av_skill").
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.base: str = record["base"]
        self.entries: list[dict[str, Any]] = record["cells"]

    @property
    def cells(self) -> list[str]:
        return list(dict.fromkeys(e["cell"] for e in self.entries))

    def says(self, cell: str) -> str:
        """A cell in words."""
        return next(e["says"] for e in self.entries if e["cell"] == cell)

    def by_seed(self, cell: str, measure: str) -> dict[int, float]:
        """The measure for each seed of a cell that has it."""
        evaluation, colon, metric = measure.rpartition(":")
        found = {}
        for entry in self.entries:
            if entry["cell"] != cell:
                continue
            if colon:
                value = entry.get("scores", {}).get(evaluation, {}).get(metric, {}).get("estimate")
            else:
                value = entry["values"].get(measure)
            if value is not None:
                found[entry["seed"]] = float(value)
        return found

    def real(self, measure: str) -> float:
        """The measure of real clips; NaN where there is none."""
        evaluation, _, metric = measure.rpartition(":")
        value = self.record["real"].get(evaluation, {}).get(metric, {}).get("estimate")
        return math.nan if value is None else float(value)

    def mean(self, cell: str, measure: str) -> tuple[float, float, float]:
        """(mean over seeds, low, high) with the 95 % interval of Student's t; NaN where nothing was measured."""
        return _interval(np.array(list(self.by_seed(cell, measure).values())))

    def table(self, measures: Sequence[str]) -> str:
        """Cells down, measures across: mean and half the width of its interval over seeds; last, real clips."""
        width = max(len(self.says(c)) for c in self.cells) + 2
        columns = [max(len(m), 18) + 2 for m in measures]
        lines = [" " * width + "".join(m.rjust(w) for m, w in zip(measures, columns, strict=True))]
        for cell in self.cells:
            texts = []
            for measure in measures:
                mean, low, high = self.mean(cell, measure)
                half = "" if math.isnan(low) else f" ± {(high - low) / 2:.3f}"
                texts.append("–" if math.isnan(mean) else f"{mean:.3f}{half}")
            lines.append(
                self.says(cell).ljust(width)
                + "".join(t.rjust(w) for t, w in zip(texts, columns, strict=True))
            )
        real = [self.real(m) for m in measures]
        if not all(map(math.isnan, real)):
            texts = ["–" if math.isnan(v) else f"{v:.3f}" for v in real]
            lines.append(
                "real clips".ljust(width) + "".join(t.rjust(w) for t, w in zip(texts, columns, strict=True))
            )
        return "\n".join(lines)


def load_study(name: str, folder: Path = RESULTS) -> Study:
    """Raises UserError when the study was not run."""
    path = folder / f"{name}.json"
    if not path.is_file():
        raise UserError(f"{path} is not there: run `sora2 study {name}`")
    return Study(json.loads(path.read_text()))


def differences(study: Study, measure: str) -> list[Difference]:
    """Every other cell against the base, over the seeds that both have."""
    base = study.by_seed(study.base, measure)
    found = []
    for cell in study.cells:
        own = study.by_seed(cell, measure)
        shared = sorted(base.keys() & own.keys())
        if cell != study.base and shared:
            values = np.array([own[s] - base[s] for s in shared])
            found.append(Difference(cell, *_interval(values), len(shared)))
    return found


def sentence(study: Study, measure: str, better: str) -> str:
    """Who is better than the base on a measure, in words; `better` is "higher" or "lower".

    Raises:
        UserError: another word.
    """
    if better not in ("higher", "lower"):
        raise UserError(f"better={better!r} must be 'higher' or 'lower'")
    parts = []
    for d in differences(study, measure):
        gain = (d.mean > 0) == (better == "higher")
        interval = "one seed" if math.isnan(d.low) else f"[{d.low:+.3f}, {d.high:+.3f}], {d.seeds} seeds"
        verdict = ("better" if gain else "worse") if d.clear else "no clear difference"
        parts.append(f"{study.says(d.cell)}: {verdict} ({d.mean:+.3f}; {interval})")
    against = f"{measure}, {better} is better, against {study.says(study.base)}"
    return f"{against} -- " + ("; ".join(parts) if parts else "nothing to compare yet") + "."


def _interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and 95 % interval of Student's t over independent values."""
    if not len(values):
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half
