"""Is what should be said heard, and how does it sound? By networks that had no part in making it."""

from __future__ import annotations

from typing import Any

from sora2.metrics.evidence import Evidence
from sora2.metrics.networks import dnsmos, whisper
from sora2.metrics.networks.sound import mono
from sora2.metrics.registry import ClipFunction, metric
from sora2.metrics.transcripts import match_words, spoken_words, word_accuracy
from sora2.metrics.values import NotAsked
from sora2.toybox.speech import VOCABULARY

#: Damage to the sound of speech, which may change what is heard or how it sounds.
OF_SPEECH = (
    "muffled speech", "sound noise", "wrong audio", "clipping", "pitch shift", "sound seam", "clicks", "hum",
    "wrong voice", "wrong words", "audio shift", "audio compression", "dc offset",
)  # fmt: skip


def _accuracy(vocabulary: tuple[str, ...]) -> ClipFunction:
    def measure(evidence: Evidence) -> tuple[float, dict[str, Any]]:
        asked, cut_off = spoken_words(evidence.truth)
        if all(cut_off):
            raise NotAsked
        heard = whisper.words_heard(mono(evidence.sound, evidence.clip.sample_rate), vocabulary)
        details = {"asked": asked, "heard": heard, "errors": match_words(asked, heard, cut_off)[0]}
        return word_accuracy(asked, heard, cut_off), details

    measure.__module__ = __name__
    return measure


for _name, _vocabulary, _how in (
    (
        "word_accuracy",
        VOCABULARY,
        "it is told beforehand which 30 words the toybox has, as one tells a person whom one asks",
    ),
    ("word_accuracy_untold", (), "it is told nothing"),
):
    metric(
        _name,
        unit="",
        direction="higher",
        needs=("audio", "truth"),
        tolerance=0.99,
        answers_to=("wrong words", "muffled speech", "wrong audio"),
        also=OF_SPEECH,
        weights=(whisper.WEIGHTS,),
        domain="talk",
        description="1 - word error rate of the words that should be said, in order, 0 at least, heard by Whisper "
        f"tiny.en; {_how}. The row of real clips shows the recogniser's own errors.",
    )(_accuracy(_vocabulary))


@metric(
    "speech_quality",
    unit="MOS",
    direction="higher",
    needs=("audio",),
    tolerance=2.0,
    best=5.0,
    answers_to=("sound noise",),
    also=OF_SPEECH,
    weights=("dnsmos",),
    domain="talk",
)
def speech_quality(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Overall opinion score 1 to 5 by DNSMOS P.835; clips shorter than 9.01 s are repeated to that length, as its
    authors do. It hears noise; it does not hear that speech is muffled or wrong."""
    if evidence.truth is not None and not spoken_words(evidence.truth)[0]:
        raise NotAsked
    signal, background, overall = dnsmos.opinion_scores(mono(evidence.sound, evidence.clip.sample_rate))
    return float(overall), {"signal": float(signal), "background": float(background)}
