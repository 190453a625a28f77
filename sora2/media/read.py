"""Video with sound -> `Clip`, with timestamps deciding what is shown and heard when."""

from __future__ import annotations

from fractions import Fraction

import av
from av.container import InputContainer

from sora2.media.errors import MediaError
from sora2.media.picture import FrameGrid, PictureFinisher, PictureTrack
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
) -> Clip:
    """Read a file (a path, its bytes, or a binary stream) into a `Clip`.

    One clock: second 0 is when the first of the file's streams starts. Frame k of the clip is the picture at
    `start + k / fps`, sample k the sound at `start + k / sample_rate`; where one stream starts later, its first
    picture or silence stands; gaps in the sound are silence.

    Args:
        fps: frames per second of the clip; None keeps the file's average rate.
        sample_rate: samples per second; None keeps the file's.
        channels: 1 or 2; surround sound is mixed down (see `to_channels`).
        start: clip second 0 on the file's clock.
        seconds: length; None reads each stream to its own end. With a length there are exactly
            round(seconds * fps) frames and round(seconds * sample_rate) samples, and a stream that ends before
            the other is continued by its last picture or by silence.
        size: (height, width): centre crop to that aspect, then antialiased resize. None keeps the size as shown.
        video: False reads the sound only.
        audio: "required" makes a missing soundtrack an error, "ignore" leaves it out.

    Returns:
        Clip with video (T, H, W, 3) uint8, upright, 8 bit; audio (channels, S) float32 in [-1, 1], or None.

    Raises:
        MediaError: not a media file, truncated, damaged, no soundtrack where required, nothing to read, or the
            span lies outside the file.
    """
    name = source_name(path)
    if start < 0 or (seconds is not None and seconds <= 0) or (fps is not None and fps <= 0):
        raise MediaError(
            f"{name}: start={start}, seconds={seconds}, fps={fps} must not be negative (or zero)"
        )
    begin, length = exact(start), None if seconds is None else exact(seconds)
    with open_media(path) as container:
        picture_stream = find_video(container) if video else None
        sound_stream = find_audio(container, name, audio)
        if picture_stream is None and sound_stream is None:
            raise MediaError(
                f"{name} has neither pictures nor sound to read (video={video}, audio={audio!r})"
            )
        reader = _Reader(container, picture_stream, sound_stream, name)
        pictures, sound = reader.read(begin, length, fps, size)
        clip = Clip(caption=caption, key=key)
        if pictures is not None:
            clip = clip.replace(video=pictures.finish_track(), fps=float(pictures.grid.fps))
        if sound is not None:
            waveform, rate = sound.render(sample_rate, channels)
            clip = clip.replace(audio=waveform, sample_rate=rate)
        return clip


def exact(value: float) -> Fraction:
    """A float from a person or a config -> the fraction that was meant (0.1 -> 1/10, 23.976... -> 24000/1001)."""
    return Fraction(value).limit_denominator(1_000_000)


class _Reader:
    """One pass over the chosen streams of an open file."""

    def __init__(
        self,
        container: InputContainer,
        video: av.VideoStream | None,
        audio: av.AudioStream | None,
        name: str,
    ) -> None:
        self.container, self.video, self.audio, self.name = container, video, audio, name
        self.zero = clock_zero(container)
        if video is not None:
            small = video.codec_context.width * video.codec_context.height <= SMALL_PICTURE
            video.thread_type = "SLICE" if small else "AUTO"
            if small:
                video.codec_context.thread_count = 1

    def read(
        self, start: Fraction, seconds: Fraction | None, fps: float | None, size: tuple[int, int] | None
    ) -> tuple[PictureTrack | None, SoundTrack | None]:
        pictures, sound = self._tracks(start, seconds, fps, size)
        seeking = start > 2 * MARGIN_SECONDS
        if seeking:
            self._seek(start - MARGIN_SECONDS)
        self._decode(pictures, sound)
        if (
            seeking
            and pictures is not None
            and (pictures.first_seconds is None or pictures.first_seconds > start)
        ):
            # No index, or no key frame before the start: read from the beginning instead.
            pictures, sound = self._tracks(start, seconds, fps, size)
            self._seek(Fraction(0))
            self._decode(pictures, sound)
        self._check_whole(pictures, sound, start, seconds)
        return pictures, sound

    def _tracks(
        self, start: Fraction, seconds: Fraction | None, fps: float | None, size: tuple[int, int] | None
    ) -> tuple[PictureTrack | None, SoundTrack | None]:
        pictures = sound = None
        if self.video is not None:
            native = self.video.average_rate
            if native is None:
                native = self.video.guessed_rate
            if native is None or native <= 0:
                raise MediaError(f"{self.name}: the file states no frame rate: re-encode it")
            base = self.video.base_rate
            densest = native if base is None else max(native, base)
            rate = native if fps is None else exact(fps)
            frames = None if seconds is None else max(1, round(seconds * rate))
            aspect = self.video.sample_aspect_ratio
            finisher = PictureFinisher(size, aspect if aspect else Fraction(1))
            pictures = PictureTrack(FrameGrid(start, rate, frames, densest), finisher, self.zero, 1 / native)
        if self.audio is not None:
            sound = SoundTrack(self.name, self.audio, self.zero, start, seconds)
        return pictures, sound

    def _seek(self, seconds: Fraction) -> None:
        stream = self.video if self.video is not None else self.audio
        self.container.seek(int((seconds + self.zero) / stream.time_base), stream=stream, backward=True)

    def _decode(self, pictures: PictureTrack | None, sound: SoundTrack | None) -> None:
        streams = [stream for stream in (self.video, self.audio) if stream is not None]
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
        ends = [track.end_seconds for track in (pictures, sound) if track is not None]
        end = max(ends)
        wanted = None if seconds is None else start + seconds
        promised = self._promised_end()
        tolerance = Fraction(1, 4)
        if promised is not None and end < (promised if wanted is None else min(wanted, promised)) - tolerance:
            raise MediaError(
                f"{self.name} is truncated: its header promises {float(promised):.2f} s but only {float(end):.2f} s "
                "can be decoded; copy or download it again"
            )
        if end <= start or (wanted is not None and end < wanted - tolerance):
            until = "the end" if wanted is None else f"{float(wanted):.2f} s"
            raise MediaError(
                f"{self.name} lasts {float(end):.2f} s, but {float(start):.2f} s to {until} was asked for: "
                "choose a smaller start or seconds"
            )

    def _promised_end(self) -> Fraction | None:
        """Clip second at which the chosen streams end by the header; None where the format can only estimate it."""
        ends = [
            (stream.start_time + stream.duration) * stream.time_base - self.zero
            for stream in (self.video, self.audio)
            if stream is not None and stream.duration is not None and stream.start_time is not None
        ]
        return max(ends, default=None)
