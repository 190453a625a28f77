"""`Clip` -> mp4: H.264 pictures with AAC sound, or with FLAC where it has to come back sample for sample."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace

from sora2.atomic import write_atomic
from sora2.errors import UserError
from sora2.media.errors import MediaError
from sora2.media.read import exact
from sora2.media.source import SMALL_PICTURE
from sora2.types import Clip

#: Sample rates of AAC (ISO/IEC 14496-3, table 1.18).
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
#: AAC is given this many bits per second and channel, far above what a listener could tell from the original.
AAC_BITS_PER_CHANNEL = 128_000
#: BT.709 in the numbering of ITU-T H.273, for primaries, transfer curve and matrix alike.
BT709 = 1
#: The identity matrix of H.273: the planes are red, green and blue themselves.
RGB_MATRIX = 0
_AUDIO_BLOCK = 4096  # samples handed to the encoder at once


def write_clip(
    clip: Clip,
    path: str | os.PathLike[str],
    *,
    crf: int = 18,
    lossless_audio: bool = False,
    preset: str = "fast",
) -> Path:
    """Write an mp4 that browsers play: H.264 (yuv420p, BT.709) and AAC, both starting at second 0.

    `lossless_audio` stores 16-bit FLAC instead of AAC: what is read back is equal to 1 / 65536. `crf` is
    x264's quality (18 visually lossless, 51 worst); 0 keeps every pixel, as RGB, which browsers do not play.
    The file appears whole or not at all: it is written beside the target and renamed.

    Raises:
        MediaError: nothing to write, an odd width or height, a sample rate AAC lacks, or a failing disk.
    """
    target = Path(path)
    if target.suffix.lower() not in (".mp4", ".m4v", ".m4a", ".mov"):
        raise MediaError(f"{target}: clips are written as mp4; give a name that ends in .mp4")
    if target.is_dir():
        raise MediaError(f"{target} is a folder; give the name of a file")
    _check(clip, str(target), lossless_audio)
    options = {"movflags": "+faststart"}
    try:
        write_atomic(target, lambda part: _mux(clip, str(part), crf, lossless_audio, preset, options))
    except (OSError, av.FFmpegError, UserError) as error:
        raise MediaError(f"cannot write {target}: {error}; check the folder and its permissions") from error
    return target


def clip_to_bytes(clip: Clip, *, crf: int = 18, lossless_audio: bool = False, preset: str = "fast") -> bytes:
    """The mp4 of `write_clip` as bytes; `read_clip` takes them back."""
    name = clip.key if clip.key else "<clip>"
    _check(clip, name, lossless_audio)
    buffer = io.BytesIO()
    try:
        _mux(clip, buffer, crf, lossless_audio, preset, {})
    except av.FFmpegError as error:
        raise MediaError(f"cannot encode {name}: {error}") from error
    return buffer.getvalue()


def _check(clip: Clip, name: str, lossless_audio: bool) -> None:
    if clip.video is None and clip.audio is None:
        raise MediaError(f"cannot write {name}: the clip has neither video nor audio")
    if clip.video is not None:
        frames, height, width, _ = clip.video.shape
        if frames == 0 or height % 2 or width % 2 or min(height, width) < 2:
            raise MediaError(
                f"cannot write {name}: {frames} frames of {height} x {width}; H.264 in yuv420p needs at "
                "least one frame and an even height and width: crop or pad the clip"
            )
    if clip.audio is not None:
        channels, samples = clip.audio.shape
        if channels not in (1, 2) or samples == 0:
            raise MediaError(
                f"cannot write {name}: sound of {channels} channels, {samples} samples; needs 1 or 2 "
                "channels and at least one sample: see to_channels"
            )
        if not lossless_audio and clip.sample_rate not in AAC_RATES:
            raise MediaError(
                f"cannot write {name}: AAC has no sample rate of {clip.sample_rate} Hz (it has "
                f"{', '.join(map(str, AAC_RATES))}): use resample_audio, or lossless_audio=True"
            )
        if not torch.isfinite(clip.audio).all():
            raise MediaError(f"cannot write {name}: the sound holds values that are not finite")


def _mux(
    clip: Clip, target: str | BinaryIO, crf: int, lossless_audio: bool, preset: str, options: dict[str, str]
) -> None:
    # The edit lists that cut off AAC priming are in units of the movie time scale: 1 ms unless it is set.
    if clip.audio is not None:
        options = options | {"movie_timescale": str(clip.sample_rate)}
    with av.open(target, mode="w", format="mp4", options=options) as container:
        video = None if clip.video is None else _video_stream(container, clip, crf, preset)
        audio = None if clip.audio is None else _audio_stream(container, clip, lossless_audio)
        frames = iter(()) if video is None else _video_frames(clip, lossless=crf == 0)
        blocks = iter(()) if audio is None else _audio_blocks(clip, lossless_audio)
        # Interleave by time, so that a player of a stream never has to wait for either.
        frame, block = next(frames, None), next(blocks, None)
        while frame is not None or block is not None:
            if block is None or (frame is not None and frame.time <= block.time):
                container.mux(video.encode(frame))
                frame = next(frames, None)
            else:
                container.mux(audio.encode(block))
                block = next(blocks, None)
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))


def _video_stream(
    container: av.container.OutputContainer, clip: Clip, crf: int, preset: str
) -> av.VideoStream:
    _, height, width, _ = clip.video.shape
    rate = exact(clip.fps)
    # x264's macroblock tree gives other bytes from run to run on small pictures (AVX-512); shards must not differ
    options = {"crf": str(crf), "preset": preset, "x264-params": "mbtree=0"}
    stream = container.add_stream("libx264rgb" if crf == 0 else "libx264", rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "rgb24" if crf == 0 else "yuv420p"
    stream.time_base = 1 / rate
    context = stream.codec_context
    context.color_primaries = context.color_trc = BT709
    context.colorspace = RGB_MATRIX if crf == 0 else BT709
    context.color_range = ColorRange.JPEG if crf == 0 else ColorRange.MPEG
    if height * width <= SMALL_PICTURE:
        context.thread_count = 1
    return stream


def _video_frames(clip: Clip, lossless: bool):
    time_base = 1 / exact(clip.fps)
    for index, picture in enumerate(clip.video.numpy(force=True)):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        if not lossless:
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
            )
        frame.pts, frame.time_base = index, time_base
        yield frame


def _audio_stream(container: av.container.OutputContainer, clip: Clip, lossless: bool) -> av.AudioStream:
    layout = "mono" if clip.audio.shape[0] == 1 else "stereo"
    stream = container.add_stream("flac" if lossless else "aac", rate=clip.sample_rate, layout=layout)
    stream.format = "s16" if lossless else "fltp"
    if not lossless:
        stream.bit_rate = AAC_BITS_PER_CHANNEL * clip.audio.shape[0]
    return stream


def _audio_blocks(clip: Clip, lossless: bool):
    layout = "mono" if clip.audio.shape[0] == 1 else "stereo"
    sound = clip.audio.detach().float().cpu().clamp(-1, 1)
    if lossless:
        sound = (sound * 32768).round().clamp(-32768, 32767).to(torch.int16)
    for first in range(0, sound.shape[1], _AUDIO_BLOCK):
        block = sound[:, first : first + _AUDIO_BLOCK]
        values = block.T.reshape(1, -1) if lossless else block  # s16 is interleaved, fltp planar
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(values.numpy()), format="s16" if lossless else "fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = clip.sample_rate, first, Fraction(1, clip.sample_rate)
        yield frame
