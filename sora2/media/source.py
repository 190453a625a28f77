"""Opening a media file: which streams it has, when each starts, one clear error for what cannot be read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO, Literal

import av
from av.container import InputContainer
from av.stream import Disposition

from sora2.media.errors import MediaError

#: A file may end this much before its header says, or before a caller asks, without being called too short.
SHORT_SECONDS = Fraction(1, 4)

#: What the readers accept: a path, the bytes of a whole file, or a seekable stream, read from its start.
Source = str | os.PathLike[str] | bytes | BinaryIO
AudioUse = Literal["optional", "required", "ignore"]

#: Pictures of at most this many pixels are decoded on one thread: starting more costs more than it saves.
SMALL_PICTURE = 320 * 240


def source_name(source: Source) -> str:
    """What an error message calls the source."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", "<stream>"))


@contextmanager
def open_media(source: Source) -> Iterator[InputContainer]:
    """Open for reading; a failure of the container or a decoder inside the block becomes a `MediaError`."""
    name = source_name(source)
    if isinstance(source, bytes):
        size: int | None = len(source)
        target: str | BinaryIO = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        target = os.fspath(source)
        try:
            size = os.stat(target).st_size if os.path.isfile(target) else None
            if os.path.isdir(target):
                raise MediaError(f"{name} is a folder; give a media file inside it")
            with open(target, "rb"):
                pass
        except OSError as error:
            raise MediaError(
                f"cannot open {name}: {error.strerror}; check the path and its permissions"
            ) from error
    else:
        source.seek(0)
        size, target = None, source
    if size == 0:
        raise MediaError(f"{name} is empty (0 bytes): copy or download it again")
    try:
        with av.open(target, mode="r") as container:
            yield container
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise MediaError(
            f"cannot decode {name}: {error}. It is not a media file, is truncated, or is damaged: "
            "play it in a video player to check, and copy or download it again"
        ) from error


def find_video(container: InputContainer) -> av.VideoStream | None:
    """The best video stream; cover art of a music file is not video.

    Raises:
        MediaError: a codec that the installed ffmpeg does not know.
    """
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        return None
    if stream.codec_context is None:
        raise MediaError(f"{container.name} has pictures in an unknown codec: convert it to H.264 first")
    return stream


def find_audio(container: InputContainer, name: str, use: AudioUse) -> av.AudioStream | None:
    """The best audio stream, or None where there is none or none is wanted.

    Raises:
        MediaError: no soundtrack although `use` is "required", or an unknown `use`.
    """
    if use not in ("optional", "required", "ignore"):
        raise MediaError(f'audio={use!r} is not one of "optional", "required", "ignore"')
    if use == "ignore":
        return None
    stream = container.streams.best("audio")
    if stream is None and use == "required":
        raise MediaError(
            f'{name} has no soundtrack but one is required: give a file with sound, or audio="optional"'
        )
    if stream is not None and stream.codec_context is None:
        raise MediaError(f"{name} has sound in an unknown codec: convert it to AAC first")
    return stream


def first_picture(container: InputContainer, stream: av.VideoStream) -> av.VideoFrame:
    """Decode the first picture, and leave the container at its start.

    Raises:
        MediaError: the stream holds no picture that can be decoded.
    """
    container.seek(0)
    frame = next(container.decode(stream), None)
    if frame is None:
        raise MediaError(
            f"{container.name} is truncated or damaged: no picture can be decoded; copy it again"
        )
    container.seek(0)
    return frame


def stream_start(stream: av.stream.Stream) -> Fraction:
    """When the stream's presentation starts, in seconds on the file's own clock.

    Times before 0 hold priming samples of a codec, stored there by some containers: they are not presented.
    """
    if stream.start_time is None:
        return Fraction(0)
    return max(Fraction(0), stream.start_time * stream.time_base)


def clock_zero(container: InputContainer) -> Fraction:
    """The file-clock time of second 0 of a clip: when the first of its streams starts, whichever are read."""
    video, audio = find_video(container), container.streams.best("audio")
    return min((stream_start(stream) for stream in (video, audio) if stream is not None), default=Fraction(0))
