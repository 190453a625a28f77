"""Shapes, units and the packed batch: the vocabulary every other module speaks.

Reading order of the code base: this file, `model/transformer.py`, `diffusion/flow.py`, `train/step.py`.

All arithmetic between pixels or samples, latents, tokens and seconds lives in `VideoShape` and `AudioShape`;
nothing else in the project divides by a stride. Time is always physical seconds, so a video patch and an audio
token of the same moment carry the same position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sora2.errors import UserError
from sora2.host import send

#: Order of the modalities in the packed sequence. "reference_*" are clean tokens of a face or a voice.
MODALITIES = ("text", "reference_video", "reference_audio", "video", "audio")


class ShapeError(UserError):
    """A clip, latent or token shape that the codec strides or the model cannot hold."""


@dataclass(frozen=True)
class Clip:
    """One piece of film: pictures, sound, or both, with the units needed to interpret them.

    `video` and `audio` may each be None: an image is a clip of one frame without sound.
    """

    video: Tensor | None = None  # (T, H, W, 3) uint8 RGB
    audio: Tensor | None = None  # (channels, S) float32 in [-1, 1]
    fps: float = 0.0  # frames per second; 0 when there is no video
    sample_rate: int = 0  # samples per second; 0 when there is no audio
    caption: str = ""
    key: str = ""
    meta: dict[str, Any] = field(default_factory=dict)  # licence, source, truth ...

    def __post_init__(self) -> None:
        if self.video is not None:
            if self.video.ndim != 4 or self.video.shape[-1] != 3 or self.video.dtype != torch.uint8:
                raise ShapeError(
                    f"Clip.video of {self.key!r} must be (T, H, W, 3) uint8, "
                    f"got {tuple(self.video.shape)} {self.video.dtype}"
                )
            if not self.fps > 0:
                raise ShapeError(
                    f"Clip.fps of {self.key!r} must be positive when there is video, got {self.fps}"
                )
        if self.audio is not None:
            if self.audio.ndim != 2 or not self.audio.is_floating_point():
                raise ShapeError(
                    f"Clip.audio of {self.key!r} must be (channels, samples) float, "
                    f"got {tuple(self.audio.shape)} {self.audio.dtype}"
                )
            if not self.sample_rate > 0:
                raise ShapeError(
                    f"Clip.sample_rate of {self.key!r} must be positive when there is audio, got {self.sample_rate}"
                )

    @property
    def video_seconds(self) -> float:
        return 0.0 if self.video is None else self.video.shape[0] / self.fps

    @property
    def audio_seconds(self) -> float:
        return 0.0 if self.audio is None else self.audio.shape[1] / self.sample_rate

    @property
    def seconds(self) -> float:
        """Length of the longer of the two streams."""
        return max(self.video_seconds, self.audio_seconds)

    def replace(self, **changes: Any) -> Clip:
        return replace(self, **changes)

    def pixels(self) -> Tensor:
        """Video as the codecs take it: (3, T, H, W) float32 in [-1, 1]."""
        if self.video is None:
            raise ShapeError(f"clip {self.key!r} has no video")
        return self.video.permute(3, 0, 1, 2).float() / 127.5 - 1.0


def to_uint8_video(pixels: Tensor) -> Tensor:
    """(3, T, H, W) float in [-1, 1] -> (T, H, W, 3) uint8, the inverse of `Clip.pixels`."""
    return (
        ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous()
    )


@dataclass(frozen=True)
class VideoShape:
    """Pixel <-> latent <-> token <-> seconds arithmetic of one video under a causal codec and a patching.

    The first latent frame holds pixel frame 0 alone; latent frame k > 0 holds the `temporal_stride` pixel frames
    that end at frame `k * temporal_stride`. So a legal clip has 1 + k * temporal_stride frames.
    """

    frames: int
    height: int
    width: int
    fps: float
    channels: int = 16  # latent channels
    temporal_stride: int = 4
    spatial_stride: int = 8
    patch_size: int = 2  # latent cells per patch side; time is never patched

    def __post_init__(self) -> None:
        if (self.frames - 1) % self.temporal_stride or self.frames < 1:
            low = 1 + max(0, (self.frames - 1) // self.temporal_stride) * self.temporal_stride
            raise ShapeError(
                f"frames={self.frames} is not 1 + {self.temporal_stride} * k: the causal video codec holds "
                f"{low} or {low + self.temporal_stride} frames"
            )
        cell = self.spatial_stride * self.patch_size
        for name, size in (("height", self.height), ("width", self.width)):
            if size % cell or size < cell:
                raise ShapeError(
                    f"{name}={size} is not a multiple of {cell} "
                    f"(codec stride {self.spatial_stride} x patch {self.patch_size})"
                )
        if not self.fps > 0:
            raise ShapeError(f"fps={self.fps} must be positive")

    @property
    def still(self) -> VideoShape:
        """Of its first frame alone."""
        return replace(self, frames=1)

    @property
    def latent_frames(self) -> int:
        return 1 + (self.frames - 1) // self.temporal_stride

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(C, t, h, w) of the codec's latent."""
        return (
            self.channels,
            self.latent_frames,
            self.height // self.spatial_stride,
            self.width // self.spatial_stride,
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, y, x) of the token grid; tokens are stored in this order, x fastest."""
        _, t, h, w = self.latent_shape
        return t, h // self.patch_size, w // self.patch_size

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def token_width(self) -> int:
        return self.channels * self.patch_size**2

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def token_seconds(self) -> Tensor:
        """(t,) centre time in seconds of the pixel frames that each latent frame holds."""
        k = torch.arange(self.latent_frames, dtype=torch.float64)
        first = torch.where(k == 0, 0.0, 1 + (k - 1) * self.temporal_stride)
        last = k * self.temporal_stride
        return ((first + last + 1) / 2 / self.fps).float()

    def positions(self) -> Tensor:
        """(N, 3) of (seconds, y, x) at token centres.

        y and x are in units of the clip's shorter side, 0 at the picture's centre, so that another resolution or
        codec stride leaves the same place at the same position.
        """
        _, h, w = self.grid
        side = min(self.height, self.width)
        y = ((torch.arange(h) + 0.5) / h - 0.5) * (self.height / side)
        x = ((torch.arange(w) + 0.5) / w - 0.5) * (self.width / side)
        return torch.stack(torch.meshgrid(self.token_seconds(), y, x, indexing="ij"), dim=-1).reshape(-1, 3)

    def latent_index(self, seconds: float) -> int:
        """Number of whole latent frames that lie in the first `seconds` (the prefix that a condition covers)."""
        frames = int(seconds * self.fps + 1e-6)
        return 0 if frames < 1 else min(self.latent_frames, 1 + (frames - 1) // self.temporal_stride)

    def tokenize(self, latent: Tensor) -> Tensor:
        """(..., C, t, h, w) -> (..., N, C * p * p)."""
        p = self.patch_size
        *lead, c, t, h, w = latent.shape
        if (c, t, h, w) != self.latent_shape:
            raise ShapeError(f"video latent {(c, t, h, w)} does not match {self.latent_shape} of {self}")
        x = latent.reshape(*lead, c, t, h // p, p, w // p, p)  # (..., C, t, y, p, x, p)
        n = len(lead)
        x = x.permute(*range(n), n + 1, n + 2, n + 4, n + 0, n + 3, n + 5)  # (..., t, y, x, C, p, p)
        return x.reshape(*lead, self.tokens, self.token_width)

    def untokenize(self, tokens: Tensor) -> Tensor:
        """(..., N, C * p * p) -> (..., C, t, h, w), the inverse of `tokenize`."""
        p = self.patch_size
        t, y, x = self.grid
        *lead, n_tokens, width = tokens.shape
        if (n_tokens, width) != (self.tokens, self.token_width):
            raise ShapeError(
                f"video tokens {(n_tokens, width)} do not match {(self.tokens, self.token_width)} of {self}"
            )
        n = len(lead)
        z = tokens.reshape(*lead, t, y, x, self.channels, p, p)
        z = z.permute(*range(n), n + 3, n + 0, n + 1, n + 4, n + 2, n + 5)  # (..., C, t, y, p, x, p)
        return z.reshape(*lead, *self.latent_shape)


@dataclass(frozen=True)
class AudioShape:
    """Sample <-> latent <-> token <-> seconds arithmetic of one soundtrack under the audio codec."""

    samples: int
    sample_rate: int
    channels: int = 2  # 1 mono, 2 stereo
    hop_samples: int = 640  # samples of one latent frame (25 Hz at 16 kHz)
    latent_channels: int = 64

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ShapeError(f"samples={self.samples} must be positive")
        if self.channels not in (1, 2):
            raise ShapeError(f"audio channels={self.channels} must be 1 (mono) or 2 (stereo)")

    @classmethod
    def for_seconds(cls, seconds: float, sample_rate: int, **kwargs: Any) -> AudioShape:
        return cls(samples=max(1, round(seconds * sample_rate)), sample_rate=sample_rate, **kwargs)

    @property
    def tokens(self) -> int:
        return math.ceil(self.samples / self.hop_samples)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(C, n) of the codec's latent."""
        return self.latent_channels, self.tokens

    @property
    def token_width(self) -> int:
        return self.latent_channels

    @property
    def padded_samples(self) -> int:
        """Samples after zero padding to whole latent frames."""
        return self.tokens * self.hop_samples

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    @property
    def latent_rate(self) -> float:
        """Latent frames per second."""
        return self.sample_rate / self.hop_samples

    def token_seconds(self) -> Tensor:
        """(n,) centre time of each latent frame in seconds."""
        k = torch.arange(self.tokens, dtype=torch.float64)
        return ((k + 0.5) * self.hop_samples / self.sample_rate).float()

    def positions(self) -> Tensor:
        """(N, 3) of (seconds, y, x); sound has no place in the picture: y = x = 0, its centre."""
        zero = torch.zeros(self.tokens)
        return torch.stack([self.token_seconds(), zero, zero], dim=-1)

    def latent_index(self, seconds: float) -> int:
        """Number of whole latent frames that lie in the first `seconds`."""
        return min(self.tokens, int(seconds * self.latent_rate + 1e-6))

    def tokenize(self, latent: Tensor) -> Tensor:
        """(..., C, n) -> (..., N, C)."""
        if tuple(latent.shape[-2:]) != self.latent_shape:
            raise ShapeError(
                f"audio latent {tuple(latent.shape[-2:])} does not match {self.latent_shape} of {self}"
            )
        return latent.transpose(-1, -2)

    def untokenize(self, tokens: Tensor) -> Tensor:
        """(..., N, C) -> (..., C, n)."""
        if tuple(tokens.shape[-2:]) != self.latent_shape[::-1]:
            raise ShapeError(
                f"audio tokens {tuple(tokens.shape[-2:])} do not match {self.latent_shape[::-1]} of {self}"
            )
        return tokens.transpose(-1, -2)


