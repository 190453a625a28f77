"""Media files with known content, made on the spot: what real cameras, phones and players produce."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from sora2.types import Clip


def grey_ramp(frames: int, height: int = 64, width: int = 64, step: int = 7) -> np.ndarray:
    """(T, H, W, 3) uint8 whose frame k has the grey level k * step: a picture that tells which one it is."""
    return np.broadcast_to(
        (np.arange(frames) * step).astype(np.uint8)[:, None, None, None], (frames, height, width, 3)
    ).copy()


def levels(video: torch.Tensor, step: int = 7) -> list[int]:
    """Which frames of `grey_ramp` these are."""
    return (video.float().mean((1, 2, 3)) / step).round().int().tolist()


def smooth_clip(frames: int = 33, side: int = 64, sample_rate: int = 16000, channels: int = 2) -> Clip:
    """A moving soft blob in colour, with one click per channel over quiet noise."""
    y, x = np.mgrid[0:side, 0:side] / side
    video = np.empty((frames, side, side, 3), np.uint8)
    for k in range(frames):
        blob = np.exp(-((x - 0.2 - 0.6 * k / frames) ** 2 + (y - 0.5) ** 2) / 0.02)
        video[k] = np.stack([60 + 150 * blob, 90 + 40 * x * 255 / 255, 160 - 100 * blob], -1)
    generator = torch.Generator().manual_seed(0)
    samples = round(frames / 16 * sample_rate)
    audio = 1e-3 * torch.randn(channels, samples, generator=generator)
    for channel in range(channels):
        if click_at(channel, sample_rate) < samples:
            audio[channel, click_at(channel, sample_rate)] = 0.9
    return Clip(torch.from_numpy(video), audio, 16.0, sample_rate, caption="a blob", key="blob")


def click_at(channel: int, sample_rate: int) -> int:
    return round((0.4 + 0.7 * channel) * sample_rate) + 1


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(255**2 / ((a.float() - b.float()) ** 2).mean().clamp_min(1e-12)))


def make_file(
    path: Path | None = None,
    *,
    container: str = "mp4",
    video: np.ndarray | None = None,
    fps: float = 16,
    stamps: Sequence[int] | None = None,
    ticks_per_second: int = 1000,
    video_codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    audio: np.ndarray | None = None,
    sample_rate: int = 48000,
    layout: str = "stereo",
    audio_codec: str = "aac",
    audio_delay_samples: int = 0,
    video_delay_seconds: Fraction = Fraction(0),
    options: dict[str, str] | None = None,
) -> bytes:
    """Encode (T, H, W, 3) pictures and (C, S) sound with full control of their times; returns the file.

    `stamps` are presentation times of the pictures in ticks, for a variable frame rate.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options={} if options is None else options) as out:
        picture_stream = sound_stream = None
        if video is not None:
            picture_stream = out.add_stream(video_codec, rate=Fraction(fps).limit_denominator(1001))
            picture_stream.height, picture_stream.width = video.shape[1:3]
            picture_stream.pix_fmt = pixel_format
            if video_codec == "libx264":
                picture_stream.options = {"crf": "10"}
            base = (
                Fraction(1, ticks_per_second)
                if stamps is not None
                else 1 / Fraction(fps).limit_denominator(1001)
            )
            if stamps is not None or video_delay_seconds:
                base = Fraction(1, ticks_per_second)
            picture_stream.time_base = picture_stream.codec_context.time_base = base
            if rotation:
                picture_stream.set_display_rotation(rotation)
        if audio is not None:
            sound_stream = out.add_stream(audio_codec, rate=sample_rate, layout=layout)
        if video is not None:
            for index, picture in enumerate(video):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format=pixel_format)
                seconds = (
                    Fraction(stamps[index], ticks_per_second) if stamps is not None else index / Fraction(fps)
                )
                frame.pts, frame.time_base = round((seconds + video_delay_seconds) / base), base
                out.mux(picture_stream.encode(frame))
        if audio is not None:
            resampler = av.AudioResampler(format=sound_stream.format.name, layout=layout, rate=sample_rate)
            sound = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(audio, np.float32), format="fltp", layout=layout
            )
            sound.sample_rate, sound.time_base = sample_rate, Fraction(1, sample_rate)
            sound.pts = audio_delay_samples
            for frame in resampler.resample(sound):
                out.mux(sound_stream.encode(frame))
        for stream in (picture_stream, sound_stream):
            if stream is not None:
                out.mux(stream.encode(None))
    if path is not None:
        path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def clicks(samples: int, *places: int, channels: int = 2) -> np.ndarray:
    """(C, S) silence with a click at each place."""
    sound = np.zeros((channels, samples), np.float32)
    for place in places:
        sound[:, place] = 0.9
    return sound
