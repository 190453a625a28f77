"""What the codecs of the whole Toybox must reach, beside what they reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sora2.codecs.summary import Table

#: Group of all Toybox clips, and what the names of its parts begin with.
ALL, PARTS = "all", ("scene ", "style ")


@dataclass(frozen=True)
class Bar:
    """One bar. `value` is NaN where nothing was measured, which reaches nothing."""

    what: str
    value: float
    limit: float
    at_least: bool
    unit: str

    @property
    def reached(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def record(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "value": None if math.isnan(self.value) else self.value,
            "limit": self.limit,
            "at_least": self.at_least,
            "unit": self.unit,
            "reached": self.reached,
        }


def whole_world_bars(table: Table, seconds: float, megabytes: float) -> list[Bar]:
    """Of a summary of whole-world clips; `seconds` of CPU time for a round trip of the default clip on one thread."""
    parts = {g: m["psnr_db"]["mean"] for g, m in table.items() if g.startswith(PARTS) and "psnr_db" in m}
    worst = min(parts, key=parts.__getitem__) if parts else "none"
    return [
        Bar("video PSNR, all clips", _of(table, "psnr_db"), 33, True, "dB"),
        Bar(f"video PSNR, worst scene or style ({worst})", parts.get(worst, math.nan), 28, True, "dB"),
        Bar("onset shift, 90th percentile", _of(table, "onset_shift_ms", "p90"), 5, False, "ms"),
        Bar("mouth opening against the truth", _of(table, "mouth_correlation"), 0.95, True, "correlation"),
        Bar("words lost by the round trip", _of(table, "words_lost_points"), 5, False, "points"),
        Bar("pitch of notes, 90th percentile", _of(table, "pitch_cents", "p90"), 20, False, "cents"),
        Bar("encode and decode of the default clip, CPU time of one thread", seconds, 0.5, False, "s"),
        Bar("both codecs on disk", megabytes, 24, False, "MB"),
    ]


def format_bars(bars: list[Bar]) -> str:
    """As a Markdown table."""
    lines = ["| measure | value | bar | reached |", "|---|---|---|---|"]
    for bar in bars:
        value = "not measured" if math.isnan(bar.value) else f"{bar.value:.3g} {bar.unit}"
        side = "at least" if bar.at_least else "at most"
        lines.append(
            f"| {bar.what} | {value} | {side} {bar.limit:g} {bar.unit} | {'yes' if bar.reached else 'no'} |"
        )
    return "\n".join(lines)


def _of(table: Table, metric: str, statistic: str = "mean") -> float:
    return table.get(ALL, {}).get(metric, {}).get(statistic, math.nan)
