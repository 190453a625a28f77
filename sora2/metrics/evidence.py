"""What a clip shows and sounds like, extracted once and shared by all metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sora2.metrics.motion import Contact, Motion, analyse_motion
from sora2.metrics.mouth import mouth_opening
from sora2.metrics.mouth_lag import speech_envelope
from sora2.metrics.onsets import Onsets, detect_onsets
from sora2.metrics.shots import find_cuts
from sora2.metrics.tracking import Track, find_balls
from sora2.metrics.values import NotAsked, Unmeasurable
from sora2.types import Clip

# Frames are small and clips are spread over processes: threads inside OpenCV only wait for each other.
cv2.setNumThreads(1)

#: What a metric may need beside its clip. "paths" are the truth's positions per frame, which a commanded truth (of a
#: generated clip) does not have unless its condition fixes them; "reference" is the clip that this one should
#: reproduce, "enrolment" other clips of the person who should be in this one.
NEEDS = ("video", "audio", "truth", "paths", "reference", "enrolment")

#: Scenes of the toybox whose balls can be followed by their colour: those of the cradle touch.
BALL_SCENES = ("bounce", "occlude", "pendulum")

#: More coloured patches than this are noise: among so many movements some agree with any sound.
MOST_BALLS = 6

#: Measurements that rest on one stream alone.
OF_VIDEO = ("tracks", "motion", "luma", "flow", "cuts", "mouth")
OF_AUDIO = ("onsets", "sound", "envelope")


class Evidence:
    """Lazy measurements of one clip: a metric that needs only sound never pays for tracking.

    truth: the dict of `clip.meta["truth"]` when None is given. reference: the clip that this one should reproduce.
    enrolment: other clips of the person who should be in this one; `clip.meta["enrolment"]` when None is given.
    """

    def __init__(
        self,
        clip: Clip,
        *,
        truth: dict[str, Any] | None = None,
        reference: Clip | None = None,
        enrolment: Sequence[Clip] | None = None,
    ) -> None:
        self.clip = clip
        self._truth = clip.meta.get("truth") if truth is None else truth
        self._read_truth = False
        self.reference = reference
        self.enrolment = tuple(clip.meta.get("enrolment", ()) if enrolment is None else enrolment)
        self._of_reference: Evidence | None = None
        self._remembered: dict[Any, tuple[Any, frozenset[str]]] = {}  # function -> (result, its needs)

    @property
    def truth(self) -> dict[str, Any] | None:
        """What a toybox clip is of, or what was asked of a generated one. That it was read is noted: `share`."""
        self._read_truth = True
        return self._truth

    def offers(self, need: str) -> bool:
        """Whether the clip has what a metric needs, a name of `NEEDS`."""
        if need == "video":
            return self.clip.video is not None and len(self.clip.video) > 0
        if need == "audio":
            return self.clip.audio is not None and self.clip.audio.shape[1] > 0
        if need == "paths":
            return self.truth is not None and all("x" in ball for ball in self.truth.get("balls", ()))
        if need == "enrolment":
            return bool(self.enrolment)
        return getattr(self, need) is not None

    def share(self, other: Evidence) -> Evidence:
        """Take over what `other` has measured of a stream that is the very same tensor here; returns self."""
        for stream, names in (("video", OF_VIDEO), ("audio", OF_AUDIO)):
            if getattr(self.clip, stream) is getattr(other.clip, stream):
                for name in names:
                    if name in other.__dict__:
                        self.__dict__[name] = other.__dict__[name]
        same = {s for s in ("video", "audio") if getattr(self.clip, s) is getattr(other.clip, s)}
        if self._truth is other._truth:
            same |= {"truth", "paths"}
        if [id(c) for c in self.enrolment] == [id(c) for c in other.enrolment]:
            same |= {"enrolment"}
            self.of_enrolment = other.of_enrolment
        self._remembered |= {f: known for f, known in other._remembered.items() if known[1] <= same}
        return self

    def remember(self, function: Callable[[Evidence], Any], needs: frozenset[str]) -> Any:
        """function(self), computed once; `needs` are all that it looks at, but for the truth where there is one."""
        if function not in self._remembered:
            before, self._read_truth = self._read_truth, False
            try:
                result = function(self)
                self._remembered[function] = (result, needs | ({"truth"} if self._read_truth else set()))
            finally:
                self._read_truth |= before
        result, looked_at = self._remembered[function]
        self._read_truth |= "truth" in looked_at
        return result

    def of_reference(self) -> Evidence:
        """Evidence of the reference, measured once."""
        if self._of_reference is None:
            self._of_reference = Evidence(self.reference, truth=self.truth)
        return self._of_reference

    def asked_balls(self, least: int = 1) -> list[dict[str, Any]]:
        """The balls of the truth.

        Raises:
            NotAsked: the truth is of a scene that is not about single balls, of a pencil sketch, whose colours are too
                thin to follow, or asks for fewer than `least`.
        """
        balls = self.truth.get("balls", [])
        of_balls = self.truth.get("scene", "bounce") in BALL_SCENES and self.truth.get("style") != "pencil"
        if len(balls) < least or not of_balls:
            raise NotAsked
        return balls

    def asked_flights(self, least: int = 1) -> list[dict[str, Any]]:
        """The balls of the truth that fly freely, in full sight of a camera that stands still: paths in the picture are
        those of physics.

        Raises:
            NotAsked: as `asked_balls`; or balls hang on strings or pass behind a screen, or the camera moves.
        """
        balls = self.asked_balls(least)
        if self.truth.get("scene", "bounce") != "bounce" or self.camera != "static":
            raise NotAsked
        return balls

    def asked_shapes(self) -> list[dict[str, Any]]:
        """The balls of the truth that are always seen whole and at one distance.

        Raises:
            NotAsked: as `asked_balls`; or a screen hides parts of them, or the camera zooms.
        """
        balls = self.asked_balls()
        if self.truth.get("scene", "bounce") == "occlude" or self.camera == "zoom":
            raise NotAsked
        return balls

    @property
    def camera(self) -> str:
        """How the truth has the camera move."""
        return self.truth.get("camera", {}).get("kind", "static")

    def unless_told(self, asked: Callable[[Evidence], Any]) -> None:
        """For metrics that need no truth: where there is one, it decides whether the clip is asked at all."""
        if self.truth is not None:
            asked(self)

    @property
    def pixels_per_unit(self) -> int:
        """Pixels of one world unit, the picture's shorter side."""
        return min(self.clip.video.shape[1:3])

    @cached_property
    def luma(self) -> NDArray[np.float32]:
        """(T, H, W) brightness 0-255, BT.709."""
        return self.clip.video.numpy() @ np.array([0.2126, 0.7152, 0.0722], np.float32)

    @cached_property
    def of_enrolment(self) -> list[Evidence]:
        """Evidence of the enrolment clips, measured once."""
        return [Evidence(clip) for clip in self.enrolment]

    @cached_property
    def cuts(self) -> NDArray[np.intp]:
        """(K,) frames that begin a new shot."""
        return find_cuts(self.clip.video.numpy())

    @cached_property
    def mouth(self) -> NDArray[np.float64]:
        """(T,) how open the mouth is, see `mouth.mouth_opening`, which may raise Unmeasurable."""
        return mouth_opening(self.clip.video.numpy())

    @cached_property
    def envelope(self) -> NDArray[np.float64]:
        """(N,) of the speech band, see `mouth_lag.speech_envelope`, which may raise Unmeasurable."""
        return speech_envelope(self.sound, self.clip.sample_rate)

    @cached_property
    def flow(self) -> NDArray[np.float32]:
        """(T - 1, H, W, 2) pixels by which each place of a frame has moved in the next (DIS optical flow)."""
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        grey = self.luma.round().astype(np.uint8)
        empty = np.zeros((0, *grey.shape[1:], 2), np.float32)
        flows = [dis.calc(a, b, None) for a, b in pairwise(grey)]
        return np.stack(flows) if flows else empty

    @cached_property
    def tracks(self) -> list[Track]:
        """All balls found in the picture."""
        return find_balls(self.clip.video.numpy())

    @cached_property
    def motion(self) -> Motion:
        """Flights, contacts and gravity of the balls that move."""
        return analyse_motion([t.xy for t in self.tracks], self.clip.fps)

    @cached_property
    def sound(self) -> NDArray[np.float64]:
        """(channels, S).

        Raises:
            Unmeasurable: a sample is not finite.
        """
        audio = self.clip.audio.numpy().astype(np.float64)
        if not np.isfinite(audio).all():
            raise Unmeasurable("the sound has values that are not finite")
        return audio

    @cached_property
    def onsets(self) -> Onsets:
        """Sounds that begin."""
        return detect_onsets(self.sound, self.clip.sample_rate)

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
