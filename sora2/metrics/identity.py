"""Face and voice of a clip as vectors, to be compared with those of its enrolment clips."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.evidence import Evidence
from sora2.metrics.faces import find_face
from sora2.metrics.networks.image import SIDE, image_features
from sora2.metrics.networks.sound import mono
from sora2.metrics.networks.voice import voice_embedding
from sora2.metrics.values import Unmeasurable

Array = NDArray[np.float64]

#: Frames of a shot whose faces are averaged.
LOOKS = 3


def face_of(evidence: Evidence) -> Array:
    """(1280,) of unit length: EfficientNet-Lite0 features of the face, mean over frames of the longest shot with one.

    Raises:
        Unmeasurable: no shot shows a face.
    """
    video = evidence.clip.video.numpy()
    edges = [0, *evidence.cuts.tolist(), len(video)]
    for first, stop in sorted(pairwise(edges), key=lambda e: e[0] - e[1]):
        try:
            face = find_face(video[first:stop])
        except Unmeasurable:
            continue
        chosen = np.unique(np.linspace(first, stop - 1, LOOKS).round().astype(int))
        return _unit(image_features(np.stack([face.crop(video[k], SIDE) for k in chosen])).mean(axis=0))
    raise Unmeasurable("no face is seen")


def voice_of(evidence: Evidence) -> Array:
    """(256,) of unit length: the GE2E embedding of the clip's speech.

    Raises:
        Unmeasurable: there is too little speech.
    """
    return voice_embedding(mono(evidence.sound, evidence.clip.sample_rate))


def own(evidence: Evidence, stream: str, describe: Callable[[Evidence], Array]) -> Array:
    """The description of a clip's stream, made once."""
    return evidence.remember(describe, frozenset({stream}))


def enrolled(evidence: Evidence, stream: str, describe: Callable[[Evidence], Array]) -> Array:
    """(D,) of unit length: the mean description of the enrolment clips that have the stream and can be described.

    Raises:
        Unmeasurable: none can.
    """
    found, reason = [], f"no enrolment clip has {stream}"
    for other in evidence.of_enrolment:
        if not other.offers(stream):
            continue
        try:
            found.append(own(other, stream, describe))
        except Unmeasurable as error:
            reason = f"enrolment: {error}"
    if not found:
        raise Unmeasurable(reason)
    return _unit(np.mean(found, axis=0))


def similarity(
    evidence: Evidence, stream: str, describe: Callable[[Evidence], Array]
) -> tuple[float, dict[str, Any]]:
    """Cosine between the clip and its enrolment."""
    cosine = own(evidence, stream, describe) @ enrolled(evidence, stream, describe)
    return float(cosine), {"enrolment_clips": len(evidence.enrolment)}


def separation(seen: Array, known: Array) -> tuple[float, float, float]:
    """Of N clips (N, D) and their enrolments (N, D): the area under the ROC curve of same against different persons,
    and the mean cosine of both. Equal enrolments are of one person.

    Raises:
        Unmeasurable: all clips are of one person.
    """
    cosine = seen @ known.T
    same = (known[:, None] == known[None]).all(axis=2)
    if same.all():
        raise Unmeasurable("all clips are of one person")
    a, b = cosine[same], cosine[~same]
    wins = (a[:, None] > b[None]).mean() + 0.5 * (a[:, None] == b[None]).mean()
    return float(wins), float(a.mean()), float(b.mean())


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
