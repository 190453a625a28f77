"""A clip of the toy world without its ambience, from its truth alone: what a codec should keep sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sora2.toybox.randomness import stream
from sora2.toybox.sound import ambience
from sora2.types import Clip


def bed(truth: dict[str, Any]) -> np.ndarray:
    """(channels, S) float32: the ambience under a clip with this truth; scenes add their own noises on top."""
    return ambience(
        truth["ambience"],
        stream(truth["seed"], truth["split"], truth["scene"], truth["index"], "ambience"),
        truth["channels"],
        truth["samples"],
        truth["sample_rate"],
        truth["ambience_level"],
    )


def foreground(clip: Clip) -> Clip:
    """The clip's sound without the ambience, exact where the mix was not limited; other clips as they are."""
    truth = clip.meta.get("truth")
    if truth is None or clip.audio is None or truth["ambience"] == "silence":
        return clip
    return clip.replace(audio=clip.audio - torch.from_numpy(bed(truth)).to(clip.audio))


def has_own_noise(truth: dict[str, Any]) -> bool:
    """Whether there is noise in the foreground: weather, traffic, friction, or a story that shows some."""
    own = "own_ambience" in truth or bool(truth.get("rolls"))
    return own or any(map(has_own_noise, truth.get("strands", [])))
