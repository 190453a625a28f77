"""Fixed transforms in place of learned codecs: an orthonormal DCT of video cells, an MDCT of sound. Nothing is trained.

They keep as many low frequencies as there are latent channels, so what they lose is known in advance, and a transformer
on their latents says what a learned latent is worth. Only the statistics that make latents unit variance are measured
(`fit_statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from scipy.fft import dct
from torch import Tensor

from sora2.codecs.base import CodecError, LatentCodec, SoundCodec, whole_cells
from sora2.codecs.layers import mid_side, patchify, unpatchify

#: Log variance of the posterior: there is none.
CERTAIN = -16.0


@dataclass(frozen=True)
class VideoDCTConfig:
    """Cells of `temporal_stride` x `spatial_stride` x `spatial_stride` pixels, and the coefficients kept of each."""

    latent_channels: int = 64
    temporal_stride: int = 4
    spatial_stride: int = 8

    def __post_init__(self) -> None:
        whole = 3 * self.temporal_stride * self.spatial_stride**2
        if not 0 < self.latent_channels <= whole:
            raise CodecError(f"video DCT: latent_channels={self.latent_channels} must be in 1 .. {whole}")


class VideoDCT(LatentCodec):
    """Video (B, 3, T, H, W) in [-1, 1] <-> latent (B, C, t, h, w) with t = 1 + (T - 1) / temporal_stride."""

    kind = "video_dct"
    config_class = VideoDCTConfig

    def __init__(self, config: VideoDCTConfig) -> None:
        super().__init__(config)
        self.latent_channels = config.latent_channels
        self.temporal_stride = config.temporal_stride
        self.spatial_stride = config.spatial_stride
        self.register_buffer("basis", cell_basis(config), persistent=False)  # (C, cell)

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, T, H, W) -> coefficients and their log variance, each (B, C, t, h, w); frame 0 is repeated to fill
        the first cell."""
        stride, side = self.temporal_stride, self.spatial_stride
        x = whole_cells(video, stride, side)  # (B, 4 t, H, W, 3)
        z = patchify(x, stride, side) @ self.basis.T  # (B, t, h, w, C)
        mean = z.permute(0, 4, 1, 2, 3)
        return mean, torch.full_like(mean, CERTAIN)

    def decode_raw(self, latent: Tensor) -> Tensor:
        """Raw (B, C, t, h, w) -> (B, 3, T, H, W), not clamped."""
        cells = latent.permute(0, 2, 3, 4, 1) @ self.basis  # (B, t, h, w, cell)
        x = unpatchify(cells, self.temporal_stride, self.spatial_stride)  # (B, 4 t, H, W, 3)
        return x[:, self.temporal_stride - 1 :].permute(0, 4, 1, 2, 3)

    def decode(self, latent: Tensor) -> Tensor:
        """Normalised latent (B, C, t, h, w) -> video (B, 3, T, H, W) in [-1, 1]."""
        return self.decode_raw(self.denormalize(latent)).clamp(-1, 1)


def cell_basis(config: VideoDCTConfig) -> Tensor:
    """(C, cell) orthonormal rows: the lowest frequencies of a DCT over (t, y, x, colour), by their turns per cell.

    Over colour, the DCT is grey and two colour differences, which count as three turns more: eyes blur them too.
    """
    t, side = config.temporal_stride, config.spatial_stride
    bases = [_dct_matrix(n) for n in (t, side, side, 3)]
    rows = torch.einsum("at,by,cx,dk->abcdtyxk", *bases)
    whole = rows.flatten(4).flatten(0, 3)
    turns = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in (t, side, side, 3)))
    score = (turns[:, 0] * side / t / 2).square() + turns[:, 1].square() + turns[:, 2].square()
    score = score + 9.0 * (turns[:, 3] > 0)
    kept = torch.argsort(score, stable=True)[: config.latent_channels]
    return whole[kept].float()


def _dct_matrix(n: int) -> Tensor:
    """(n, n) orthonormal DCT-II, one frequency per row, float64."""
    return torch.from_numpy(dct(torch.eye(n, dtype=torch.float64).numpy(), axis=0, norm="ortho"))


