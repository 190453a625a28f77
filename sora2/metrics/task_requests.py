"""What a real clip gives to each task of the sampler, so that any task can be evaluated on held-out clips.

Every request asks for a clip as long as the real one, whose caption stands for it: what is known of it (its pictures,
its sound, its first frame, its first half) is the condition, the rest is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sora2.metrics.values import MetricError
from sora2.types import Clip

#: The part that `inpaint` makes anew, (y0, x0, y1, x1) in 0..1: the right half.
REGION = (0.0, 0.5, 1.0, 1.0)


def _half(clip: Clip, last: bool, stride: int) -> dict[str, Any]:
    """The first or last half of a clip as the source of an extension, on the codec's grid of 1 + stride * k frames."""
    frames = clip.video.shape[0]
    known = 1 + stride * ((frames - 1) // stride // 2)
    if known == frames or known == 1:
        raise MetricError(f"--task: {clip.key} has {frames} frames, too few to extend half of it")
    video = clip.video[-known:] if last else clip.video[:known]
    audio = clip.audio
    if audio is not None:
        samples = round(known / clip.fps * clip.sample_rate)
        audio = audio[:, -samples:] if last else audio[:, :samples]
    return {
        "video": clip.replace(video=video, audio=audio),
        "extend": "backward" if last else "forward",
        "seconds": (frames - known) / clip.fps,
    }


def _first_frame(clip: Clip, stride: int) -> dict[str, Any]:
    return {"image": clip.replace(video=clip.video[:1], audio=None, sample_rate=0)}


#: Task -> what its request holds beside caption and seed, from a real clip and the video codec's temporal stride.
CONDITIONS: dict[str, Callable[[Clip, int], dict[str, Any]]] = {
    "text_to_av": lambda clip, stride: {},
    "video_to_audio": lambda clip, stride: {"video": clip.replace(audio=None, sample_rate=0)},
    "audio_to_video": lambda clip, stride: {"audio": clip.replace(video=None, fps=0.0)},
    "image_to_av": _first_frame,
    "extend_forward": lambda clip, stride: _half(clip, False, stride),
    "extend_backward": lambda clip, stride: _half(clip, True, stride),
    "inpaint": lambda clip, stride: {"video": clip, "mask": REGION},
}
