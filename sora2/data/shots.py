"""Where a film cuts: PySceneDetect's detectors on frames with their true timestamps.

PySceneDetect counts time in frames of a constant rate; feeding its detectors ourselves keeps the cuts right
for variable frame rates and streams that do not start at second 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, SceneDetector

from sora2.data.errors import DataError
from sora2.media.probing import probe
from sora2.media.source import clock_zero, find_video, open_media

#: Threshold of each detector when none is given: PySceneDetect's own.
THRESHOLDS = {"content": 27.0, "adaptive": 3.0}
_DETECTION_WIDTH = 128  # pixels; detectors compare colours, which survive a small picture
_MISSING_END_SECONDS = 0.5


@dataclass(frozen=True)
class Shot:
    """An uncut span, in seconds on the file's clock (0 = its first stream starts)."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def find_shots(
    path: Path,
    *,
    detector: str = "content",
    threshold: float | None = None,
    shortest_seconds: float = 0.3,
    progress: Callable[[float], object] | None = None,
) -> list[Shot]:
    """Shots of a video in order; together they cover its pictures.

    detector: "content" (change between neighbouring frames) or "adaptive" (the same, relative to its
    surroundings: fewer false cuts in fast motion). `progress` is called with the seconds decoded since its
    last call. Raises `MediaError` for a file that is not media, `DataError` for one without pictures or cut
    off.
    """
    info = probe(path)
    if not info.has_video:
        raise DataError(f"{path} has no pictures to cut into shots")
    if threshold is None:
        threshold = THRESHOLDS[detector]
    shortest = max(1, round(shortest_seconds * info.fps))
    judge: SceneDetector
    if detector == "content":
        judge = ContentDetector(threshold=threshold, min_scene_len=shortest)
    else:
        judge = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=shortest)
    times, cuts = _decode(path, judge, progress)
    end = info.video_start_seconds + info.video_seconds
    if not times or times[-1] < end - _MISSING_END_SECONDS:
        last = times[-1] if times else 0.0
        raise DataError(
            f"{path} is cut off: its header promises {end:.2f} s of pictures, the last that can be "
            "decoded is at "
            f"{last:.2f} s. Copy it again, or take it out of the folder."
        )
    bounds = [times[0], *(times[c] for c in cuts), end]
    return [Shot(a, b) for a, b in pairwise(bounds) if b > a]


def _decode(
    path: Path, judge: SceneDetector, progress: Callable[[float], object] | None
) -> tuple[list[float], list[int]]:
    """Times of all frames in seconds, and the sorted numbers of those that begin a new shot."""
    times: list[float] = []
    cuts: set[int] = set()
    with open_media(path) as container:
        stream = find_video(container)
        assert stream is not None  # find_shots has looked
        stream.thread_type = "AUTO"
        zero = clock_zero(container)
        try:
            for frame in container.decode(stream):
                if not isinstance(frame, av.VideoFrame) or frame.pts is None or frame.time_base is None:
                    raise DataError(
                        f"{path}: a frame has no timestamp; remux it (ffmpeg -i IN -c copy OUT.mp4)"
                    )
                cuts.update(judge.process_frame(len(times), _small(frame)))
                times.append(float(frame.pts * frame.time_base - zero))
                if progress is not None and len(times) > 1:
                    progress(max(0.0, times[-1] - times[-2]))
        except av.FFmpegError as error:
            at = times[-1] if times else 0.0
            raise DataError(
                f"{path} is damaged after second {at:.2f}: {error}. Copy it again, or take it out of "
                "the folder."
            ) from error
    cuts.update(judge.post_process(len(times) - 1))
    return times, sorted(c for c in cuts if 0 < c < len(times))


def _small(frame: av.VideoFrame) -> np.ndarray:
    """(h, w, 3) uint8 BGR, as the detectors take it."""
    width = min(frame.width, _DETECTION_WIDTH)
    height = max(2, round(frame.height * width / frame.width))
    return frame.to_ndarray(format="bgr24", width=width, height=height)
