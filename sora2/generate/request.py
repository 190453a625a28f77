"""What a person asks for: one clip, from words and from whatever parts of it are known already."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from sora2.diffusion.guidance import GuidanceConfig
from sora2.diffusion.layout import STREAMS
from sora2.diffusion.noise_levels import LevelError
from sora2.diffusion.samplers import get_sampler
from sora2.diffusion.tasks import get_task
from sora2.errors import UserError
from sora2.types import Clip

Source = Clip | str | Path

#: Tasks that training draws but nobody asks a sampler for.
TRAINING_ONLY = ("diffusion_forcing",)


class RequestError(UserError):
    """A request that contradicts itself or lacks what its task needs. Messages name the command's flags."""


@dataclass(frozen=True)
class SamplingConfig:
    """How a sample is drawn: the `sampling` section of a checkpoint, where flags do not say otherwise."""

    sampler: str = "multistep"
    steps: int = 30
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    shift: dict[str, float] = field(default_factory=lambda: {"video": 2.0, "audio": 1.0})
    delay: dict[str, float] = field(default_factory=lambda: {"video": 0.0, "audio": 0.0})
    # full denoisings that a stream waits: audio 1 = pictures alone, then the sound for them, in `steps` together

    def __post_init__(self) -> None:
        get_sampler(self.sampler)
        if self.steps < 1:
            raise LevelError(f"steps={self.steps} must be at least 1")
        if set(self.shift) != set(STREAMS) or min(self.shift.values()) <= 0:
            raise LevelError(f"sampling.shift={self.shift} needs a positive number for each of {STREAMS}")
        if (
            set(self.delay) != set(STREAMS)
            or not 0 <= min(self.delay.values()) <= max(self.delay.values()) <= 1
        ):
            raise LevelError(f"sampling.delay={self.delay} needs a number in [0, 1] for each of {STREAMS}")


@dataclass(frozen=True)
class Card:
    """What is seen and heard from a second of a clip on; seconds of words in its quotes are counted from there."""

    start: float
    prompt: str
    cut: bool = False  # a new shot begins, instead of going on from what came before


@dataclass(frozen=True)
class Request:
    """One clip to generate.

    What comes back, per task; "exactly" means the frames and samples of the source as they were read at the
    clip's size and rates, bit for bit:

    - text_to_av, staircase: `seconds` of new video with sound.
    - image_to_av: the image is exactly frame 0.
    - video_to_audio: the source's frames exactly, its sound replaced. audio_to_video: its sound exactly.
    - extend_forward, extend_backward: the source exactly, with `seconds` more after or before it.
    - loop: the source exactly, then `seconds` that lead from its end back to its beginning.
    - inbetween: `video`, then `seconds` between them, then `video_end`; both exactly.
    - inpaint: the source; outside the region (pixel-sharp) and outside the span everything is exactly as it
    was. - remix: all new, with the source's composition kept the more, the lower `strength` is.
    """

    prompt: str = ""  # of all of it, before what a card says
    story: tuple[Card, ...] = ()
    negative_prompt: str | None = None
    task: str | None = None  # None = inferred from what is given
    seed: int = 0
    sampling: SamplingConfig | None = None  # None = the checkpoint's
    seconds: float | None = (
        None  # of the clip, or of what is added to it; None = one window, the trained frames
    )
    size: tuple[int, int] | None = None  # (height, width); None = the trained size
    fps: float | None = None
    image: Source | None = None
    video: Source | None = None
    video_end: Source | None = None
    audio: Source | None = None
    extend: str | None = None  # "forward" or "backward"
    loop: bool = False
    cameo: Source | None = None  # a person: the first picture and the sound of a clip, or one of the two
    consent: str | None = None  # who agreed that `cameo` is used; kept with the clip
    mask: tuple[float, float, float, float] | Tensor | Path | None = (
        None  # y0, x0, y1, x1 in 0..1, or (H, W) bool
    )
    time_span: tuple[float, float] | None = None  # seconds that are made anew
    strength: float | None = None
    slope: float = 1.0  # of the staircase
    silent: bool = False  # pictures alone
    key: str = ""

    def __post_init__(self) -> None:
        if self.task is not None:
            get_task(self.task)
            if self.task in TRAINING_ONLY:
                raise RequestError(f"--task {self.task} is a way of training; sample it as --task staircase")
        if self.seconds is not None and not self.seconds > 0:
            raise RequestError(f"--seconds {self.seconds} must be positive")
        if self.fps is not None and not self.fps > 0:
            raise RequestError(f"--fps {self.fps} must be positive")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise RequestError(
                f"--strength {self.strength} must be above 0 (the source) and at most 1 (all new)"
            )
        if self.seed < 0 or self.seed >= 2**62:
            raise RequestError(f"--seed {self.seed} must be in 0 .. 2^62 - 1")
        if self.extend not in (None, "forward", "backward"):
            raise RequestError(f"extend={self.extend!r} must be 'forward' or 'backward'")
        if self.time_span is not None and not 0 <= self.time_span[0] < self.time_span[1]:
            raise RequestError(
                f"--time-span {self.time_span[0]}:{self.time_span[1]} must be two times, the earlier first"
            )
        if self.cameo is not None and not (self.consent and self.consent.strip()):
            raise RequestError(
                "--cameo puts a person's face and voice into the clip: say with --consent who agreed to it, and where "
                "that is written; it is kept beside the clip"
            )
        if self.consent is not None and self.cameo is None:
            raise RequestError("--consent is about a person: name a clip of theirs with --cameo")
        if self.story and self.story[0].start != 0:
            raise RequestError(
                f"--story: its first card begins at {self.story[0].start:g} s, where it must be 0"
            )
        for one, other in pairwise(self.story):
            if one.start >= other.start:
                raise RequestError(
                    f"--story: a card at {other.start:g} s comes after one at {one.start:g} s; their seconds must rise"
                )
        if isinstance(self.mask, tuple):
            y0, x0, y1, x1 = self.mask
            if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
                raise RequestError(
                    f"--mask {self.mask} must be y0,x0,y1,x1 in parts of the picture, 0 <= y0 < y1 <= 1"
                )

    def replace(self, **changes: Any) -> Request:
        return dataclasses.replace(self, **changes)

    @property
    def caption(self) -> str:
        """All that is told of it."""
        cards = (f"[{c.start:g} s{', cut' if c.cut else ''}] {c.prompt}" for c in self.story)
        return " ".join(part for part in (self.prompt, *cards) if part)


