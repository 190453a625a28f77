"""What a real clip gives to each task of the sampler, so that any task can be evaluated on held-out clips.

Every request asks for a clip as long as the real one, whose caption stands for it: what is known of it (its pictures,
its sound, its first frame, its first half, its ends) is the condition, the rest is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sora2.metrics.values import MetricError
from sora2.types import Clip

#: The part that `inpaint` makes anew, (y0, x0, y1, x1) in 0..1: the right half.
REGION = (0.0, 0.5, 1.0, 1.0)


def _part(clip: Clip, frames: int, last: bool = False) -> Clip:
    """The first or last `frames` of a clip, with their sound."""
    audio = clip.audio
    if audio is not None:
        samples = round(frames / clip.fps * clip.sample_rate)
        audio = audio[:, -samples:] if last else audio[:, :samples]
    return clip.replace(video=clip.video[-frames:] if last else clip.video[:frames], audio=audio)


def _known(clip: Clip, share: int, stride: int) -> int:
    """Frames of one part in `share` of a clip, on the codec's grid of 1 + stride * k frames."""
    frames = clip.video.shape[0]
    known = 1 + stride * ((frames - 1) // stride // share)
    if known == frames or known == 1:
        raise MetricError(
            f"--task: {clip.key} has {frames} frames, too few to know one part in {share} of it"
        )
    return known


def _half(clip: Clip, last: bool, stride: int) -> dict[str, Any]:
    """The first or last half of a clip as the source of an extension."""
    known = _known(clip, 2, stride)
    return {
        "video": _part(clip, known, last),
        "extend": "backward" if last else "forward",
        "seconds": (clip.video.shape[0] - known) / clip.fps,
    }


def _ends(clip: Clip, stride: int) -> dict[str, Any]:
    """The first and the last third of a clip."""
    known = _known(clip, 3, stride)
    return {
        "video": _part(clip, known),
        "video_end": _part(clip, known, last=True),
        "seconds": (clip.video.shape[0] - 2 * known) / clip.fps,
    }


def _loop(clip: Clip, stride: int) -> dict[str, Any]:
    """The first half of a clip, which is to be led back to its beginning."""
    known = _known(clip, 2, stride)
    return {
        "video": _part(clip, known),
        "loop": True,
        "seconds": (clip.video.shape[0] - known) / clip.fps,
    }


def _first_frame(clip: Clip, stride: int) -> dict[str, Any]:
    return {"image": clip.replace(video=clip.video[:1], audio=None, sample_rate=0)}


#: Tasks whose condition fixes where things go: what has begun to move goes on in one way.
FIXES_PATHS = ("extend_forward", "inbetween")

#: How far a `remix` goes from its source, towards 1, all new.
STRENGTH = 0.6

#: Task -> what its request holds beside caption and seed, from a real clip and the video codec's temporal stride.
CONDITIONS: dict[str, Callable[[Clip, int], dict[str, Any]]] = {
    "text_to_av": lambda clip, stride: {},
    "video_to_audio": lambda clip, stride: {"video": clip.replace(audio=None, sample_rate=0)},
    "audio_to_video": lambda clip, stride: {"audio": clip.replace(video=None, fps=0.0)},
    "image_to_av": _first_frame,
    "extend_forward": lambda clip, stride: _half(clip, False, stride),
    "extend_backward": lambda clip, stride: _half(clip, True, stride),
    "inbetween": _ends,
    "loop": _loop,
    "inpaint": lambda clip, stride: {"video": clip, "mask": REGION},
    "remix": lambda clip, stride: {"video": clip, "strength": STRENGTH},
}
