"""What a clip shows and sounds like, extracted once and shared by all metrics."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from sora2.metrics.motion import Contact, Motion, analyse_motion
from sora2.metrics.onsets import Onsets, detect_onsets
from sora2.metrics.registry import Unmeasurable
from sora2.metrics.tracking import Track, find_balls
from sora2.types import Clip

#: More coloured patches than this are noise: among so many movements some agree with any sound.
MOST_BALLS = 6


class Evidence:
    """Lazy measurements of one clip: a metric that needs only sound never pays for tracking.

    truth: the dict of `clip.meta["truth"]` when None is given. reference: the clip that this one should reproduce.
    """

    def __init__(
        self, clip: Clip, *, truth: dict[str, Any] | None = None, reference: Clip | None = None
    ) -> None:
        self.clip = clip
        self.truth = clip.meta.get("truth") if truth is None else truth
        self.reference = reference

    def offers(self, need: str) -> bool:
        """Whether the clip has "video", "audio", "truth" or a "reference"."""
        held = {
            "video": self.clip.video is not None and len(self.clip.video) > 0,
            "audio": self.clip.audio is not None and self.clip.audio.shape[1] > 0,
            "truth": self.truth is not None,
            "reference": self.reference is not None,
        }
        return held[need]

    @cached_property
    def pixels_per_unit(self) -> int:
        """Pixels of one world unit, the picture's shorter side."""
        return min(self.clip.video.shape[1:3])

    @cached_property
    def tracks(self) -> list[Track]:
        """All balls found in the picture."""
        return find_balls(self.clip.video.numpy())

    @cached_property
    def motion(self) -> Motion:
        """Flights, contacts and gravity of the balls that move."""
        return analyse_motion([t.xy for t in self.tracks], self.clip.fps)

    @cached_property
    def onsets(self) -> Onsets:
        """Sounds that begin."""
        audio = self.clip.audio.numpy()
        if not np.isfinite(audio).all():
            raise Unmeasurable("the sound has values that are not finite")
        return detect_onsets(audio, self.clip.sample_rate)

    def moving_tracks(self) -> list[Track]:
        """Balls that travel at least 3 % of the picture.

        Raises:
            Unmeasurable: there is no ball, none moves, or the picture is strewn with more than `MOST_BALLS`.
        """
        if not self.tracks:
            raise Unmeasurable("no ball found")
        if len(self.tracks) > MOST_BALLS:
            raise Unmeasurable(f"{len(self.tracks)} patches of colour are no picture of single balls")
        moving = [t for t in self.tracks if t.travel() >= 0.03 * self.pixels_per_unit]
        if not moving:
            raise Unmeasurable("no ball moves")
        return moving

    def contacts(self, slowest: float = 0.0) -> list[Contact]:
        """Contacts whose change of velocity is at least `slowest` world units per second.

        Raises:
            Unmeasurable: there is no ball, or none moves.
        """
        self.moving_tracks()
        return [c for c in self.motion.contacts if c.strength >= slowest * self.pixels_per_unit]
