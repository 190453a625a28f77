"""Reconstruction losses of the codecs: pure functions of tensors, no modules, no state."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio.functional as AF
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.codecs.layers import overlapping


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), averaged over all latent elements. Nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def pixel_losses(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Mean absolute and mean squared error."""
    return {"l1": F.l1_loss(prediction, target), "mse": F.mse_loss(prediction, target)}


def log_squared_error(prediction: Tensor, target: Tensor, floor: float = 1e-3) -> Tensor:
    """Mean over clips of log10(mean squared error + floor): a tenth of the PSNR in dB, up to sign and offset."""
    return torch.log10((prediction - target).square().flatten(1).mean(1) + floor).mean()


def gradient_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between differences of neighbouring pixels and frames of (B, 3, T, H, W): edges and motion."""
    error = prediction - target
    parts = [error.diff(dim=d).abs().mean() for d in (2, 3, 4) if error.shape[d] > 1]
    return torch.stack(parts).sum()


def relative_error(prediction: Tensor, target: Tensor, floor: float = 1e-6) -> Tensor:
    """Mean over clips of log10(error power / signal power): -1 is an SNR of 10 dB.

    The logarithm gives a quiet clip the weight of a loud one. `floor` is a power, added to both.
    """
    error = (prediction - target).square().flatten(1).mean(1)
    power = target.square().flatten(1).mean(1)
    return torch.log10((error + floor) / (power + floor)).mean()


@lru_cache(maxsize=16)
def _mel_matrix(fft: int, mels: int, sample_rate: int) -> Tensor:
    return AF.melscale_fbanks(fft // 2 + 1, 0.0, sample_rate / 2, mels, sample_rate)


def magnitudes(audio: Tensor, fft: int) -> Tensor:
    """Magnitudes of a Hann STFT with hop fft / 4, reflected at the ends. (..., S) -> (rows, bins, frames)."""
    rows = audio.reshape(-1, audio.shape[-1])
    hop, count = fft // 4, 1 + 4 * rows.shape[-1] // fft
    padded = F.pad(rows, (fft // 2, fft // 2), mode="reflect")[:, : (count + 3) * hop]
    window = torch.hann_window(fft, device=audio.device, dtype=audio.dtype)
    power = _Power.apply(padded.unflatten(1, (-1, hop)), window)  # (rows, count, bins)
    return (power + 1e-9).sqrt().transpose(1, 2)


def log_mel(magnitude: Tensor, fft: int, mels: int, sample_rate: int, floor: float = 3e-3) -> Tensor:
    """Floored natural logarithm of mel magnitudes. (rows, bins, frames) -> (rows, mels, frames)."""
    matrix = _mel_matrix(fft, mels, sample_rate).to(magnitude)
    mel = magnitude.transpose(1, 2) @ matrix / (fft / 4) ** 0.5  # (rows, frames, mels)
    return torch.log(mel + floor).transpose(1, 2)


class _Power(torch.autograd.Function):
    """|rfft|^2 of windowed frames of four hops each: (rows, n + 3, hop) -> (rows, n, 2 hop + 1).

    The gradient is one inverse real transform; that of `torch.fft.rfft` is a complex one of twice the length.
    """

    @staticmethod
    def forward(ctx: Any, hops: Tensor, window: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(overlapping(hops, 4).mul_(window))
        ctx.save_for_backward(spectrum, window)
        return spectrum.real.square() + spectrum.imag.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        spectrum, window = ctx.saved_tensors
        weighted = spectrum * grad
        weighted[..., 0] *= 2  # irfft counts the bins between the first and the last twice
        weighted[..., -1] *= 2
        frames = torch.fft.irfft(weighted, norm="forward").mul_(window)  # (rows, n, 4 hop)
        rows, count, size = frames.shape
        hops = frames.new_zeros(rows, count + 3, size // 4)
        for i, part in enumerate(frames.chunk(4, -1)):
            hops[:, i : i + count] += part
        return hops, None


def spectral_losses(
    prediction: Tensor,
    target: Tensor,
    sample_rate: int,
    ffts: tuple[int, ...] = (256, 1024),
    mels: tuple[int, ...] = (32, 64),
) -> dict[str, Tensor]:
    """Multi-resolution STFT losses of (B, channels, S), as in Parallel WaveGAN, with log-mel instead of log-linear.

    "convergence": mean over resolutions of the Frobenius norm of the magnitude error over that of the target.
    "log_mel": L1 between log-mel magnitudes.
    Source: Yamamoto et al. 2020, https://arxiv.org/abs/1910.11480; DAC, https://arxiv.org/abs/2306.06546.
    """
    convergence, mel = [], []
    for fft, bands in zip(ffts, mels, strict=True):
        p, t = magnitudes(prediction, fft), magnitudes(target, fft)
        convergence.append(((p - t).square().sum((1, 2)) / (t.square().sum((1, 2)) + 1e-2)).sqrt().mean())
        mel.append(F.l1_loss(log_mel(p, fft, bands, sample_rate), log_mel(t, fft, bands, sample_rate)))
    return {"convergence": torch.stack(convergence).mean(), "log_mel": torch.stack(mel).mean()}


def attack_error(
    prediction: Tensor,
    target: Tensor,
    sample_rate: int,
    ffts: tuple[int, ...] = (64, 128, 256),
    mels: tuple[int, ...] = (12, 20, 40),
) -> Tensor:
    """L1 between log-mel magnitudes of (B, channels, S) where the target's rise within one window, by how much they do.

    Attacks are a few milliseconds among seconds: an average over all frames hardly sees them. 0 where nothing begins.
    """
    errors = []
    for fft, bands in zip(ffts, mels, strict=True):
        p, t = (log_mel(magnitudes(x, fft), fft, bands, sample_rate) for x in (prediction, target))
        rise = F.relu(t[..., 4:] - t[..., :-4])  # a window is four frames
        errors.append(((p - t)[..., 4:].abs() * rise).sum() / (rise.sum() + 1e-6))
    return torch.stack(errors).mean()


def hinge_discriminator(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Hinge loss of a discriminator over its scales."""
    terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def hinge_generator(fake: list[Tensor]) -> Tensor:
    return torch.stack([-f.mean() for f in fake]).mean()


def feature_matching(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Mean relative L1 between the discriminator's (or a frozen network's) features."""
    terms = [
        F.l1_loss(f, r.detach()) / (r.detach().abs().mean() + 1e-6) for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()
