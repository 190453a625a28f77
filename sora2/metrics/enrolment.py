"""Clips of people who should be in other clips: they travel in `clip.meta["enrolment"]`."""

from __future__ import annotations

from sora2.toybox import Toybox, ToyboxConfig
from sora2.toybox.identity import CLIPS_PER_CAMEO
from sora2.types import Clip


def cameo_clips(config: ToyboxConfig, count: int) -> list[Clip]:
    """Target clips of split `cameo`, each with its person's enrolment clips in `meta["enrolment"]`."""
    box = Toybox(config)
    clips = []
    for first in range(0, count * CLIPS_PER_CAMEO, CLIPS_PER_CAMEO):
        *takes, target = box.clips(range(first, first + CLIPS_PER_CAMEO))
        clips.append(target.replace(meta={**target.meta, "enrolment": tuple(takes)}))
    return clips
