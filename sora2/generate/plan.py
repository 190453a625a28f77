"""A request as a sequence of windows: each asks the model for one stretch of the clip, and is told what was
made.

`plan(request, world)` is a generator: it yields `Window`s that do not wait for each other, is sent their decoded clips,
and returns the finished clip. The pipeline runs many plans side by side and batches their windows.
"""

from __future__ import annotations

from sora2.generate import edits, long
from sora2.generate.grid import World
from sora2.generate.planner import Planner
from sora2.generate.request import Request
from sora2.generate.window import Plan

#: How each task of a request is met.
PLANS = {
    "text_to_av": long.free,
    "staircase": long.free,
    "image_only": long.free,
    "audio_only": long.free,
    "image_to_av": long.image_to_av,
    "video_to_audio": long.video_to_audio,
    "audio_to_video": long.audio_to_video,
    "extend_forward": long.extend,
    "extend_backward": long.extend,
    "loop": edits.loop,
    "inbetween": edits.inbetween,
    "inpaint": edits.inpaint,
    "remix": edits.remix,
}


def plan(request: Request, world: World) -> Plan:
    """Raises RequestError or MediaError, before the first window, when the request cannot be met."""
    planner = Planner(request, world)
    clip = yield from PLANS[planner.task](planner)
    return clip.replace(
        caption=request.caption,
        key=request.key,
        meta={"task": planner.task, "seed": request.seed},
    )
