"""What a codec round trip must keep of a Toybox clip beside pixels and samples: the mouth, the words, the notes."""

from __future__ import annotations

import math

from sora2.metrics.mouth import opening_correlation
from sora2.metrics.networks.sound import mono
from sora2.metrics.networks.whisper import words_heard
from sora2.metrics.transcripts import match_words
from sora2.metrics.tuning import REACH_CENTS, note_errors
from sora2.metrics.values import Unmeasurable
from sora2.toybox.speech import VOCABULARY
from sora2.types import Clip

#: What a note counts whose pitch is gone: at least that far off.
LOST_CENTS = REACH_CENTS


def judge(clip: Clip, decoded: Clip) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Values and events of one clip and its reconstruction, by its scene; none for other scenes.

    - talk: mouth_correlation of the decoded pictures with the truth, and mouth_correlation_original; per word,
      words_percent that the recogniser hears of the round trip (100 or 0), words_original_percent, and their
      difference words_lost_points, positive where the round trip loses;
    - strike: per note that has a pitch in the original, pitch_original_cents, the error against the score; pitch_cents
      of the decoded sound, `LOST_CENTS` where its pitch is not heard any more; and notes_lost_percent of those.

    Raises:
        MetricError: the recogniser is not installed, and there is a talking clip.
    """
    truth = clip.meta.get("truth", {})
    if truth.get("scene") == "talk":
        spoken = [event["word"] for event in truth["events"]]
        original, heard = ([100.0 * found for found in _found(spoken, c)] for c in (clip, decoded))
        values = {
            "mouth_correlation": opening_correlation(decoded, truth),
            "mouth_correlation_original": opening_correlation(clip, truth),
        }
        return values, {
            "words_percent": heard,
            "words_original_percent": original,
            "words_lost_points": [a - b for a, b in zip(original, heard, strict=True)],
        }
    if truth.get("scene") == "strike":
        original, decoded_errors = (note_errors(c, truth) for c in (clip, decoded))
        pairs = [(a, b) for a, b in zip(original, decoded_errors, strict=True) if not math.isnan(a)]
        return {}, {
            "pitch_cents": [LOST_CENTS if math.isnan(b) else b for _, b in pairs],
            "pitch_original_cents": [a for a, _ in pairs],
            "notes_lost_percent": [100.0 * math.isnan(b) for _, b in pairs],
        }
    return {}, {}


def _found(spoken: list[str], clip: Clip) -> list[bool]:
    """Which of the words are heard; none in silence."""
    try:
        sound = mono(clip.audio.numpy(), clip.sample_rate)
    except Unmeasurable:
        return [False] * len(spoken)
    return match_words(spoken, words_heard(sound, VOCABULARY))[1]
