"""The network of the attribute readers: pixels and log-mel to one vector per attribute.

What things look like is read from a few frames in colour, how they move from all frames, small and grey (two pathways,
as in Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition"). Convolutions make one token of each of
the few frames, of each pair of the many, and of every eighth of a second of sound; a transformer layer lets them see
each other. The few frames also give one token per 8 x 8 pixels, since a pupil or a ball is lost in a vector of the
whole frame. Queries attend to all of these, twice (Carion et al. 2020, "DETR", https://arxiv.org/abs/2005.12872): one
per attribute, and where several choices can be there at once, one per choice. Other lengths and wider pictures are
legal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.errors import UserError
from sora2.metrics.readers.attributes import ATTRIBUTES
from sora2.metrics.spectra import mel_filters


@dataclass(frozen=True)
class ReaderConfig:
    """What clips are brought to (`picture`: shorter side in pixels), and the widths of the network."""

    picture: int = 64
    fps: float = 16.0
    sample_rate: int = 16_000
    mels: int = 64
    window_samples: int = 512
    hop_samples: int = 256
    stills: int = 6
    still_widths: tuple[int, int, int] = (16, 40, 96)
    motion_widths: tuple[int, int] = (16, 48)
    audio_widths: tuple[int, int, int] = (16, 32, 64)
    width: int = 160
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"model.width={self.width} must be a multiple of model.heads={self.heads}")


class AttributeReader(nn.Module):
    """(video, audio) -> attribute -> logits, one per choice."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.still = StillTrunk(config)
        self.motion = MotionTrunk(config)
        self.audio = AudioTrunk(config)
        self.pathway = nn.Parameter(torch.zeros(3, config.width))
        self.mixer = Layer(config)
        self.queries = {name: len(a.choices) if a.several else 1 for name, a in ATTRIBUTES.items()}
        self.query = nn.Parameter(torch.randn(sum(self.queries.values()), config.width) * 0.5)
        self.readers = nn.ModuleList(Layer(config) for _ in range(2))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.ModuleDict(
            {n: nn.Linear(config.width, 1 if a.several else len(a.choices)) for n, a in ATTRIBUTES.items()}
        )

    def forward(self, video: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """video: (B, 3, T, H, W) in [-1, 1]; audio: (B, 2, S) in [-1, 1]. Attribute -> (B, choices) float32."""
        return self.read(*self.views(video), audio)

    def views(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, T, H, W) -> (B, 3, stills, H, W) in colour, and all frames in grey (B, T, H / 2, W / 2)."""
        chosen = torch.linspace(0, video.shape[2] - 1, self.config.stills, device=video.device).round().long()
        return video[:, :, chosen], F.avg_pool2d(video.mean(dim=1), 2)

    def read(self, stills: Tensor, grey: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """See `views` and `forward`."""
        frames, places = self.still(stills)
        parts = (frames, self.motion(grey), self.audio(audio))  # (B, tokens, D) each
        tokens = torch.cat([part + own for part, own in zip(parts, self.pathway, strict=True)], dim=1)
        tokens = torch.cat([self.mixer(tokens, tokens), places], dim=1)
        answers = self.query.expand(len(tokens), -1, -1)  # (B, queries, D)
        for reader in self.readers:
            answers = reader(answers, tokens)
        own = self.dropout(self.norm(answers)).split(list(self.queries.values()), dim=1)
        return {  # (B, 1, choices) of one query, (B, choices, 1) of one per choice
            name: self.heads[name](x).flatten(1).float() for name, x in zip(self.queries, own, strict=True)
        }


class StillTrunk(nn.Module):
    """Frames by themselves, in colour: (B, 3, K, H, W) -> whole frames (B, K, D), places (B, K h w, D)."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        first, second, third = config.still_widths
        self.stem = nn.Sequential(conv(5, first, 5, 2), conv(first, second, 3, 2))
        self.middle = Residual(second)
        self.down = conv(second, third, 3, 2)
        self.late = Residual(third)
        self.narrow = conv(third, 40, 1, 1)
        self.out = nn.Linear(40 * 16, config.width)
        self.places_out = nn.Linear(third + 2, config.width)
        self.register_buffer("time", sinusoids(512, config.width), persistent=False)

    def forward(self, stills: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(stills)
        x = with_place(stills.transpose(1, 2).flatten(0, 1))  # (B K, 5, H, W)
        x = self.middle(self.stem(x))  # (B K, C, H/4, W/4)
        x = self.late(self.down(x))  # (B K, C, h, w) with h = H/8, w = W/8
        places = self.places_out(with_place(x).permute(0, 2, 3, 1).flatten(1, 2))  # (B K, h w, D)
        x = F.adaptive_avg_pool2d(self.narrow(x), 4)  # (B K, 40, 4, 4)
        frames = self.out(x.flatten(1)).unflatten(0, (batch, -1))  # (B, K, D)
        time = self.time[: frames.shape[1]]
        places = places.unflatten(0, (batch, -1)) + time[:, None]  # (B, K, h w, D)
        return frames + time, places.flatten(1, 2)


class MotionTrunk(nn.Module):
    """Pairs of frames in grey, at half the size, so that the first layer sees motion: (B, T, H, W) -> (B, T / 2, D)."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        first, second = config.motion_widths
        self.stem = nn.Sequential(conv(4, first, 5, 2), conv(first, second, 3, 2))
        self.late = Residual(second)
        self.narrow = conv(second, 16, 1, 1)
        self.out = nn.Linear(16 * 16, config.width)
        self.register_buffer("time", sinusoids(512, config.width), persistent=False)

    def forward(self, grey: Tensor) -> Tensor:
        batch = len(grey)
        if grey.shape[1] % 2:
            grey = torch.cat([grey, grey[:, -1:]], dim=1)
        before, after = grey[:, 0::2].flatten(0, 1), grey[:, 1::2].flatten(0, 1)  # (B T', H, W)
        x = with_place(torch.stack([before, 2 * (after - before)], dim=1))  # (B T', 4, H, W)
        x = self.narrow(self.late(self.stem(x), batch))  # (B T', 16, H/4, W/4)
        x = self.out(F.adaptive_avg_pool2d(x, 4).flatten(1)).unflatten(0, (batch, -1))  # (B, T', D)
        return x + self.time[: x.shape[1]]


class AudioTrunk(nn.Module):
    """(B, 2, S) -> (B, one per 8 hops, D)."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.audio_widths
        self.stem = nn.Sequential(conv(2, first, 5, (1, 2)), conv(first, second, 3, 2))
        self.middle = Residual(second)
        self.down = conv(second, third, 3, 2)
        self.late = Residual(third)
        self.out = nn.Linear(third * math.ceil(config.mels / 8), config.width)
        bank = mel_filters(config.sample_rate, config.window_samples, config.mels)
        self.register_buffer("filters", torch.from_numpy(bank).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(config.window_samples), persistent=False)
        self.register_buffer("time", sinusoids(2048, config.width), persistent=False)

    def log_mel(self, audio: Tensor) -> Tensor:
        """(B, 2, S) -> (B, 2, frames, mels), about -2 for silence to 2 for loud."""
        c = self.config
        with torch.autocast(audio.device.type, enabled=False):
            flat = audio.float().flatten(0, 1)
            spectrum = torch.stft(
                flat, c.window_samples, c.hop_samples, window=self.window, return_complex=True
            )
            power = torch.view_as_real(spectrum).square().sum(-1) / (c.window_samples / 4) ** 2
            mel = self.filters @ power  # (B 2, mels, frames)
            return (torch.log(mel + 1e-9).unflatten(0, audio.shape[:2]).transpose(2, 3) + 12.0) / 4.0

    def forward(self, audio: Tensor) -> Tensor:
        x = self.log_mel(audio).contiguous(memory_format=torch.channels_last)
        x = self.middle(self.stem(x))  # (B, C, frames / 2, mels / 4)
        x = self.late(self.down(x))  # (B, C, frames / 4, mels / 8)
        x = F.avg_pool2d(x, (2, 1), ceil_mode=True)
        x = self.out(x.transpose(1, 2).flatten(2))  # (B, frames / 8, D)
        return x + self.time[: x.shape[1]]


class Residual(nn.Module):
    """Two convolutions beside the identity; with `batch`, of clips, they also see the steps before and after."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels, 3, 1),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, batch: int | None = None) -> Tensor:
        return F.relu(x + self.body(x if batch is None else shift_time(x, batch)))


def with_place(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C + 2, H, W), channels last, with the coordinates of each pixel in [-1, 1]."""
    rows, columns = (torch.linspace(-1, 1, n, device=x.device) for n in x.shape[-2:])
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(x.dtype)
    x = torch.cat([x, place.expand(len(x), -1, -1, -1)], dim=1)
    return x.contiguous(memory_format=torch.channels_last)


def shift_time(x: Tensor, batch: int) -> Tensor:
    """(B T, C, H, W): a quarter of the channels from the step before, a quarter from the step after (Lin et al. 2019,
    "TSM: Temporal Shift Module for Efficient Video Understanding")."""
    clips = x.permute(0, 2, 3, 1).unflatten(0, (batch, -1))  # (B, T, H, W, C), a view of channels-last
    quarter = clips.shape[-1] // 4
    parts = [
        F.pad(clips[:, :-1, ..., :quarter], (0, 0, 0, 0, 0, 0, 1, 0)),
        F.pad(clips[:, 1:, ..., quarter : 2 * quarter], (0, 0, 0, 0, 0, 0, 0, 1)),
        clips[..., 2 * quarter :],
    ]
    return torch.cat(parts, dim=-1).flatten(0, 1).permute(0, 3, 1, 2)


class Layer(nn.Module):
    """Pre-norm attention of `x` to `tokens`, then a feed-forward of twice the width."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm, self.norm_tokens, self.norm_out = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x: (B, N, D), tokens: (B, M, D) -> (B, N, D)."""
        q = self.query(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, N, D/h)
        k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.key_value(self.norm_tokens(tokens)).chunk(2, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, N, D)
        x = x + self.project(mixed)
        return x + self.feed(self.norm_out(x))


def conv(inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int]) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) positions as sines and cosines."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(length)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def forward_flops(config: ReaderConfig, video: tuple[int, ...], audio: tuple[int, ...]) -> float:
    """Multiply-adds counted as two, of the matrix products and convolutions of one forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    network = AttributeReader(config).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(video), torch.zeros(audio))
    return float(counter.get_total_flops())


def check_attributes(stored: Mapping[str, list[str]], where: str) -> None:
    """Raise `UserError` when weights were trained to read other attributes than this code asks for."""
    own = {name: list(a.choices) for name, a in ATTRIBUTES.items()}
    if dict(stored) != own:
        different = sorted(n for n in own.keys() | stored.keys() if own.get(n) != stored.get(n))
        raise UserError(
            f"{where} was trained to read other attributes ({', '.join(different)}): train it again with "
            "`sora2 train experiment=readers`"
        )
