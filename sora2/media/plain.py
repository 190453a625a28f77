"""Pictures of plain files through decord, which must be the same ones as through PyAV."""

from __future__ import annotations

import importlib.util
import os
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer

from sora2.media.errors import MediaError
from sora2.media.hdr import is_hdr
from sora2.media.picture import PictureTrack
from sora2.media.source import SMALL_PICTURE, Source, clock_zero, first_picture

#: Pictures converted at once: bounds the memory that full-size pictures take before they are resized.
_BATCH = 16


def obstacle(source: Source, container: InputContainer, stream: av.VideoStream) -> str:
    """Why decord would not give the right pictures of this stream, or "" where it does.

    It does for a file on disk with 8-bit 4:2:0 upright pictures at one constant rate from second 0 on.
    Decodes the first picture, and leaves the container at its start.
    """
    if importlib.util.find_spec("decord") is None:
        return "decord is not installed"
    if not isinstance(source, (str, os.PathLike)):
        return "it is not a file on disk"
    first = first_picture(container, stream)
    if stream.codec_context.pix_fmt != "yuv420p":
        return f"its pictures are {stream.codec_context.pix_fmt}, not yuv420p"
    if stream.start_time != 0 or clock_zero(container) != 0:
        return "its pictures do not start at second 0"
    if not stream.frames or stream.average_rate is None:
        return "its header does not count the frames"
    if stream.base_rate != stream.average_rate or frame_ticks(stream).denominator != 1:
        return "its frame rate varies"
    if stream.sample_aspect_ratio not in (None, 0, 1):
        return "its pixels are not square"
    if is_hdr(first):
        return "its pictures have a high dynamic range"
    return f"its pictures are rotated by {first.rotation} degrees" if first.rotation else ""


def frame_ticks(stream: av.VideoStream) -> Fraction:
    """Length of one frame in ticks of the stream."""
    return 1 / (stream.average_rate * stream.time_base)


def read_plain(path: str | os.PathLike[str], stream: av.VideoStream, track: PictureTrack) -> str:
    """Fill `track` from a file without an `obstacle`; returns a reason where its timestamps turn out uneven.

    Raises:
        MediaError: decord cannot decode the file.
    """
    import decord

    small = stream.codec_context.width * stream.codec_context.height <= SMALL_PICTURE
    ticks = int(frame_ticks(stream))
    try:
        reader = decord.VideoReader(os.fspath(path), ctx=decord.cpu(0), num_threads=1 if small else 0)
        total = len(reader)
        starts = np.asarray(reader.get_frame_timestamp(range(total)))[:, 0]
        expected = np.arange(total) * ticks * float(stream.time_base)
        if total != stream.frames or np.abs(starts - expected).max() > float(ticks * stream.time_base) / 10:
            return "its frame rate varies"
        chosen, counts = _choose(track, total, ticks)
        for first in range(0, len(chosen), _BATCH):
            pictures = reader.get_batch(chosen[first : first + _BATCH]).asnumpy()  # (n, H, W, 3)
            for picture, count in zip(pictures, counts[first : first + _BATCH], strict=True):
                track.add_array(picture, count)
    except (decord.DECORDError, RuntimeError) as error:
        raise MediaError(
            f"cannot decode {os.fspath(path)}: it is truncated or damaged, copy it again ({error})"
        ) from error
    track.first_tick, track.end_tick = 0, total * ticks
    return ""


def _choose(track: PictureTrack, total: int, ticks: int) -> tuple[list[int], list[int]]:
    """Indices of the pictures that the clip shows, and for how many frames each."""
    chosen, counts = [], []
    for index in range(total):
        last = index == total - 1
        count = track.grid.rest(total * ticks) if last else track.grid.before((index + 1) * ticks)
        if count:
            chosen.append(index)
            counts.append(count)
        if track.complete:
            break
    return chosen, counts
