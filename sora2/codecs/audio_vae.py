"""Waveform audio VAE, mono or stereo.

The waveform is cut into short patches (500 Hz at 16 kHz), stereo as mid and side; strided stages bring it to
one latent vector per hop (25 Hz). As in the video codec, a linear path initialised with the principal components
of whole hops runs beside the deep one. What no 64 numbers per hop can carry, the grain of rain and wind, is given
back as shaped noise: the decoder gates a fixed noise sequence in the patch's cosine bands, so decoding stays
deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.codecs.base import CodecError, LinearSoundCodec
from sora2.codecs.layers import AudioBlock, mid_side, silence_output


@dataclass(frozen=True)
class AudioVAEConfig:
    """Sizes of an `AudioVAE`. Stages run from the patch rate down to the latent rate by `strides`."""

    sample_rate: int = 16000
    channels: int = 2
    latent_channels: int = 64
    patch_samples: int = 32
    strides: tuple[int, ...] = (4, 5)
    encoder_widths: tuple[int, ...] = (96, 192, 256)
    encoder_blocks: tuple[int, ...] = (2, 2, 1)
    decoder_widths: tuple[int, ...] = (128, 192, 256)
    decoder_blocks: tuple[int, ...] = (3, 3, 1)
    kernel: int = 5
    noise: bool = True
    gain: float = 16.0  # the network works on samples times this, so that ordinary sound has a level near 1

    def __post_init__(self) -> None:
        stages = len(self.strides) + 1
        for name in ("encoder_widths", "encoder_blocks", "decoder_widths", "decoder_blocks"):
            if len(getattr(self, name)) != stages:
                raise CodecError(
                    f"audio codec: {name} needs {stages} entries, one per stage of strides={self.strides}"
                )
        if self.channels not in (1, 2):
            raise CodecError(f"audio codec: channels={self.channels} must be 1 (mono) or 2 (stereo)")

    @property
    def hop_samples(self) -> int:
        return self.patch_samples * math.prod(self.strides)


class AudioVAE(LinearSoundCodec):
    """Audio (B, channels, S) <-> latent (B, C, n) with n = ceil(S / hop_samples)."""

    kind = "audio_vae"
    config_class = AudioVAEConfig

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__(config)
        c = config
        patch = c.patch_samples * c.channels
        self.encoder_in = nn.Linear(patch, c.encoder_widths[0])
        self.encoder = _stages(c.encoder_widths, c.encoder_blocks, c.kernel)
        joints = list(zip(c.encoder_widths, c.encoder_widths[1:], c.strides, strict=False))
        self.encoder_down = nn.ModuleList(nn.Linear(w * s, v) for w, v, s in joints)
        self.encoder_norm = nn.LayerNorm(c.encoder_widths[-1])
        self.encoder_out = nn.Linear(c.encoder_widths[-1], 2 * c.latent_channels)
        self.decoder_in = nn.Linear(c.latent_channels, c.decoder_widths[-1])
        self.decoder = _stages(c.decoder_widths, c.decoder_blocks, c.kernel)
        joints = list(zip(c.decoder_widths, c.decoder_widths[1:], c.strides, strict=False))
        self.decoder_up = nn.ModuleList(nn.Linear(v, w * s) for w, v, s in joints)
        self.decoder_norm = nn.LayerNorm(c.decoder_widths[0])
        self.decoder_out = nn.Linear(c.decoder_widths[0], patch)
        for layer in (self.encoder_out, self.decoder_out):
            silence_output(layer)
        with torch.no_grad():
            self.encoder_out.bias[c.latent_channels :] = -7.0  # starts near the deviation it will learn
        if c.noise:
            self.noise_gain = nn.Linear(c.decoder_widths[0], patch)
            silence_output(self.noise_gain)
            nn.init.constant_(self.noise_gain.bias, -5.0)
            self.register_buffer("cosines", _cosine_basis(c.patch_samples), persistent=False)

    def _whole_hops(self, samples: Tensor) -> Tensor:
        """(B, channels, n hop) -> (B, n, hop * channels), the channels of a sample side by side."""
        return samples.transpose(1, 2).reshape(len(samples), -1, self.linear_encoder.in_features)

    def posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, S) -> raw mean and log variance, each (B, C, n)."""
        samples = self._hops(audio)  # (B, channels, n hop)
        b = samples.shape[0]
        x = self.encoder_in(
            samples.transpose(1, 2).reshape(b, -1, self.encoder_in.in_features)
        )  # (B, patches, W0)
        x = self.encoder[0](x)
        for down, stage in zip(self.encoder_down, self.encoder[1:], strict=True):
            x = stage(down(x.reshape(b, -1, down.in_features)))  # (B, patches / stride, W)
        x = self.encoder_out(F.silu(self.encoder_norm(x))).transpose(1, 2)  # (B, 2 C, n)
        mean, log_variance = x.chunk(2, dim=1)  # (B, C, n)
        linear = self.linear_encoder(self._whole_hops(samples))  # (B, n, C)
        return mean + linear.transpose(1, 2), log_variance.clamp(-16, 4)

    def decode_parts(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `decode_raw` adds up: the waveform that the latent determines, and the shaped noise (or None)."""
        z = latent.transpose(1, 2)  # (B, n, C)
        b = z.shape[0]
        x = self.decoder[-1](self.decoder_in(z))  # (B, n, W)
        widths = self.config.decoder_widths[-2::-1]
        for up, stage, width in zip(
            reversed(self.decoder_up), reversed(self.decoder[:-1]), widths, strict=True
        ):
            x = stage(up(x).reshape(b, -1, width))  # (B, n * stride, width)
        x = F.silu(self.decoder_norm(x))  # (B, patches, W0)
        y = self.decoder_out(x)  # (B, patches, patch * channels)
        y = y.flatten(1) + self.linear_decoder(z).flatten(1)  # (B, n hop channels)
        y = y.unflatten(1, (-1, self.channels))  # (B, n hop, channels)
        expected = mid_side(y / self.config.gain, -1).transpose(1, 2)  # (B, channels, n hop)
        if not self.config.noise:
            return expected, None
        noise = self._noise(x).reshape(b, -1, self.channels)  # (B, n hop, channels)
        return expected, mid_side(noise / self.config.gain, -1).transpose(1, 2)

    def _noise(self, x: Tensor) -> Tensor:
        """Fixed white noise at a level per patch, channel and cosine band.

        (B, patches, W) -> (B, patches, patch * channels)
        """
        generator = torch.Generator().manual_seed(0)
        patch = self.config.patch_samples
        white = torch.randn(x.shape[1], patch, self.channels, generator=generator).to(
            x
        )  # (patches, bands, ch)
        gain = F.softplus(self.noise_gain(x)).unflatten(-1, (patch, self.channels))  # (B, patches, bands, ch)
        return torch.einsum("bpkc,ks->bpsc", gain * white.to(x), self.cosines).flatten(2)


def _cosine_basis(size: int) -> Tensor:
    """Orthonormal DCT-II, (bands, samples)."""
    k, s = torch.arange(size).view(-1, 1), torch.arange(size).view(1, -1)
    basis = torch.cos(math.pi / size * (s + 0.5) * k) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def _stages(widths: tuple[int, ...], blocks: tuple[int, ...], kernel: int) -> nn.ModuleList:
    """One run of blocks per rate, fastest first; their reach grows by dilation 1, 3, 1, 3 ..."""
    return nn.ModuleList(
        nn.Sequential(*(AudioBlock(width, kernel, dilation=3 if i % 2 else 1) for i in range(count)))
        for width, count in zip(widths, blocks, strict=True)
    )
