"""Decoded sound, placed on the clip's clock by its timestamps."""

from __future__ import annotations

import math
from fractions import Fraction

import av
import numpy as np
import torch
from torch import Tensor

from sora2.media.errors import MediaError
from sora2.media.resample import resample_audio, to_channels

#: Timestamps that stray less than this from the end of the previous frame are rounding (Matroska stores
#: milliseconds), not a gap: the frames are joined.
JOIN_SECONDS = Fraction(5, 1000)
#: Sound decoded beyond the two ends of the wanted span, so that filters and codecs have settled there.
MARGIN_SECONDS = Fraction(1, 5)

_FULL_SCALE = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63, "flt": 1, "dbl": 1}


def samples_of(frame: av.AudioFrame) -> Tensor:
    """Any sample format -> (C, n) float32 in [-1, 1]."""
    kind = frame.format.name.removesuffix("p")
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if kind == "u8":
        values = values.astype(np.float32) - 128.0
    scaled = (
        values.astype(np.float32) if _FULL_SCALE[kind] == 1 else values.astype(np.float32) / _FULL_SCALE[kind]
    )
    return torch.from_numpy(np.ascontiguousarray(scaled))


class SoundTrack:
    """Collects decoded audio frames and renders the span [start, end) of the clip's clock.

    Timestamps decide where a frame lies; where there is none (a late start, a gap, after the end) is silence.
    """

    def __init__(
        self, name: str, stream: av.AudioStream, zero: Fraction, start: Fraction, seconds: Fraction | None
    ) -> None:
        self.name = name
        self.zero = zero  # file-clock time of clip second 0
        self.start = start  # clip second of the first sample to render
        self.end = None if seconds is None else start + seconds
        self.rate = stream.rate
        self.channel_names = tuple(channel.name for channel in stream.codec_context.layout.channels)
        self.pieces: list[tuple[int, Tensor]] = []  # (index of first sample on the clip's clock, (C, n))
        self.next_index = 0
        self.first_seconds: Fraction | None = None  # clip second of the first decoded sample

    @property
    def end_seconds(self) -> Fraction:
        """Clip second at which the decoded sound ends so far."""
        return Fraction(self.next_index, self.rate)

    @property
    def complete(self) -> bool:
        return self.end is not None and self.end_seconds >= self.end + MARGIN_SECONDS

    def add(self, frame: av.AudioFrame) -> None:
        names = tuple(channel.name for channel in frame.layout.channels)
        is_first = self.first_seconds is None
        if is_first:  # some headers state the rate of AAC before its spectral band replication
            self.rate, self.channel_names = frame.sample_rate, names
        if (frame.sample_rate, names) != (self.rate, self.channel_names):
            raise MediaError(
                f"{self.name}: the soundtrack changes from {self.rate} Hz {self.channel_names} to "
                f"{frame.sample_rate} Hz {names} midway: re-encode it to one format"
            )
        index = self.next_index
        if frame.pts is not None:
            stamped = round((frame.pts * frame.time_base - self.zero) * self.rate)
            if is_first or abs(stamped - index) > JOIN_SECONDS * self.rate:
                index = stamped
        if is_first:
            self.first_seconds = Fraction(index, self.rate)
        self.next_index = index + frame.samples
        if Fraction(self.next_index, self.rate) > self.start - MARGIN_SECONDS:
            self.pieces.append((index, samples_of(frame)))

    def trim(self, end_seconds: Fraction, at_most: int) -> None:
        """Drop the padding that an encoder appends to fill its last frame: less than `at_most` samples."""
        extra = self.next_index - round(end_seconds * self.rate)
        if 0 < extra <= at_most:
            self.next_index -= extra
            self.pieces = [
                (index, piece[:, : self.next_index - index])
                for index, piece in self.pieces
                if index < self.next_index
            ]

    def render(self, sample_rate: int | None, channels: int) -> tuple[Tensor, int]:
        """-> ((channels, S) float32, sample rate). Resampled after mixing, with margin on both sides."""
        rate = self.rate if sample_rate is None else sample_rate
        end = max(self.start, self.end_seconds) if self.end is None else self.end
        wanted = round((end - self.start) * rate)
        step = self.rate // math.gcd(self.rate, rate)  # a margin of whole samples at both rates
        margin = math.ceil(MARGIN_SECONDS * self.rate / step) * step if rate != self.rate else 0
        first = round(self.start * self.rate)
        low, high = first - margin, first + round((end - self.start) * self.rate) + margin
        track = torch.zeros(len(self.channel_names), high - low)
        for index, piece in self.pieces:
            a, b = max(index, low), min(index + piece.shape[1], high)
            if a < b:
                track[:, a - low : b - low] = piece[:, a - index : b - index]
        track = to_channels(track, channels, self.channel_names)
        if rate == self.rate:
            return track, rate
        lead = margin * rate // self.rate
        resampled = resample_audio(track, self.rate, rate)[:, lead : lead + wanted]
        if resampled.shape[1] < wanted:
            resampled = torch.nn.functional.pad(resampled, (0, wanted - resampled.shape[1]))
        return resampled.contiguous(), rate