#: task -> the fields it cannot do without, as (field, flag).
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {
    "image_to_av": (("image", "--image"),),
    "video_to_audio": (("video", "--video"),),
    "audio_to_video": (("audio", "--audio"),),
    "extend_forward": (("video", "--video"),),
    "extend_backward": (("video", "--video"),),
    "loop": (("video", "--video"),),
    "inbetween": (("video", "--inbetween A B"), ("video_end", "--inbetween A B")),
    "inpaint": (("video", "--video"),),
    "remix": (("video", "--video"), ("strength", "--strength")),
}

#: Which of the things a person can give each task uses.
USES: dict[str, set[str]] = {
    "image_to_av": {"image"},
    "video_to_audio": {"video"},
    "audio_to_video": {"audio"},
    "extend_forward": {"video", "extend"},
    "extend_backward": {"video", "extend"},
    "loop": {"video", "loop"},
    "inbetween": {"video", "video_end"},
    "inpaint": {"video", "mask", "time_span"},
    "remix": {"video", "strength"},
}

#: Tasks that may be told in cards: those that fill a clip from its first frame to its last.
TOLD = ("text_to_av", "audio_only", "image_to_av", "video_to_audio", "audio_to_video", "extend_forward")

FLAGS = {
    "image": "--image",
    "video": "--video",
    "video_end": "--inbetween",
    "audio": "--audio",
    "extend": "--extend",
    "loop": "--loop",
    "mask": "--mask",
    "time_span": "--time-span",
    "strength": "--strength",
}


def given(request: Request) -> set[str]:
    """The known parts that a request names, as fields of `Request`."""
    return {
        name for name in FLAGS if getattr(request, name) is not None and getattr(request, name) is not False
    }


def resolve_task(request: Request) -> str:
    """The task that a request asks for: its own, or the one that its parts imply.

    Raises:
        RequestError: the parts contradict each other, or the task lacks one; the message names the flags.
    """
    parts = given(request)
    if request.task is not None:
        task = request.task
    elif "loop" in parts:
        task = "loop"
    elif "video_end" in parts:
        task = "inbetween"
    elif "extend" in parts:
        task = f"extend_{request.extend}"
    elif "mask" in parts or "time_span" in parts:
        task = "inpaint"
    elif "strength" in parts:
        task = "remix"
    elif "image" in parts:
        task = "image_to_av"
    elif "video" in parts:
        task = "video_to_audio"
    elif "audio" in parts:
        task = "audio_to_video"
    else:
        task = "text_to_av"
    unused = sorted(FLAGS[name] for name in parts - USES.get(task, set()))
    if unused:
        how = "" if request.task is not None else " (the task that the flags imply)"
        raise RequestError(
            f"{', '.join(unused)} cannot be used with --task {task}{how}; leave out one or the other"
        )
    for name, flag in NEEDS.get(task, ()):
        if name not in parts:
            raise RequestError(f"--task {task} needs {flag}")
    if task == "inpaint" and not parts & {"mask", "time_span"}:
        raise RequestError("--task inpaint needs --mask (a region of the picture), --time-span, or both")
    if request.story and task not in TOLD:
        raise RequestError(f"--story cannot be used with --task {task}; it goes with {', '.join(TOLD)}")
    if request.silent and task in ("video_to_audio", "audio_to_video", "audio_only"):
        raise RequestError(f"--silent cannot be used with --task {task}, which is about sound")
    return task