@dataclass(frozen=True)
class Modality:
    """The tokens of one modality in a batch. Everything the network is told about a token is here."""

    latent: Tensor  # (B, N, C)
    positions: Tensor  # (B, N, 3) of (seconds, y, x)
    noise_level: Tensor  # (B, N) in [0, 1]: 0 clean condition, 1 pure noise
    mask: Tensor  # (B, N) bool: False for padding, which nothing may attend to

    def __post_init__(self) -> None:
        b, n = self.latent.shape[:2]
        for name, shape in (
            ("positions", (b, n, 3)),
            ("noise_level", (b, n)),
            ("mask", (b, n)),
        ):
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ShapeError(f"Modality.{name} is {got}, expected {shape} beside a latent of {(b, n)}")

    @property
    def tokens(self) -> int:
        return self.latent.shape[1]

    def replace(self, **changes: Any) -> Modality:
        return replace(self, **changes)

    def to(self, *args: Any, **kwargs: Any) -> Modality:
        """Move all tensors; a dtype applies to `latent` only."""
        latent = self.latent.to(*args, **kwargs)
        return Modality(latent, *send([self.positions, self.noise_level, self.mask], latent.device))


def clean_modality(latent: Tensor, positions: Tensor, mask: Tensor | None = None) -> Modality:
    """A condition: tokens at noise level 0. `positions` may be (N, 3), shared by the batch.

    Positions and mask may lie on the host beside a latent on a GPU: they are sent there, and the host need not read
    them back (`sora2.host`).
    """
    b, n = latent.shape[:2]
    if positions.ndim == 2:
        positions = positions.unsqueeze(0).expand(b, n, 3)
    if mask is None:
        mask = torch.ones(b, n, dtype=torch.bool)
    return Modality(latent, *send([positions, torch.zeros(b, n), mask], latent.device))


@dataclass(frozen=True)
class Batch:
    """Clean latents of several clips, ready to be noised. A missing modality is None, and costs nothing.

    A modality that only some clips of a batch have is present with `mask` False for the others.
    """

    video: Modality | None = None
    audio: Modality | None = None
    text: Modality | None = None
    reference_video: Modality | None = None
    reference_audio: Modality | None = None
    video_shape: VideoShape | None = None  # one bucket per batch
    audio_shape: AudioShape | None = None
    keys: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        for m in self.modalities().values():
            return m.latent.shape[0]
        raise ShapeError("an empty batch: neither video, audio, text nor references are present")

    def modalities(self) -> dict[str, Modality]:
        """The present modalities in packing order."""
        found = {name: getattr(self, name) for name in MODALITIES}
        return {name: m for name, m in found.items() if m is not None}

    def replace(self, **changes: Any) -> Batch:
        return replace(self, **changes)

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        return self.replace(**{name: m.to(*args, **kwargs) for name, m in self.modalities().items()})
