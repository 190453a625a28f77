"""What is in a media file, without decoding its pictures."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

import av

from sora2.media.errors import MediaError
from sora2.media.hdr import is_hdr
from sora2.media.source import (
    SHORT_SECONDS,
    Source,
    clock_zero,
    find_audio,
    find_video,
    first_picture,
    open_media,
    source_name,
    stream_start,
)

#: Frame intervals that differ by more than this share of the median make the frame rate variable.
EVEN_SHARE = 0.05
#: A container that stores milliseconds moves both ends of an interval by up to half of one.
ROUNDING_SECONDS = 0.0011


@dataclass(frozen=True)
class MediaInfo:
    """A media file in numbers. Seconds are on the clip's clock, whose 0 is the start of the first stream."""

    name: str
    container: str  # ffmpeg's name of the format, "mov,mp4,..."
    seconds: float  # end of the stream that ends last
    has_video: bool
    has_audio: bool
    fps: float  # average frames per second, 0 without video
    frames: int  # 0 without video
    variable_frame_rate: bool
    width: int  # as shown: after rotation and with square pixels
    height: int
    rotation: int  # degrees counter-clockwise that the stored picture is turned for showing
    pixel_format: str  # "yuv420p", "yuv420p10le" ..., "" without video
    bits: int  # per colour component, 0 without video
    high_dynamic_range: bool  # HLG or PQ
    video_codec: str
    video_start_seconds: float
    video_seconds: float  # length of the stream
    sample_rate: int  # 0 without audio
    channels: int
    channel_layout: str  # "stereo", "5.1" ..., "" without audio
    audio_codec: str
    audio_start_seconds: float
    audio_seconds: float


def probe(path: Source) -> MediaInfo:
    """Read the headers and packet timestamps of a file.

    Raises:
        MediaError: not a media file, truncated, or without pictures and sound.
    """
    name = source_name(path)
    with open_media(path) as container:
        video, audio = find_video(container), find_audio(container, name, "optional")
        if video is None and audio is None:
            raise MediaError(f"{name} has neither pictures nor sound: give a video or sound file")
        zero = clock_zero(container)
        streams = [stream for stream in (video, audio) if stream is not None]
        stamps, ends = _timestamps(container, streams)
        _check_whole(name, streams, ends)
        facts = {} if video is None else _video_facts(container, video, stamps[video.index], ends, zero)
        facts |= {} if audio is None else _audio_facts(audio, ends, zero)
        seconds = max(
            facts.get(kind + "_start_seconds", 0.0) + facts.get(kind + "_seconds", 0.0) for kind in KINDS
        )
        return MediaInfo(name=name, container=container.format.name, seconds=seconds, **(NOTHING | facts))


KINDS = ("video", "audio")
NOTHING = {
    "has_video": False,
    "has_audio": False,
    "fps": 0.0,
    "frames": 0,
    "variable_frame_rate": False,
    "width": 0,
    "height": 0,
    "rotation": 0,
    "pixel_format": "",
    "bits": 0,
    "high_dynamic_range": False,
    "video_codec": "",
    "video_start_seconds": 0.0,
    "video_seconds": 0.0,
    "sample_rate": 0,
    "channels": 0,
    "channel_layout": "",
    "audio_codec": "",
    "audio_start_seconds": 0.0,
    "audio_seconds": 0.0,
}


def _timestamps(
    container: av.container.InputContainer, streams: list[av.stream.Stream]
) -> tuple[dict[int, list[Fraction]], dict[int, Fraction]]:
    """Presentation times of all packets, and the end of the last, by stream index, on the file's clock."""
    stamps: dict[int, list[Fraction]] = {stream.index: [] for stream in streams}
    ends = {stream.index: Fraction(0) for stream in streams}
    for packet in container.demux(streams):
        if packet.pts is None or packet.is_discard:
            continue
        time = packet.pts * packet.time_base
        stamps[packet.stream.index].append(time)
        length = packet.duration * packet.time_base if packet.duration else Fraction(0)
        ends[packet.stream.index] = max(ends[packet.stream.index], time + length)
    for (
        stream
    ) in streams:  # an exact end, where the header has one, leaves out the padding of the last packet
        if stream.duration is not None and stream.start_time is not None:
            ends[stream.index] = min(
                ends[stream.index], (stream.start_time + stream.duration) * stream.time_base
            )
    return stamps, ends


def _check_whole(name: str, streams: list[av.stream.Stream], ends: dict[int, Fraction]) -> None:
    for stream in streams:
        if stream.duration is None or stream.start_time is None:
            continue
        promised = (stream.start_time + stream.duration) * stream.time_base
        if ends[stream.index] < promised - SHORT_SECONDS:
            raise MediaError(
                f"{name} is truncated: its header promises {stream.type} until {float(promised):.2f} s but it ends at "
                f"{float(ends[stream.index]):.2f} s; copy or download it again"
            )


def _video_facts(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    stamps: list[Fraction],
    ends: dict[int, Fraction],
    zero: Fraction,
) -> dict[str, object]:
    if not stamps:
        raise MediaError(f"{container.name} has a video stream without pictures: copy or download it again")
    stamps = sorted(stamps)
    gaps = sorted(float(b - a) for a, b in itertools.pairwise(stamps))
    uneven = False
    if gaps:
        middle = gaps[len(gaps) // 2]
        uneven = max(gaps[-1] - middle, middle - gaps[0]) > max(ROUNDING_SECONDS, EVEN_SHARE * middle)
    first = first_picture(container, stream)
    aspect = stream.sample_aspect_ratio
    width, height = round(first.width * (aspect if aspect else 1)), first.height
    if first.rotation % 180:
        width, height = height, width
    length = ends[stream.index] - stamps[0]
    return {
        "has_video": True,
        "fps": float(stream.average_rate) if stream.average_rate is not None else len(stamps) / float(length),
        "frames": len(stamps),
        "variable_frame_rate": uneven,
        "width": width,
        "height": height,
        "rotation": first.rotation,
        "pixel_format": first.format.name,
        "bits": max(component.bits for component in first.format.components),
        "high_dynamic_range": is_hdr(first),
        "video_codec": stream.codec_context.name,
        "video_start_seconds": float(stream_start(stream) - zero),
        "video_seconds": float(length),
    }


def _audio_facts(stream: av.AudioStream, ends: dict[int, Fraction], zero: Fraction) -> dict[str, object]:
    start = stream_start(stream)
    return {
        "has_audio": True,
        "sample_rate": stream.rate,
        "channels": stream.codec_context.layout.nb_channels,
        "channel_layout": stream.codec_context.layout.name,
        "audio_codec": stream.codec_context.name,
        "audio_start_seconds": float(start - zero),
        "audio_seconds": float(ends[stream.index] - start),
    }
