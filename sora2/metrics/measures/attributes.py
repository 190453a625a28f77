"""Is it the ball that was asked for? Colours from pixels, materials from the sound of impacts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from sora2.metrics.damage import (
    BROKEN_LAW,
    FALSE_SOUND,
    LOST_PICTURE,
    LOST_SOUND,
    MOVED_SOUND,
    SHAKEN_PICTURE,
)
from sora2.metrics.detector_lag import load_detector_lag
from sora2.metrics.events import FAINT_SPEED, lag_of
from sora2.metrics.evidence import Evidence
from sora2.metrics.matching import match
from sora2.metrics.registry import metric
from sora2.metrics.timbre import material_amplitudes
from sora2.metrics.values import Unmeasurable
from sora2.toybox.vocabulary import MATERIALS

#: An onset belongs to a contact at most this far away once the clip's own lag is taken out.
LINK_SECONDS = 0.050


@metric(
    "tracked_color",
    unit="",
    direction="higher",
    needs=("video", "truth"),
    tolerance=1.0,
    answers_to=("wrong prompt", "object removed", "object added"),
    also=("black",),
)
def tracked_color(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Commanded balls whose colour is seen, one to one, as a share of balls commanded or seen, whichever is more."""
    wanted = Counter(ball["color"] for ball in evidence.asked_balls())
    seen = Counter(track.color for track in evidence.tracks)
    if not seen:
        raise Unmeasurable("no ball found")
    right = sum((wanted & seen).values())
    return right / max(wanted.total(), seen.total()), {"wanted": dict(wanted), "seen": dict(seen)}


@metric(
    "struck_material",
    unit="",
    direction="higher",
    needs=("video", "audio", "truth"),
    tolerance=1.0,
    answers_to=("pitch shift", "wrong audio", "wrong prompt"),
    also=(*LOST_PICTURE, *SHAKEN_PICTURE, *LOST_SOUND, *MOVED_SOUND, *FALSE_SOUND, *BROKEN_LAW),
)
def struck_material(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Commanded balls whose impacts sound of their material, as a share of balls that are missing or seen to hit.

    The sounds of a ball are those that begin when it is seen to touch something. Their spectra are explained by the
    voices of the public table; the material with the largest amplitude, over all sounds of the ball, is the answer.
    A ball that touches nothing has no say; a ball that is missing, or touches in silence, is wrong.
    """
    balls = evidence.asked_balls()
    if not evidence.tracks:
        raise Unmeasurable("no ball found")
    audio, rate = evidence.sound, evidence.clip.sample_rate
    contacts = evidence.contacts(FAINT_SPEED)
    lag = lag_of(evidence).seconds + load_detector_lag().lag_seconds
    verdicts: dict[str, str] = {}
    asked = right = 0
    for ball in balls:
        own = [i for i, track in enumerate(evidence.tracks) if track.color == ball["color"]]
        touches = np.array([c.seconds for c in contacts if c.ball in own])
        if own and not len(touches):
            continue
        asked += 1
        _, heard = match(touches, evidence.onsets.seconds - lag, LINK_SECONDS)
        amounts = dict.fromkeys(MATERIALS, 0.0)
        for onset in heard:
            alone = _struck_alone(evidence, contacts, evidence.onsets.seconds[onset] - lag, own)
            for name, amount in material_amplitudes(audio, rate, evidence.onsets.seconds[onset]).items():
                amounts[name] += amount if alone else 0.05 * amount
        verdict = max(amounts, key=lambda name: amounts[name]) if any(amounts.values()) else "silence"
        verdicts[ball["color"]] = verdict
        right += verdict == ball["material"]
    if not asked:
        raise Unmeasurable("no commanded ball touches anything")
    return right / asked, {"heard": verdicts, "asked": asked}


def _struck_alone(evidence: Evidence, contacts: list[Any], seconds: float, own: list[int]) -> bool:
    """Whether no other ball touches anything at this moment, which would sound too."""
    return not any(c.ball not in own and abs(c.seconds - seconds) < LINK_SECONDS for c in contacts)
