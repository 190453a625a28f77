"""What a codec round trip must keep of a Toybox clip beside pixels and samples: the mouth, the words, the notes."""

from __future__ import annotations

from sora2.metrics.mouth import opening_correlation
from sora2.metrics.tuning import note_errors
from sora2.metrics.recognise import recognise
from sora2.toybox.speech import VOCABULARY
from sora2.toybox.speech.recognise import recognised
from sora2.types import Clip


def judge(clip: Clip, decoded: Clip) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Values and events of one clip and its reconstruction, by its scene; none for other scenes.

    - talk: mouth_correlation of the decoded pictures with the truth, and mouth_correlation_original; per word,
      words_percent that the recogniser hears of the round trip (100 or 0), words_original_percent, and their
      difference words_lost_points, positive where the round trip loses;
    - strike: per note pitch_cents, the error of the decoded sound against the score, and pitch_original_cents.

    Raises:
        MetricError, SpeechError: the recogniser is not installed, and there is a talking clip.
    """
    truth = clip.meta.get("truth", {})
    if truth.get("scene") == "talk":
        spoken = [event["word"] for event in truth["events"]]
        before, after = (
            recognised(spoken, recognise(c.audio, c.sample_rate, VOCABULARY)) for c in (clip, decoded)
        )
        values = {
            "mouth_correlation": opening_correlation(decoded, truth),
            "mouth_correlation_original": opening_correlation(clip, truth),
        }
        heard, original = ([100.0] * n + [0.0] * (len(spoken) - n) for n in (after, before))
        return values, {
            "words_percent": heard,
            "words_original_percent": original,
            "words_lost_points": [a - b for a, b in zip(original, heard, strict=True)],
        }
    if truth.get("scene") == "strike":
        return {}, {
            "pitch_cents": note_errors(decoded, truth),
            "pitch_original_cents": note_errors(clip, truth),
        }
    return {}, {}
