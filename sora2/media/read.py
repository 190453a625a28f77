"""Video with sound -> `Clip`, with timestamps deciding what is shown and heard when."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import av
from av.container import InputContainer

from sora2.media.errors import MediaError
from sora2.media.picture import FrameGrid, PictureFinisher, PictureTrack
from sora2.media.plain import obstacle, read_plain
from sora2.media.sound import MARGIN_SECONDS, SoundTrack
from sora2.media.source import (
    SMALL_PICTURE,
    AudioUse,
    Source,
    clock_zero,
    find_audio,
    find_video,
    open_media,
    source_name,
)
from sora2.types import Clip

PictureReader = Literal["auto", "pyav", "decord"]

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
    reader: PictureReader = "auto",
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
        reader: what decodes the pictures. "auto" is decord for plain files of small pictures, and PyAV for the
            rest and for large pictures, on which it is faster; the result is the same. "decord" makes it an
            error where decord would not give the right pictures.

    Returns:
        Clip with video (T, H, W, 3) uint8, upright, 8 bit; audio (channels, S) float32 in [-1, 1], or None.

    Raises:
        MediaError: not a media file, truncated, damaged, no soundtrack where required, nothing to read, or
            the span lies outside the file.
    """
    name = source_name(path)
    if start < 0 or (seconds is not None and seconds <= 0) or (fps is not None and fps <= 0):
        raise MediaError(
            f"{name}: start={start}, seconds={seconds}, fps={fps} must not be negative (or zero)"
        )
    if reader not in ("auto", "pyav", "decord"):
        raise MediaError(f'reader={reader!r} is not one of "auto", "pyav", "decord"')
    begin, length = exact(start), None if seconds is None else exact(seconds)
    with open_media(path) as container:
        picture_stream = find_video(container) if video else None
        sound_stream = find_audio(container, name, audio)
        if picture_stream is None and sound_stream is None:
            raise MediaError(
                f"{name} has neither pictures nor sound to read (video={video}, audio={audio!r})"
            )
        opened = _Reader(path, container, picture_stream, sound_stream, name)
        pictures, sound = opened.read(begin, length, fps, size, reader)
        clip = Clip(caption=caption, key=key)
        if pictures is not None:
            clip = clip.replace(video=pictures.finish_track(), fps=float(pictures.grid.fps))
        if sound is not None:
            waveform, rate = sound.render(sample_rate, channels)
            clip = clip.replace(audio=waveform, sample_rate=rate)
        return clip


def exact(value: float) -> Fraction:
    """A float from a person or a config -> the fraction that was meant (0.1 -> 1/10)."""
    return Fraction(value).limit_denominator(1_000_000)


class _Reader:
    """One pass over the chosen streams of an open file."""

    def __init__(
        self,
        source: Source,
        container: InputContainer,
        video: av.VideoStream | None,
        audio: av.AudioStream | None,
        name: str,
    ) -> None:
        self.source, self.container, self.name = source, container, name
        self.video, self.audio = video, audio
        self.zero = clock_zero(container)
        if video is not None:
            self.small = video.codec_context.width * video.codec_context.height <= SMALL_PICTURE
            video.thread_type = "SLICE" if self.small else "AUTO"
            if self.small:
                video.codec_context.thread_count = 1

    def read(
        self,
        start: Fraction,
        seconds: Fraction | None,
        fps: float | None,
        size: tuple[int, int] | None,
        reader: PictureReader,
    ) -> tuple[PictureTrack | None, SoundTrack | None]:
        pictures = self._picture_track(start, seconds, fps, size)
        sound = self._sound_track(start, seconds)
        plain = pictures is not None and self._read_plain(pictures, reader)
        seeking = start > 2 * MARGIN_SECONDS
        if seeking:
            self._seek(start - MARGIN_SECONDS)
        self._decode(None if plain else pictures, sound)
        if seeking and pictures is not None and self._came_late(pictures, start):
            # No index, or no key frame before the start: read from the beginning instead.
            pictures = self._picture_track(start, seconds, fps, size)
            sound = self._sound_track(start, seconds)
            self._seek(Fraction(0))
            self._decode(pictures, sound)
        self._check_whole(pictures, sound, start, seconds)
        return pictures, sound

    def _read_plain(self, pictures: PictureTrack, reader: PictureReader) -> bool:
        """Read the pictures through decord if that is asked for, or wanted and right."""
        if reader == "pyav" or (reader == "auto" and not self.small):
            return False
        reason = obstacle(self.source, self.container, self.video)
        if not reason:
            reason = read_plain(self.source, self.video, pictures)
        if reason and reader == "decord":
            raise MediaError(
                f'{self.name}: decord cannot read it rightly because {reason}: use reader="auto"'
            )
        return not reason

    def _came_late(self, pictures: PictureTrack, start: Fraction) -> bool:
        return pictures.first_tick is None or pictures.first_tick * self.video.time_base - self.zero > start

    def _picture_track(
        self, start: Fraction, seconds: Fraction | None, fps: float | None, size: tuple[int, int] | None
    ) -> PictureTrack | None:
        if self.video is None:
            return None
        native = self.video.average_rate
        if native is None:
            native = self.video.guessed_rate
        if native is None or native <= 0:
            raise MediaError(f"{self.name}: the file states no frame rate; re-encode it")
        base = self.video.base_rate
        rate = native if fps is None else exact(fps)
        grid = FrameGrid(
            start,
            rate,
            None if seconds is None else max(1, round(seconds * rate)),
            densest_rate=native if base is None else max(native, base),
            time_base=self.video.time_base,
            zero=self.zero,
        )
        aspect = self.video.sample_aspect_ratio
        finisher = PictureFinisher(size, aspect if aspect else Fraction(1))
        return PictureTrack(
            self.name, grid, finisher, self.video.time_base, round(1 / (native * self.video.time_base))
        )

    def _sound_track(self, start: Fraction, seconds: Fraction | None) -> SoundTrack | None:
        return None if self.audio is None else SoundTrack(self.name, self.audio, self.zero, start, seconds)

    def _seek(self, seconds: Fraction) -> None:
        stream = self.video if self.video is not None else self.audio
        self.container.seek(int((seconds + self.zero) / stream.time_base), stream=stream, backward=True)

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

    def _check_whole(
        self,
        pictures: PictureTrack | None,
        sound: SoundTrack | None,
        start: Fraction,
        seconds: Fraction | None,
    ) -> None:
        """The streams reach as far as the header promises and as the caller asked, or it is an error."""
        if sound is not None and self.audio.duration is not None and self.audio.start_time is not None:
            end = (self.audio.start_time + self.audio.duration) * self.audio.time_base - self.zero
            sound.trim(end, LONGEST_CODEC_FRAME)
        ends = [] if sound is None else [sound.end_seconds]
        if pictures is not None:
            ends.append(pictures.end_tick * pictures.time_base - self.zero)
        end = max(ends)
        wanted = None if seconds is None else start + seconds
        promised = self._promised_end()
        tolerance = Fraction(1, 4)
        if promised is not None and end < (promised if wanted is None else min(wanted, promised)) - tolerance:
            raise MediaError(
                f"{self.name} is truncated: its header promises {float(promised):.2f} s but only "
                f"{float(end):.2f} s can be decoded; copy or download it again"
            )
        if end <= start or (wanted is not None and end < wanted - tolerance):
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
