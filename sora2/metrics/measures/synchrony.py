"""Are impacts heard when they are seen?"""

from __future__ import annotations

from typing import Any

from sora2.metrics.events import chance_f1, events_f1, heard_events, lag_of, seen_events
from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import Unmeasurable, metric

#: Tolerances in ms. Sound 45 ms early or 125 ms late is where viewers begin to notice (ITU-R BT.1359-1).
F1_TOLERANCES_MS = (20, 45, 80, 125)


@metric("av_offset", unit="ms", direction="zero", needs=("video", "audio"), tolerance=45, statistic="median")
def av_offset(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Lag of sound behind picture (positive: sound is late), from impacts seen and heard."""
    lag = lag_of(evidence)
    return 1e3 * lag.seconds, {"pairs": lag.pairs, "jitter_ms": 1e3 * lag.jitter_seconds}


@metric("av_jitter", unit="ms", direction="lower", needs=("video", "audio"), tolerance=20, statistic="median")
def av_jitter(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Spread of single impacts about the clip's lag (1.48 median absolute deviation)."""
    lag = lag_of(evidence)
    if lag.pairs < 3:
        raise Unmeasurable(f"{lag.pairs} impacts agree on a lag, 3 are needed")
    return 1e3 * lag.jitter_seconds, {"pairs": lag.pairs}


def _f1(evidence: Evidence, tolerance_ms: float) -> tuple[float, dict[str, Any]]:
    return events_f1(seen_events(evidence), heard_events(evidence), tolerance_ms / 1e3)


@metric("av_f1_20", unit="", direction="higher", needs=("video", "audio"), tolerance=0.8)
def av_f1_20(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 of impacts seen and heard within 20 ms, matched one to one."""
    return _f1(evidence, 20)


@metric("av_f1_45", unit="", direction="higher", needs=("video", "audio"), tolerance=0.8)
def av_f1_45(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 of impacts seen and heard within 45 ms, matched one to one."""
    return _f1(evidence, 45)


@metric("av_f1_80", unit="", direction="higher", needs=("video", "audio"), tolerance=0.8)
def av_f1_80(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 of impacts seen and heard within 80 ms, matched one to one."""
    return _f1(evidence, 80)


@metric("av_f1_125", unit="", direction="higher", needs=("video", "audio"), tolerance=0.8)
def av_f1_125(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 of impacts seen and heard within 125 ms, matched one to one."""
    return _f1(evidence, 125)


@metric("av_skill", unit="", direction="higher", needs=("video", "audio"), tolerance=0.5)
def av_skill(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 within 45 ms beyond what the clip's own events reach by chance: 1 perfect, 0 chance, below 0 worse."""
    seen, heard = seen_events(evidence), heard_events(evidence)
    score, details = events_f1(seen, heard, 0.045)
    chance = chance_f1(seen, heard, 0.045, evidence.clip.seconds)
    if chance > 0.9:
        raise Unmeasurable("events are so dense that any sound would match")
    return (score - chance) / (1 - chance), {**details, "f1": score, "chance": chance}
