"""Is it the person who was enrolled? Face and voice against other clips of the same person."""

from __future__ import annotations

from typing import Any

from sora2.metrics.damage import LOST_PICTURE, SHAKEN_PICTURE
from sora2.metrics.evidence import Evidence
from sora2.metrics.identity import face_of, similarity, voice_of
from sora2.metrics.measures.speech import OF_SPEECH
from sora2.metrics.registry import metric


@metric(
    "voice_similarity",
    unit="",
    direction="higher",
    needs=("audio", "enrolment"),
    tolerance=0.68,
    answers_to=("wrong voice",),
    also=OF_SPEECH,
    weights=("resemblyzer",),
    domain="cameo",
)
def voice_similarity(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Cosine of the speaker embedding (GE2E, Resemblyzer's weights, own front end) with that of the enrolment clips.
    Strangers are similar too: compare with the row of wrong enrolment, or see voice_identity_auc."""
    return similarity(evidence, "audio", voice_of)


@metric(
    "face_similarity",
    unit="",
    direction="higher",
    needs=("video", "enrolment"),
    tolerance=0.75,
    answers_to=("wrong face",),
    also=(*LOST_PICTURE, *SHAKEN_PICTURE, "blur", "picture noise", "flicker", "banding", "picture seam"),
    weights=("efficientnet-lite0",),
    domain="cameo",
)
def face_similarity(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Cosine of EfficientNet-Lite0 (ImageNet) features of the face with those of the enrolment clips. These are
    features of pictures, not of a network for faces: style and light count as well, and strangers are similar too;
    compare with the row of wrong enrolment, or see face_identity_auc."""
    return similarity(evidence, "video", face_of)
