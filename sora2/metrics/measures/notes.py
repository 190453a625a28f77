"""Are the notes those of the instrument, and of the score? Pitches of the struck bars of scene `strike`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.damage import FALSE_SOUND, LOST_SOUND
from sora2.metrics.evidence import Evidence
from sora2.metrics.matching import match
from sora2.metrics.pitch import cents, note_pitches
from sora2.metrics.registry import metric
from sora2.metrics.values import NotAsked, Unmeasurable
from sora2.toybox.music import BAR_SEMITONES, INSTRUMENTS, midi_to_hz

#: A note further off is another note.
RIGHT_CENTS = 50.0
#: A sound within so many seconds of a note's onset is that note.
RIGHT_SECONDS = 0.050


def heard_notes(evidence: Evidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) onsets in seconds and (N,) pitches in Hz of the tonal sounds.

    Raises:
        Unmeasurable: none is heard.
    """
    onsets = evidence.onsets.seconds
    pitches = note_pitches(evidence.sound, evidence.clip.sample_rate, onsets)
    tonal = np.isfinite(pitches)
    if not tonal.any():
        raise Unmeasurable("no note is heard")
    return onsets[tonal], pitches[tonal]


def asked_instrument(evidence: Evidence) -> str:
    if evidence.truth.get("scene") != "strike":
        raise NotAsked
    return str(evidence.truth["instrument"])


@metric("note_tuning", unit="", direction="higher", needs=("audio", "truth"), tolerance=0.9)
def note_tuning(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Notes heard within 50 cents of a bar of the instrument that was asked for, as a share of notes heard."""
    lowest = INSTRUMENTS[asked_instrument(evidence)].lowest_midi
    bars = np.array([midi_to_hz(lowest + s) for s in BAR_SEMITONES])
    _, pitches = heard_notes(evidence)
    off = np.abs(cents(pitches[:, None], bars)).min(axis=1)
    details = {"notes": len(pitches), "median_cents": round(float(np.median(off)), 2)}
    return float((off <= RIGHT_CENTS).mean()), details


@metric(
    "notes_played",
    unit="",
    direction="higher",
    needs=("audio", "truth"),
    tolerance=0.9,
    also=(*LOST_SOUND, *FALSE_SOUND),
)
def notes_played(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """F1 of notes heard within 50 ms and 50 cents of the notes of the score. Asked only where the truth has a score,
    which a caption does not give."""
    asked_instrument(evidence)
    score = [e for e in evidence.truth.get("events", ()) if e["kind"] == "note"]
    if not score:
        raise NotAsked
    onsets, pitches = heard_notes(evidence)
    hertz = np.array([note["hz"] for note in score])
    of_score, of_heard = match(np.array([note["onset_seconds"] for note in score]), onsets, RIGHT_SECONDS)
    right = int((np.abs(cents(pitches[of_heard], hertz[of_score])) <= RIGHT_CENTS).sum())
    return 2 * right / (len(score) + len(onsets)), {"score": len(score), "heard": len(onsets), "right": right}
