"""Does the mouth move with the voice?"""

from __future__ import annotations

from typing import Any

import numpy as np

from sora2.metrics.damage import FALSE_SOUND, LOST_PICTURE, LOST_SOUND, SHAKEN_PICTURE
from sora2.metrics.evidence import Evidence
from sora2.metrics.mouth_lag import REACH, STEP, agreement, lag_seconds
from sora2.metrics.registry import metric
from sora2.metrics.transcripts import spoken_words
from sora2.metrics.values import NotAsked, Unmeasurable

#: Within this lag viewers take mouth and voice for one (ITU-R BT.1359-1).
UNNOTICED = 0.045
ALSO = (
    *LOST_PICTURE, *SHAKEN_PICTURE, *LOST_SOUND, *FALSE_SOUND, "blur", "picture noise", "flicker", "hum", "banding",
    "muffled speech", "picture seam", "wrong voice",
)  # fmt: skip


def _asked(evidence: Evidence) -> None:
    if evidence.truth is not None and not spoken_words(evidence.truth)[0]:
        raise NotAsked


@metric(
    "mouth_lag",
    unit="ms",
    direction="zero",
    needs=("video", "audio"),
    tolerance=45,
    statistic="median",
    answers_to=("mouth shift", "audio shift", "wrong audio"),
    also=ALSO,
    domain="talk",
)
def mouth_lag(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Lag of the voice behind the mouth (positive: sound is late), where the opening of the mouth, from pixels, and the
    speech band's envelope agree best."""
    _asked(evidence)
    lag, height = lag_seconds(*agreement(evidence.mouth, evidence.clip.fps, evidence.envelope))
    return 1e3 * lag, {"correlation": height}


@metric(
    "mouth_sync",
    unit="",
    direction="higher",
    needs=("video", "audio"),
    tolerance=0.5,
    answers_to=("mouth shift", "audio shift", "wrong audio"),
    also=(*ALSO, "wrong words"),
    domain="talk",
)
def mouth_sync(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Highest correlation of the mouth's opening with the speech envelope within a lag of 45 ms. Shuffled pairs give
    the chance level, see mouth_sync_above_chance."""
    _asked(evidence)
    lags, found = agreement(evidence.mouth, evidence.clip.fps, evidence.envelope)
    return float(found[np.abs(lags) <= UNNOTICED + 1e-9].max()), {"highest": float(found.max())}


@metric(
    "mouth_shown_lag",
    unit="ms",
    direction="zero",
    needs=("video", "truth"),
    tolerance=45,
    statistic="median",
    answers_to=("mouth shift",),
    also=(*ALSO, "wrong words"),
    domain="talk",
)
def mouth_shown_lag(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Lag of the mouth that is seen behind the mouth of the truth (positive: the picture is late)."""
    if "mouth" not in evidence.truth:
        raise NotAsked
    true, fps = np.array(evidence.truth["mouth"]["opening"]), evidence.clip.fps
    seen = np.flatnonzero(np.isfinite(evidence.mouth))
    lags = np.arange(-round(REACH / STEP), round(REACH / STEP) + 1) * STEP
    clock = np.arange(len(true)) / fps
    found = np.zeros(len(lags))
    for k, lag in enumerate(lags):
        at = seen / fps - lag
        inside = (at >= 0) & (at <= clock[-1])
        shown, wanted = evidence.mouth[seen[inside]], np.interp(at[inside], clock, true)
        if inside.sum() > len(seen) // 3 and np.std(shown) > 1e-9 and np.std(wanted) > 1e-9:
            found[k] = np.corrcoef(shown, wanted)[0, 1]
    lag, height = lag_seconds(lags, found)
    if height < 0.5:
        raise Unmeasurable("the mouth that is seen does not move as it should at any lag")
    return 1e3 * lag, {"correlation": height}
