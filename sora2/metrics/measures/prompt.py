"""Does the clip show what its prompt asks for? One metric per attribute that Toybox captions state, and their mean.

A trained reader (`sora2.metrics.readers`) looks at the clip without its truth; its answer is compared with what the
truth commands. How often the reader is right on held-out real clips stands beside every score: no model can be
measured to do better than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sora2.metrics.damage import BROKEN_LAW, FALSE_SOUND, LOST_PICTURE, LOST_SOUND, SHAKEN_PICTURE
from sora2.metrics.evidence import Evidence
from sora2.metrics.readers.accuracy import OVERALL
from sora2.metrics.readers.attributes import ATTRIBUTES, Answer, Attribute, asked_attributes
from sora2.metrics.readers.reading import Answered, load_reader, read_clip
from sora2.metrics.registry import ClipFunction, metric
from sora2.metrics.values import NotAsked
from sora2.metrics.weights import find_weights

WEIGHTS = "readers"
NEEDS = ("video", "audio", "truth")

#: Attributes that differ between clips of one scene and that the shipped reader reads well: each must notice the prompt
#: of another clip. Colour differs too, but the reader has not learned it yet (`tracked_color` measures it).
CLAIMED = ("style", "background", "ambience", "gravity", "material", "size", "count")

#: Gross damage hides attributes. That mild damage does not is tested by itself.
HIDDEN = (
    *LOST_PICTURE,
    *SHAKEN_PICTURE,
    *LOST_SOUND,
    *FALSE_SOUND,
    *BROKEN_LAW,
    "blur",
    "picture noise",
    "flicker",
    "banding",
    "picture seam",
    "object added",
    "size drift",
    "teleport",
    "hum",
    "dc offset",
)


def read_evidence(evidence: Evidence) -> dict[str, Answered]:
    """What the reader tells of the clip, once for all metrics."""
    return read_clip(load_reader(find_weights(WEIGHTS)), evidence.clip)


def reading(evidence: Evidence) -> dict[str, Answered]:
    return evidence.remember(read_evidence, frozenset({"video", "audio"}))


def asked(evidence: Evidence) -> Mapping[str, Answer]:
    """What the truth commands.

    Raises:
        NotAsked: nothing that can be read.
    """
    found = asked_attributes(evidence.truth)
    if not found:
        raise NotAsked
    return found


def recorded_accuracy(name: str) -> float | None:
    """The reader's own accuracy on held-out real clips, where it was recorded with the weights."""
    return load_reader(find_weights(WEIGHTS)).accuracy_of(name)


@metric(
    "prompt_accuracy",
    unit="",
    direction="higher",
    needs=NEEDS,
    tolerance=0.9,
    answers_to=("wrong prompt",),
    also=HIDDEN,
    weights=(WEIGHTS,),
    ceiling=lambda: recorded_accuracy(OVERALL),
)
def prompt_accuracy(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Mean agreement of what a trained reader sees and hears with what the prompt asks, over all attributes asked."""
    wanted, answers = asked(evidence), reading(evidence)
    values = {n: ATTRIBUTES[n].agreement(w, answers[n].value) for n, w in wanted.items()}
    return float(np.mean(list(values.values()))), {"wrong": [n for n, v in values.items() if v < 1]}


def _measure_of(attribute: Attribute) -> ClipFunction:
    def measure(evidence: Evidence) -> tuple[float, dict[str, Any]]:
        wanted = asked(evidence)
        if attribute.name not in wanted:
            raise NotAsked
        own, answer = wanted[attribute.name], reading(evidence)[attribute.name]
        details = {"wanted": own, "read": answer.value, "confidence": round(answer.confidence, 4)}
        return attribute.agreement(own, answer.value), details

    return measure


def _ceiling_of(name: str) -> Any:
    return lambda: recorded_accuracy(name)


for _name, _attribute in ATTRIBUTES.items():
    _right = (
        "The set read over the set asked, their intersection as a share of their union"
        if (_attribute.several)
        else "1 where the value read is the one asked"
    )
    metric(
        f"prompt_{_name}",
        unit="",
        direction="higher",
        needs=NEEDS,
        tolerance=1.0,
        answers_to=("wrong prompt",) if _name in CLAIMED else (),
        also=HIDDEN,
        weights=(WEIGHTS,),
        ceiling=_ceiling_of(_name),
        description=f"{_right}: {_name.replace('_', ' ')} {_attribute.description}, by a trained reader.",
    )(_measure_of(_attribute))
