"""Are persons told apart, and do mouths move with their own voices, better than with others'?"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.corpus import Corpus
from sora2.metrics.identity import separation
from sora2.metrics.measures.mouth import UNNOTICED
from sora2.metrics.mouth_lag import agreement
from sora2.metrics.networks import whisper
from sora2.metrics.registry import corpus_metric
from sora2.metrics.statistics import clustered_bootstrap, members, resample
from sora2.metrics.values import MetricValue, Unmeasurable

Array = NDArray[np.float64]

FEWEST = 4
BOOTSTRAPS = 200


def _separation(corpus: Corpus, name: str) -> MetricValue:
    found = [o.features[name] for o in corpus.described(name)]
    if len(found) < FEWEST:
        raise Unmeasurable(f"{len(found)} clips have a {name} and enrolment; {FEWEST} are needed")
    own, known = (np.array([f[key] for f in found], np.float64) for key in ("own", "enrolled"))
    clips_of = members(corpus.prompts(name))
    value, same, different = separation(own, known)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(BOOTSTRAPS):
        chosen = resample(clips_of, rng)
        try:
            draws.append(separation(own[chosen], known[chosen])[0])
        except Unmeasurable:
            continue
    low, high = np.quantile(draws, (0.025, 0.975))
    details: dict[str, Any] = {"same": same, "different": different, "clips": len(own)}
    return MetricValue(value, "measured", details={**details, "interval": [float(low), float(high)]})


@corpus_metric(
    "face_identity_auc", unit="", direction="higher", features=("face",), weights=("efficientnet-lite0",)
)
def face_identity_auc(corpus: Corpus) -> MetricValue:
    """Chance that a clip's face is more similar to its own enrolment than another clip's face is to enrolment of
    somebody else: 1 all persons are told apart, 0.5 none."""
    return _separation(corpus, "face")


@corpus_metric(
    "voice_identity_auc", unit="", direction="higher", features=("voice",), weights=("resemblyzer",)
)
def voice_identity_auc(corpus: Corpus) -> MetricValue:
    """The same for voices."""
    return _separation(corpus, "voice")


@corpus_metric("mouth_sync_above_chance", unit="", direction="higher", features=("mouth",))
def mouth_sync_above_chance(corpus: Corpus) -> MetricValue:
    """Mean correlation of mouth and voice within a lag of 45 ms beyond that of shuffled pairs, of what is above it: 1
    perfect, 0 no better than anybody else's voice."""
    found = [o.features["mouth"] for o in corpus.described("mouth")]
    prompts = corpus.prompts("mouth")
    if len(found) < FEWEST:
        raise Unmeasurable(f"{len(found)} clips show a mouth and have a voice; {FEWEST} are needed")
    if len(set(prompts)) < 2:
        raise Unmeasurable("all clips are of one caption: there is no other whose voices to try")
    mouths = [np.array([np.nan if v is None else v for v in f["opening"]], np.float64) for f in found]
    voices = [np.array(f["envelope"], np.float64) for f in found]
    own = np.array([_agrees(m, f["fps"], v) for m, f, v in zip(mouths, found, voices, strict=True)])
    other = []
    for i, m in enumerate(mouths):  # with the voices of the next ten clips of other captions
        after = ((i + turn) % len(found) for turn in range(1, len(found)))
        strangers = islice((k for k in after if prompts[k] != prompts[i]), 10)
        other += [_agrees(m, found[i]["fps"], voices[k]) for k in strangers]
    level = float(np.mean(other))
    if level > 0.9:
        raise Unmeasurable("all clips speak alike: any voice would match")
    drawn = clustered_bootstrap(own, prompts)
    low, high = ((bound - level) / (1 - level) for bound in (drawn.low, drawn.high))
    details = {"correlation": float(own.mean()), "chance": level, "interval": [float(low), float(high)]}
    return MetricValue((float(own.mean()) - level) / (1 - level), "measured", details=details)


def _agrees(mouth: Array, fps: float, voice: Array) -> float:
    lags, found = agreement(mouth, fps, voice)
    return float(found[np.abs(lags) <= UNNOTICED + 1e-9].max())


@corpus_metric(
    "word_error_rate", unit="%", direction="lower", weights=(whisper.WEIGHTS,), rests_on=("word_accuracy",)
)
def word_error_rate(corpus: Corpus) -> MetricValue:
    """Word errors of all clips over all words asked, as the field reports it: a clip may count above 100 %. The
    recogniser is told the vocabulary, as for word_accuracy."""
    details = corpus.details("word_accuracy")
    asked, errors = sum(len(d["asked"]) for d in details), sum(d["errors"] for d in details)
    return MetricValue(100 * errors / asked, "measured", details={"asked": asked, "errors": errors})