@dataclass(frozen=True)
class AudioMDCTConfig:
    """Coefficients kept of each hop: three quarters of `latent_channels` of the middle, one quarter of the side."""

    sample_rate: int = 16000
    channels: int = 2
    latent_channels: int = 320
    hop_samples: int = 640

    def __post_init__(self) -> None:
        if self.channels not in (1, 2):
            raise CodecError(f"audio MDCT: channels={self.channels} must be 1 (mono) or 2 (stereo)")
        if self.hop_samples % 2:
            raise CodecError(f"audio MDCT: hop_samples={self.hop_samples} must be even")
        if self.latent_channels % 4 or not 0 < max(self.kept) <= self.hop_samples:
            raise CodecError(
                f"audio MDCT: latent_channels={self.latent_channels} must be a multiple of 4 that fits into hops of "
                f"{self.hop_samples} coefficients a channel"
            )

    @property
    def kept(self) -> tuple[int, ...]:
        """Coefficients of each channel, lowest first."""
        if self.channels == 1:
            return (self.latent_channels,)
        return (self.latent_channels * 3 // 4, self.latent_channels // 4)


class AudioMDCT(SoundCodec):
    """Audio (B, channels, S) <-> latent (B, C, n) with n = ceil(S / hop_samples).

    The modified discrete cosine transform with a sine window over two hops (Princen, Johnson and Bradley 1987): with
    all coefficients kept, overlapping hops add up to the sound again. A hop lies in the middle of its window; beyond
    both ends the sound is mirrored, with the sign under which a window folds onto itself, so that they come back too.
    """

    kind = "audio_mdct"
    config_class = AudioMDCTConfig

    def __init__(self, config: AudioMDCTConfig) -> None:
        super().__init__(config)
        n = config.hop_samples
        k, t = torch.arange(n, dtype=torch.float64), torch.arange(2 * n, dtype=torch.float64)
        turn = math.pi / n * (t + 0.5 + n / 2)[:, None] * (k + 0.5)  # (2 n, n)
        window = torch.sin(math.pi / (2 * n) * (t + 0.5))[:, None]
        basis = window * math.sqrt(2 / n) * torch.cos(turn)
        self.register_buffer("basis", basis.float(), persistent=False)  # (2 n, n), orthonormal over hops
        half = window[n // 2 : n, 0]  # where one window alone reaches, mirrored: w (w + its mirror image)
        ends = half * (half + window[: n // 2, 0].flip(0))
        self.register_buffer("ends", ends.float(), persistent=False)  # (n / 2,)

    def posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, S) -> coefficients and their log variance, each (B, C, n)."""
        n = self.hop_samples
        x = self._hops(audio.float())  # (B, channels, hops n)
        x = torch.cat([-x[..., : n // 2].flip(2), x, x[..., -(n // 2) :].flip(2)], dim=2)
        frames = x.unfold(2, 2 * n, n)  # (B, channels, hops, 2 n)
        z = frames @ self.basis  # (B, channels, hops, n)
        mean = torch.cat([z[:, i, :, :k] for i, k in enumerate(self.config.kept)], dim=2).transpose(1, 2)
        return mean, torch.full_like(mean, CERTAIN)

    def decode_raw(self, latent: Tensor) -> Tensor:
        """Raw (B, C, n) -> (B, channels, n * hop_samples), not clamped."""
        n = self.hop_samples
        parts = latent.transpose(1, 2).split(list(self.config.kept), dim=2)  # (B, hops, k) each
        z = torch.stack([torch.nn.functional.pad(p, (0, n - p.shape[2])) for p in parts], dim=1)
        frames = z @ self.basis.T  # (B, channels, hops, 2 n)
        x = frames.new_zeros(*frames.shape[:2], frames.shape[2] + 1, n)
        x[:, :, :-1] += frames[..., :n]
        x[:, :, 1:] += frames[..., n:]
        audio = x.flatten(2)[:, :, n // 2 : -(n // 2)].clone()
        audio[..., : n // 2] /= self.ends
        audio[..., -(n // 2) :] /= self.ends.flip(0)
        return mid_side(audio, 1)


@torch.no_grad()
def fit_statistics(codec: LatentCodec, examples: Iterable[Tensor]) -> None:
    """Measure mean and deviation of every latent channel on training examples, (B, ...) as `posterior` takes them.

    Channels that hardly ever hold anything get the smallest deviation that a hundredth of the largest allows, so that
    rounding is not blown up.

    Raises:
        CodecError: there are no examples.
    """
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for x in examples:
        raw = codec.posterior(x)[0].double().transpose(0, 1).flatten(1)  # (C, positions)
        count, total, square = count + raw.shape[1], total + raw.sum(1), square + raw.square().sum(1)
    if not count:
        raise CodecError(f"{codec.kind}: statistics need at least one training clip")
    mean = total / count
    deviation = (square / count - mean.square()).clamp_min(0).sqrt()
    codec.set_statistics(mean.float(), deviation.clamp_min(float(deviation.max()) * 1e-2).float())
