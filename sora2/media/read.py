"""Video with sound -> `Clip`, with timestamps deciding what is shown and heard when."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
from av.container import InputContainer

from sora2.media.errors import MediaError
from sora2.media.picture import FrameGrid, PictureFinisher, PictureTrack
from sora2.media.plain import obstacle, read_plain
from sora2.media.sound import JOIN_SECONDS, MARGIN_SECONDS, SoundTrack
from sora2.media.source import (
    SHORT_SECONDS,
    SMALL_PICTURE,
    AudioUse,
    Source,
    clock_zero,
    find_audio,
    find_video,
    open_media,
    source_name,
    stream_start,
)
from sora2.types import Clip

PictureReader = Literal["pyav", "decord"]

#: Codecs pad the end of a soundtrack to whole frames of at most this many samples.
LONGEST_CODEC_FRAME = 8192


def read_clip(
    path: Source,
    *,
    fps: float | None = None,
    sample_rate: int | None = None,
    channels: int = 2,
    start: float = 0.0,
    seconds: float | None = None,
    size: tuple[int, int] | None = None,
    video: bool = True,
    audio: AudioUse = "optional",
    caption: str = "",
    key: str = "",
    reader: PictureReader = "pyav",
) -> Clip:
    """Read a file (a path, its bytes, or a binary stream) into a `Clip`.

    One clock: second 0 is when the first of the file's streams starts. Frame k of the clip is the picture at
    `start + k / fps`, sample k the sound at `start + k / sample_rate`; where one stream starts later, its
    first picture or silence stands; gaps in the sound are silence.

    Args:
        fps: frames per second of the clip; None keeps the file's average rate.
        sample_rate: samples per second; None keeps the file's.
        channels: 1 or 2; surround sound is mixed down (see `to_channels`).
        start: clip second 0 on the file's clock.
        seconds: length; None reads each stream to its own end. With a length there are exactly
            round(seconds * fps) frames and round(seconds * sample_rate) samples, and a stream that ends
            before the other is continued by its last picture or by silence.
        size: (height, width): centre crop to that aspect, then antialiased resize. None keeps the shown size.
        video: False reads the sound only.
        audio: "required" makes a missing soundtrack an error, "ignore" leaves it out.
        reader: what decodes the pictures: "pyav", or "decord" for plain files, with the same result; an
            error names what decord would get wrong. PyAV is the default because it reports damaged pictures,
            which decord conceals, and is as fast.

    Returns:
        Clip with video (T, H, W, 3) uint8, upright, high dynamic range tone-mapped; audio (channels, S) float32
        in [-1, 1]; None for what is missing.

    Raises:
        MediaError: not a media file, truncated, damaged, no soundtrack where required, nothing to read, or
            the span lies outside the file.
    """
    name = source_name(path)
    if start < 0 or (seconds is not None and seconds <= 0) or (fps is not None and fps <= 0):
        raise MediaError(
            f"{name}: start={start}, seconds={seconds}, fps={fps} must not be negative (or zero)"
        )
    if reader not in ("pyav", "decord"):
        raise MediaError(f'reader={reader!r} is not one of "pyav", "decord"')
    begin, length = exact(start), None if seconds is None else exact(seconds)
    span = Span(begin, length, fps, size)
    # Where a file cannot be entered in its middle (no index, no key frame), it is read from its beginning.
    seeking = begin > 2 * MARGIN_SECONDS
    for enter in (True, False) if seeking else (False,):
        with open_media(path) as container:
            picture_stream = find_video(container) if video else None
            sound_stream = find_audio(container, name, audio)
            if picture_stream is None and sound_stream is None:
                raise MediaError(
                    f"{name} has neither pictures nor sound to read (video={video}, audio={audio!r})"
                )
            opened = _Reader(path, container, picture_stream, sound_stream, span)
            opened.read(enter, reader)
            if enter and opened.came_late():
                continue
            return opened.clip(sample_rate, channels).replace(caption=caption, key=key)
    raise AssertionError("a file read from its beginning is never entered late")


def exact(value: float) -> Fraction:
    """A float from a person or a config -> the fraction that was meant (0.1 -> 1/10)."""
    return Fraction(value).limit_denominator(1_000_000)


@dataclass(frozen=True)
class Span:
    """What is wanted of a file: from `start` on for `seconds` (None: to the end), at `fps` and `size`."""

    start: Fraction
    seconds: Fraction | None
    fps: float | None
    size: tuple[int, int] | None


class _Reader:
    """One pass over the chosen streams of an open file."""

    def __init__(
        self,
        source: Source,
        container: InputContainer,
        video: av.VideoStream | None,
        audio: av.AudioStream | None,
        span: Span,
    ) -> None:
        self.source, self.container, self.name = source, container, source_name(source)
        self.video, self.audio, self.span = video, audio, span
        self.zero = clock_zero(container)
        self.pictures = None if video is None else self._picture_track(video)
        self.sound = (
            None if audio is None else SoundTrack(self.name, audio, self.zero, span.start, span.seconds)
        )
        if video is not None:
            small = video.codec_context.width * video.codec_context.height <= SMALL_PICTURE
            video.thread_type = "SLICE" if small else "AUTO"
            if small:
                video.codec_context.thread_count = 1

    def read(self, enter: bool, reader: PictureReader) -> None:
        """Decode what the span needs; `enter` seeks to its start first."""
        plain = reader == "decord" and self.pictures is not None
        if plain:
            self._read_plain()
        if enter:
            stream = self.audio if self.video is None else self.video
            before = self.span.start - MARGIN_SECONDS + self.zero
            self.container.seek(int(before / stream.time_base), stream=stream, backward=True)
        self._decode(None if plain else self.pictures, self.sound)

    def came_late(self) -> bool:
        """Whether seeking landed behind the start of the span in any stream that had begun by then."""
        if self.pictures is not None:
            tick = self.pictures.first_tick
            if tick is None or tick * self.video.time_base - self.zero > self.span.start:
                return True
        if self.sound is None:
            return False
        first, begins = self.sound.first_seconds, stream_start(self.audio) - self.zero
        return first is None or first > max(begins, self.span.start) + JOIN_SECONDS

    def clip(self, sample_rate: int | None, channels: int) -> Clip:
        """What was decoded, once it is known to be whole."""
        self._check_whole()
        clip = Clip()
        if self.pictures is not None:
            clip = clip.replace(video=self.pictures.finish_track(), fps=float(self.pictures.grid.fps))
        if self.sound is not None:
            waveform, rate = self.sound.render(sample_rate, channels)
            clip = clip.replace(audio=waveform, sample_rate=rate)
        return clip

    def _read_plain(self) -> None:
        """The pictures through decord, if that gives the right ones."""
        reason = obstacle(self.source, self.container, self.video)
        if not reason:
            reason = read_plain(self.source, self.video, self.pictures)
        if reason:
            raise MediaError(
                f'{self.name}: decord cannot read it rightly because {reason}; use reader="pyav"'
            )

    def _picture_track(self, video: av.VideoStream) -> PictureTrack:
        native = video.guessed_rate if video.average_rate is None else video.average_rate
        if native is None or native <= 0:
            raise MediaError(f"{self.name}: the file states no frame rate; re-encode it")
        span, base = self.span, video.base_rate
        rate = native if span.fps is None else exact(span.fps)
        grid = FrameGrid(
            span.start,
            rate,
            None if span.seconds is None else max(1, round(span.seconds * rate)),
            densest_rate=native if base is None else max(native, base),
            time_base=video.time_base,
            zero=self.zero,
        )
        aspect = video.sample_aspect_ratio
        finisher = PictureFinisher(span.size, aspect if aspect else Fraction(1))
        return PictureTrack(self.name, grid, finisher, round(1 / (native * video.time_base)))

    def _decode(self, pictures: PictureTrack | None, sound: SoundTrack | None) -> None:
        streams = [
            stream
            for stream, track in ((self.video, pictures), (self.audio, sound))
            if stream is not None and track is not None
        ]
        if not streams:
            return
        for frame in self.container.decode(streams):
            if isinstance(frame, av.VideoFrame):
                if not pictures.complete:
                    pictures.add(frame)
            elif not sound.complete:
                sound.add(frame)
            if (pictures is None or pictures.complete) and (sound is None or sound.complete):
                break

    def _check_whole(self) -> None:
        """The streams reach as far as the header promises and as the caller asked, or it is an error."""
        start, seconds = self.span.start, self.span.seconds
        ends = []
        if self.sound is not None:
            if self.audio.duration is not None and self.audio.start_time is not None:
                end = (self.audio.start_time + self.audio.duration) * self.audio.time_base - self.zero
                self.sound.trim(end, LONGEST_CODEC_FRAME)
            ends.append(self.sound.end_seconds)
        if self.pictures is not None:
            ends.append(self.pictures.end_tick * self.video.time_base - self.zero)
        end = max(ends)
        wanted = None if seconds is None else start + seconds
        promised = self._promised_end()
        if (
            promised is not None
            and end < (promised if wanted is None else min(wanted, promised)) - SHORT_SECONDS
        ):
            raise MediaError(
                f"{self.name} is truncated: its header promises {float(promised):.2f} s but only "
                f"{float(end):.2f} s can be decoded; copy or download it again"
            )
        if end <= start or (wanted is not None and end < wanted - SHORT_SECONDS):
            until = "the end" if wanted is None else f"{float(wanted):.2f} s"
            raise MediaError(
                f"{self.name} lasts {float(end):.2f} s, but {float(start):.2f} s to {until} was asked for: "
                "choose a smaller start or seconds"
            )

    def _promised_end(self) -> Fraction | None:
        """Clip second at which the chosen streams end by the header; None where it does not say."""
        ends = [
            (stream.start_time + stream.duration) * stream.time_base - self.zero
            for stream in (self.video, self.audio)
            if stream is not None and stream.duration is not None and stream.start_time is not None
        ]
        return max(ends, default=None)
