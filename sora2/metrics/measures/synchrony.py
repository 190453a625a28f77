"""Are impacts heard when they are seen?"""

from __future__ import annotations

from typing import Any

from sora2.metrics.damage import FALSE_SOUND, LOST_PICTURE, LOST_SOUND, MOVED_SOUND, SHAKEN_PICTURE
from sora2.metrics.events import (
    aligned,
    chance_f1,
    event_counts,
    events_f1,
    heard_events,
    lag_of,
    seen_events,
)
from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import ClipFunction, metric
from sora2.metrics.values import Unmeasurable

#: Tolerances in ms. Sound 45 ms early or 125 ms late is where viewers begin to notice (ITU-R BT.1359-1).
TOLERANCES_MS = (20, 45, 80, 125)

#: Damage to one stream alone, which leaves nothing, or other things, to match.
UNMATCHED = (*LOST_PICTURE, *SHAKEN_PICTURE, *LOST_SOUND, *MOVED_SOUND, *FALSE_SOUND, "blur")


@metric(
    "av_offset",
    unit="ms",
    direction="zero",
    needs=("video", "audio"),
    tolerance=45,
    statistic="median",
    answers_to=("audio shift", "wrong audio"),
    also=UNMATCHED,
)
def av_offset(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Lag of sound behind picture (positive: sound is late), from impacts seen and heard."""
    lag = lag_of(evidence)
    return 1e3 * lag.seconds, {"pairs": lag.pairs, "jitter_ms": 1e3 * lag.jitter_seconds}


@metric(
    "av_jitter",
    unit="ms",
    direction="lower",
    needs=("video", "audio"),
    tolerance=20,
    statistic="median",
    answers_to=("event jitter", "wrong audio"),
    also=UNMATCHED,
)
def av_jitter(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Spread of single impacts about the clip's lag (1.48 median absolute deviation)."""
    lag = lag_of(evidence)
    if lag.pairs < 3:
        raise Unmeasurable(f"{lag.pairs} impacts agree on a lag, 3 are needed")
    return 1e3 * lag.jitter_seconds, {"pairs": lag.pairs}


def _f1(tolerance_ms: float) -> ClipFunction:
    def measure(evidence: Evidence) -> tuple[float, dict[str, Any]]:
        return events_f1(seen_events(evidence), heard_events(evidence), tolerance_ms / 1e3)

    return measure


def _precision(tolerance_ms: float) -> ClipFunction:
    def measure(evidence: Evidence) -> tuple[float, dict[str, Any]]:
        counts = event_counts(seen_events(evidence), heard_events(evidence), tolerance_ms / 1e3)
        if not counts["heard"]:
            raise Unmeasurable("no sound is clear enough to need a cause")
        return counts["heard_matched"] / counts["heard"], counts

    return measure


def _recall(tolerance_ms: float) -> ClipFunction:
    def measure(evidence: Evidence) -> tuple[float, dict[str, Any]]:
        counts = event_counts(seen_events(evidence), heard_events(evidence), tolerance_ms / 1e3)
        return counts["seen_matched"] / counts["seen"], counts

    return measure


for _t in TOLERANCES_MS:
    for _kind, _make, _what in (
        ("f1", _f1, "F1 of impacts seen and heard"),
        ("precision", _precision, "Share of clear sounds that have a visible impact"),
        ("recall", _recall, "Share of strong visible impacts that are heard"),
    ):
        metric(
            f"av_{_kind}_{_t}",
            unit="",
            direction="higher",
            needs=("video", "audio"),
            tolerance=0.8,
            answers_to=("audio shift", "event jitter", "wrong audio") if _t <= 45 else (),
            also=UNMATCHED,
            description=f"{_what} within {_t} ms, matched one to one.",
        )(_make(_t))


@metric(
    "av_skill",
    unit="",
    direction="higher",
    needs=("video", "audio"),
    tolerance=0.5,
    answers_to=("audio shift", "event jitter", "wrong audio"),
    also=UNMATCHED,
)
def av_skill(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 within 45 ms beyond what the clip's own events reach by chance: 1 perfect, 0 chance, below 0 worse."""
    seen, heard = seen_events(evidence), heard_events(evidence)
    score, details = events_f1(seen, heard, 0.045)
    chance = chance_f1(seen, heard, 0.045, evidence.clip.seconds)
    if chance > 0.9:
        raise Unmeasurable("events are so dense that any sound would match")
    return (score - chance) / (1 - chance), {**details, "f1": score, "chance": chance}


@metric(
    "spurious_sounds",
    unit="%",
    direction="lower",
    needs=("video", "audio"),
    tolerance=20,
    answers_to=("sounds added", "wrong audio"),
    also=UNMATCHED,
)
def spurious_sounds(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Share of clear sounds without a visible impact within 45 ms, once the clip's own lag is taken out."""
    seen, heard, _ = aligned(evidence)
    counts = event_counts(seen, heard, 0.045)
    if not counts["heard"]:
        raise Unmeasurable("no sound is clear enough to need a cause")
    return 100 * (1 - counts["heard_matched"] / counts["heard"]), counts


@metric(
    "missing_sounds",
    unit="%",
    direction="lower",
    needs=("video", "audio"),
    tolerance=20,
    answers_to=("sounds removed", "wrong audio"),
    also=UNMATCHED,
)
def missing_sounds(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Share of strong visible impacts without a sound within 45 ms, once the clip's own lag is taken out."""
    seen = seen_events(evidence)
    if not len(evidence.onsets):
        return 100.0, {"seen": int(seen.certain.sum()), "heard": 0}
    seen, heard, _ = aligned(evidence)
    counts = event_counts(seen, heard, 0.045)
    return 100 * (1 - counts["seen_matched"] / counts["seen"]), counts
