"""Spectral audio VAE, mono or stereo.

Encoder and decoder work on the frames of a short-time Fourier transform (125 Hz at 16 kHz), stereo as mid and side;
one strided layer joins them to the latent rate (25 Hz). The decoder answers with a spectrum per frame, complex
numbers times a gain on a logarithmic scale, so that quiet bands cost no more than loud ones; the inverse transform
overlaps and adds them. As in the video codec, a linear path initialised with the principal components of whole hops
runs beside the deep one. What no 64 numbers per hop can carry, the grain of rain and wind, is given back as shaped
noise: the decoder sets the level of a fixed noise spectrum, so decoding stays deterministic. The frames of the noise
may be shorter (`noise_parts`): a knock begins within a millisecond, and a frame of 32 ms begins half a frame too soon.

A spectral decoder head: Siuzdak 2023 (Vocos), https://arxiv.org/abs/2306.00814.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.codecs.base import CodecError, SoundCodec
from sora2.codecs.layers import AudioBlock, mid_side, overlapping, principal_directions, silence_output

#: Power of a bin, of samples times `gain`, below which the encoder sees silence.
FLOOR = 1e-6


@dataclass(frozen=True)
class SpectralVAEConfig:
    """Sizes of a `SpectralVAE`. A frame is `fft` samples, the next begins `frame_hop` later, and `frames_per_latent` of
    them make one latent."""

    sample_rate: int = 16000
    channels: int = 2
    latent_channels: int = 64
    fft: int = 512
    frame_hop: int = 128
    frames_per_latent: int = 5
    encoder_width: int = 256
    encoder_blocks: int = 2
    encoder_latent_blocks: int = 1
    decoder_width: int = 256
    decoder_blocks: int = 4
    decoder_latent_blocks: int = 1
    kernel: int = 5
    noise: bool = True
    noise_parts: int = 1  # frames of noise to a frame of the spectrum, each with that part of its bins
    gain: float = 16.0  # the network works on samples times this, so that ordinary sound has a level near 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 2):
            raise CodecError(f"audio codec: channels={self.channels} must be 1 (mono) or 2 (stereo)")
        if self.fft % self.frame_hop or (self.fft - self.frame_hop) % 2 or self.fft < 2 * self.frame_hop:
            raise CodecError(
                f"audio codec: fft={self.fft} must be a multiple of frame_hop={self.frame_hop}, at least twice it, "
                "and differ from it by an even number"
            )
        if self.noise_parts < 1 or (self.noise_parts > 1 and self.frame_hop % (2 * self.noise_parts)):
            raise CodecError(
                f"audio codec: noise_parts={self.noise_parts} must divide half of frame_hop={self.frame_hop}"
            )

    @property
    def hop_samples(self) -> int:
        return self.frame_hop * self.frames_per_latent


class SpectralVAE(SoundCodec):
    """Audio (B, channels, S) <-> latent (B, C, n) with n = ceil(S / hop_samples)."""

    kind = "spectral_vae"
    config_class = SpectralVAEConfig
    decoder_names = ("decoder", "linear_decoder", "noise")

    def __init__(self, config: SpectralVAEConfig) -> None:
        super().__init__(config)
        c = config
        hop = c.hop_samples * c.channels
        self.linear_encoder = nn.Linear(hop, c.latent_channels)
        self.linear_decoder = nn.Linear(c.latent_channels, hop)
        self.bins = c.fft // 2  # without the one at half the sample rate
        spectrum = self.bins * c.channels
        self.encoder_in = nn.Linear(3 * spectrum, c.encoder_width)
        self.encoder = _stage(c.encoder_width, c.encoder_blocks, c.kernel)
        self.encoder_down = nn.Linear(c.encoder_width * c.frames_per_latent, c.encoder_width)
        self.encoder_latent = _stage(c.encoder_width, c.encoder_latent_blocks, c.kernel)
        self.encoder_norm = nn.LayerNorm(c.encoder_width)
        self.encoder_out = nn.Linear(c.encoder_width, 2 * c.latent_channels)
        self.decoder_in = nn.Linear(c.latent_channels, c.decoder_width)
        self.decoder_latent = _stage(c.decoder_width, c.decoder_latent_blocks, c.kernel)
        self.decoder_up = nn.Linear(c.decoder_width, c.decoder_width * c.frames_per_latent)
        self.decoder = _stage(c.decoder_width, c.decoder_blocks, c.kernel)
        self.decoder_norm = nn.LayerNorm(c.decoder_width)
        self.decoder_spectrum_out = nn.Linear(c.decoder_width, 2 * spectrum)
        self.decoder_gain_out = nn.Linear(c.decoder_width, spectrum)
        for layer in (self.encoder_out, self.decoder_spectrum_out, self.decoder_gain_out):
            silence_output(layer)
        with torch.no_grad():
            self.encoder_out.bias[c.latent_channels :] = -7.0  # starts near the deviation it will learn
        if c.noise:
            self.noise_gain = nn.Linear(c.decoder_width, spectrum)
            silence_output(self.noise_gain)
            nn.init.constant_(self.noise_gain.bias, -5.0)
        self.register_buffer("window", _window(c.fft, c.frame_hop), persistent=False)
        shorter = _window(c.fft // c.noise_parts, c.frame_hop // c.noise_parts)
        self.register_buffer("noise_window", shorter, persistent=False)

    def _hops(self, audio: Tensor) -> Tensor:
        """The samples times the gain, (B, channels, n hop)."""
        return super()._hops(audio) * self.config.gain

    def _whole_hops(self, samples: Tensor) -> Tensor:
        """(B, channels, n hop) -> (B, n, channels * hop), what the linear path takes."""
        return samples.unflatten(2, (-1, self.hop_samples)).transpose(1, 2).flatten(2)

    def _spectrum(self, samples: Tensor) -> Tensor:
        """(B, channels, n hop) -> complex (B, channels, frames, bins)."""
        frames = _frames(samples, self.config.fft, self.config.frame_hop)  # (B, channels, frames, fft)
        return torch.fft.rfft(frames * self.window, norm="ortho")[..., : self.bins]

    def _samples(self, real: Tensor, imaginary: Tensor, window: Tensor) -> Tensor:
        """The inverse: two of (B, channels, frames, bins) -> (B, channels, n hop)."""
        size = window.numel()
        pieces = torch.fft.irfft(torch.complex(real, imaginary), n=size, norm="ortho")
        return _OverlapAdd.apply(pieces, window, size * self.config.frame_hop // self.config.fft)

    def _features(self, samples: Tensor) -> Tensor:
        """(B, channels, n hop) -> (B, frames, 3 * channels * bins): real and imaginary parts of magnitudes to the
        power 0.4, and the logarithm of magnitudes."""
        spectrum = self._spectrum(samples)
        power = torch.log(spectrum.real.square() + spectrum.imag.square() + FLOOR)
        squeeze = torch.exp(-0.3 * power)
        parts = [spectrum.real * squeeze, spectrum.imag * squeeze, 0.15 * power + 0.5]
        return torch.cat(parts, -1).transpose(1, 2).flatten(2)

    def posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, S) -> raw mean and log variance, each (B, C, n)."""
        with torch.autocast(audio.device.type, enabled=False):
            samples = self._hops(audio.float())  # (B, channels, n hop)
            features = self._features(samples)  # (B, frames, 3 channels bins)
        x = self.encoder(self.encoder_in(features))  # (B, frames, W)
        x = self.encoder_down(x.reshape(len(x), -1, self.encoder_down.in_features))  # (B, n, W)
        x = self.encoder_latent(x)
        x = self.encoder_out(F.silu(self.encoder_norm(x))).transpose(1, 2)  # (B, 2 C, n)
        mean, log_variance = x.chunk(2, dim=1)  # (B, C, n)
        linear = self.linear_encoder(self._whole_hops(samples))  # (B, n, C)
        return mean + linear.transpose(1, 2), log_variance.clamp(-16, 4)

    def decode_parts(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `decode_raw` adds up: the waveform that the latent determines, and the shaped noise (or None)."""
        z = latent.transpose(1, 2)  # (B, n, C)
        x = self.decoder_latent(self.decoder_in(z))  # (B, n, W)
        x = self.decoder_up(x).reshape(len(x), -1, self.config.decoder_width)  # (B, frames, W)
        x = F.silu(self.decoder_norm(self.decoder(x)))  # (B, frames, W)
        spectrum = self._bins(self.decoder_spectrum_out(x))  # (B, 2 channels, frames, bins)
        gain = self._bins(self.decoder_gain_out(x)).clamp(-8, 8).exp()  # (B, channels, frames, bins)
        linear = self.linear_decoder(z).unflatten(2, (self.channels, -1)).transpose(1, 2).flatten(2).float()
        real, imaginary = spectrum.chunk(2, dim=1)
        with torch.autocast(latent.device.type, enabled=False):
            expected = self._samples(real * gain, imaginary * gain, self.window) + linear
            expected = mid_side(expected / self.config.gain, 1)  # (B, channels, n hop)
        if not self.config.noise:
            return expected, None
        level = F.softplus(self._bins(self.noise_gain(x)))  # (B, channels, frames, bins)
        # (B, channels, frames * parts, bins / parts)
        level = level.unflatten(3, (self.config.noise_parts, -1)).flatten(2, 3)
        with torch.autocast(latent.device.type, enabled=False):
            real, imaginary = self._white(level)
            noise = self._samples(real * level, imaginary * level, self.noise_window)
            return expected, mid_side(noise / self.config.gain, 1)

    def decode_raw(self, latent: Tensor) -> Tensor:
        """Raw (B, C, n) -> (B, channels, n * hop_samples), not clamped."""
        expected, noise = self.decode_parts(latent)
        return expected if noise is None else expected + noise

    @torch.no_grad()
    def initialize_linear(self, x: Tensor) -> None:
        """Set the linear path to the principal components of the hops of `x` (B, channels, S)."""
        hops = self._whole_hops(self._hops(x)).flatten(0, 1)  # (n, channels * hop)
        _, directions, deviation = principal_directions(hops, self.latent_channels)
        self.linear_encoder.weight.copy_(directions / deviation[:, None])
        self.linear_encoder.bias.zero_()
        self.linear_decoder.weight.copy_((directions * deviation[:, None]).T)
        self.linear_decoder.bias.zero_()

    def _bins(self, x: Tensor) -> Tensor:
        """(B, frames, k * bins) -> (B, k, frames, bins), float32 or better."""
        x = x.unflatten(2, (-1, self.bins)).transpose(1, 2)
        return x if x.dtype == torch.float64 else x.float()

    def _white(self, like: Tensor) -> Tensor:
        """A fixed white noise spectrum, (2, channels, frames, bins); a longer one begins with a shorter one."""
        generator = torch.Generator().manual_seed(0)
        shape = (like.shape[2], 2, *like.shape[1::2])
        return torch.randn(shape, generator=generator).permute(1, 2, 0, 3).to(like)


def _window(size: int, hop: int) -> Tensor:
    """The square root of a Hann window, for before and after: its overlapping squares add up to one."""
    return torch.hann_window(size).sqrt() * math.sqrt(2 * hop / size)


def _frames(samples: Tensor, size: int, hop: int) -> Tensor:
    """(..., n * hop) -> (..., n, size): frame i is centred on hop i; zeros beyond the ends."""
    side = (size - hop) // 2
    return overlapping(F.pad(samples, (side, side)).unflatten(-1, (-1, hop)), size // hop)


class _OverlapAdd(torch.autograd.Function):
    """The inverse of `_frames` for frames that were windowed: windowed again, added up, ends made up for.

    (..., n, size) -> (..., n * hop).
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, window: Tensor, hop: int) -> Tensor:
        count, parts = frames.shape[-2], window.numel() // hop
        side = (window.numel() - hop) // 2
        total = frames.new_zeros(*frames.shape[:-2], count + parts - 1, hop)
        weight = frames.new_zeros(count + parts - 1, hop)  # one, but for the ends
        for i in range(parts):
            part = slice(i * hop, (i + 1) * hop)
            total[..., i : i + count, :].addcmul_(frames[..., part], window[part].expand(count, hop))
            weight[i : i + count] += window[part].square()
        inside = slice(side, side + count * hop)
        scale = weight.flatten()[inside].reciprocal()
        ctx.save_for_backward(window, scale)
        ctx.hop = hop
        return total.flatten(-2)[..., inside] * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        window, scale = ctx.saved_tensors
        return _frames(grad * scale, window.numel(), ctx.hop) * window, None, None


def _stage(width: int, blocks: int, kernel: int) -> nn.Sequential:
    """Blocks whose reach grows: dilation 1, 3, 1, 3 ..."""
    return nn.Sequential(*(AudioBlock(width, kernel, dilation=3 if i % 2 else 1) for i in range(blocks)))
