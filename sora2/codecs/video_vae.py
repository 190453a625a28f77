"""Causal 3-D video VAE.

A space-time patch of 4 x 8 x 8 pixels becomes one latent vector. Frame 0 stands alone (it is repeated to fill its
patch), so a still image is a clip of one frame, and latent k depends on the frames up to k * temporal_stride only.

Everything is computed on patches (no layer runs at pixel resolution): fine ones of one frame and 4 x 4 pixels, where
the same weights see every frame, and coarse ones, the cells of the latent. A linear path runs beside the deep one in
both directions: initialised with the principal components of the coarse patches, it makes the untrained codec already
the best linear one, and leaves to the network what a linear map cannot do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sora2.codecs.base import CodecError, LatentCodec, whole_cells
from sora2.codecs.layers import (
    VideoBlock,
    patchify,
    principal_directions,
    silence_output,
    unpatchify,
)


@dataclass(frozen=True)
class VideoVAEConfig:
    """Sizes of a `VideoVAE`. "fine" is the grid of patch_frames x patch_size pixels, "coarse" that of the strides."""

    latent_channels: int = 64
    temporal_stride: int = 4
    spatial_stride: int = 8
    patch_frames: int = 1
    patch_size: int = 4
    encoder_fine_width: int = 64
    encoder_fine_blocks: int = 1
    encoder_width: int = 192
    encoder_blocks: int = 2
    decoder_width: int = 256
    decoder_blocks: int = 3
    decoder_fine_width: int = 128
    decoder_fine_blocks: int = 2

    def __post_init__(self) -> None:
        if self.spatial_stride % self.patch_size:
            raise CodecError(
                f"video codec: spatial_stride={self.spatial_stride} is not a multiple of patch_size={self.patch_size}"
            )
        if self.temporal_stride % self.patch_frames:
            raise CodecError(
                f"video codec: temporal_stride={self.temporal_stride} is not a multiple of "
                f"patch_frames={self.patch_frames}"
            )


class VideoVAE(LatentCodec):
    """Video (B, 3, T, H, W) in [-1, 1] <-> latent (B, C, t, h, w) with t = 1 + (T - 1) / temporal_stride."""

    kind = "video_vae"
    config_class = VideoVAEConfig

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__(config)
        c = config
        self.latent_channels = c.latent_channels
        self.temporal_stride = c.temporal_stride
        self.spatial_stride = c.spatial_stride
        self.ratio = (
            c.temporal_stride // c.patch_frames,
            c.spatial_stride // c.patch_size,
        )  # fine per coarse
        cells = self.ratio[0] * self.ratio[1] ** 2  # fine cells of a coarse one
        fine = 3 * c.patch_frames * c.patch_size**2
        coarse = fine * cells
        self.linear_encoder = nn.Linear(coarse, c.latent_channels)
        self.linear_decoder = nn.Linear(c.latent_channels, coarse)
        self.encoder_in = nn.Linear(fine, c.encoder_fine_width)
        self.encoder_fine = _stage(c.encoder_fine_width, c.encoder_fine_blocks)
        self.encoder_down = nn.Linear(c.encoder_fine_width * cells, c.encoder_width)
        self.encoder_coarse = _stage(c.encoder_width, c.encoder_blocks)
        self.encoder_norm = nn.LayerNorm(c.encoder_width)
        self.encoder_out = nn.Linear(c.encoder_width, 2 * c.latent_channels)
        self.decoder_in = nn.Linear(c.latent_channels, c.decoder_width)
        self.decoder_coarse = _stage(c.decoder_width, c.decoder_blocks)
        self.decoder_up = nn.Linear(c.decoder_width, c.decoder_fine_width * cells)
        self.decoder_fine = _stage(c.decoder_fine_width, c.decoder_fine_blocks)
        self.decoder_norm = nn.LayerNorm(c.decoder_fine_width)
        self.decoder_out = nn.Linear(c.decoder_fine_width, fine)
        for layer in (self.encoder_out, self.decoder_out):
            silence_output(layer)
        with torch.no_grad():
            self.encoder_out.bias[
                c.latent_channels :
            ] = -4.0  # a small posterior deviation, exp(-2), to begin with

    def _patches(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> fine patches (B, t', h', w', D); frame 0 is repeated to fill the first cell."""
        x = whole_cells(video, self.temporal_stride, self.spatial_stride)  # (B, 4 t, H, W, 3)
        return patchify(x, self.config.patch_frames, self.config.patch_size)  # (B, t', h', w', D)

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, T, H, W) -> raw mean and log variance, each (B, C, t, h, w)."""
        patches = self._patches(video)  # (B, t', h', w', D)
        x = self.encoder_fine(self.encoder_in(patches))  # (B, t', h', w', F)
        x = self.encoder_coarse(self.encoder_down(patchify(x, *self.ratio)))  # (B, t, h, w, W)
        x = self.encoder_out(nn.functional.silu(self.encoder_norm(x)))  # (B, t, h, w, 2 C)
        mean, log_variance = x.permute(0, 4, 1, 2, 3).chunk(2, dim=1)  # (B, C, t, h, w)
        linear = self.linear_encoder(patchify(patches, *self.ratio))  # (B, t, h, w, C)
        return mean + linear.permute(0, 4, 1, 2, 3), log_variance.clamp(-16, 4)

    def decode_raw(self, latent: Tensor) -> Tensor:
        """Raw (B, C, t, h, w) -> (B, 3, T, H, W), not clamped."""
        z = latent.permute(0, 2, 3, 4, 1)  # (B, t, h, w, C)
        x = self.decoder_coarse(self.decoder_in(z))  # (B, t, h, w, W)
        x = self.decoder_fine(unpatchify(self.decoder_up(x), *self.ratio))  # (B, t', h', w', F)
        x = self.decoder_out(nn.functional.silu(self.decoder_norm(x)))  # (B, t', h', w', D)
        x = x + unpatchify(self.linear_decoder(z), *self.ratio)  # (B, t', h', w', D)
        x = unpatchify(x, self.config.patch_frames, self.config.patch_size)  # (B, 4 t, H, W, 3)
        return x[:, self.temporal_stride - 1 :].permute(0, 4, 1, 2, 3)  # (B, 3, T, H, W)

    def decode(self, latent: Tensor) -> Tensor:
        """Normalised latent (B, C, t, h, w) -> video (B, 3, T, H, W) in [-1, 1]."""
        return self.decode_raw(self.denormalize(latent)).clamp(-1, 1)

    @torch.no_grad()
    def initialize_linear(self, video: Tensor) -> None:
        """Set the linear path to the principal components of the patches of `video` (B, 3, T, H, W)."""
        patches = patchify(self._patches(video), *self.ratio).flatten(0, 3)  # (n, D)
        mean, directions, deviation = principal_directions(patches, self.latent_channels)
        self.linear_encoder.weight.copy_(directions / deviation[:, None])
        self.linear_encoder.bias.copy_(-(directions @ mean) / deviation)
        self.linear_decoder.weight.copy_((directions * deviation[:, None]).T)
        self.linear_decoder.bias.copy_(mean)


def _stage(width: int, blocks: int) -> nn.Sequential:
    """Blocks whose temporal reach grows: dilation 1, 2, 1, 2 ..."""
    return nn.Sequential(*(VideoBlock(width, dilation=1 + i % 2) for i in range(blocks)))
