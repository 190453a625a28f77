"""The two codecs as trainable problems: raw pixels or samples in, named reconstruction losses out.

A raw batch is {"video": (B, 3, T, H, W) float in [-1, 1], "audio": (B, channels, S) float, "keys": ...}; the video codec
needs the first entry, the audio codec the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sora2.codecs import losses as L
from sora2.codecs.audio_vae import AudioVAE, AudioVAEConfig
from sora2.codecs.base import CodecError, LatentCodec
from sora2.codecs.video_vae import VideoVAE, VideoVAEConfig
from sora2.train.recipe import LossOutput, Progress, Recipe


@dataclass(frozen=True)
class VideoLossConfig:
    """Weights of the video codec's losses; a term of weight 0 is not computed."""

    mse: float = 1.0
    l1: float = 0.1
    gradient: float = 0.0
    kl: float = 1e-4


@dataclass(frozen=True)
class AudioLossConfig:
    """Weights of the audio codec's losses. `relative` is log10 of error over signal power, per clip."""

    relative: float = 1.0
    l1: float = 0.0
    convergence: float = 0.1
    log_mel: float = 0.1
    kl: float = 1e-2
    ffts: tuple[int, ...] = (256, 1024)
    mels: tuple[int, ...] = (32, 64)


class CodecRecipe(Recipe):
    """What both codecs share: the posterior draw, the sum of weighted terms, the export."""

    modality: str

    def __init__(self, model: LatentCodec) -> None:
        super().__init__()
        self.model = model

    def target(self, batch: dict[str, Any]) -> Tensor:
        if self.modality not in batch:
            raise CodecError(
                f"the batch has no {self.modality!r}: the {self.modality} codec trains on raw shards that contain it (got {sorted(batch)})"
            )
        return batch[self.modality]

    def reconstruct(self, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction from one posterior draw, with the posterior's mean and log variance."""
        mean, log_variance = self.model.posterior(target)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return self.model.decode_raw(mean + noise * torch.exp(0.5 * log_variance)), mean, log_variance

    def terms(self, reconstruction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Unweighted reconstruction terms, named as in the loss config."""
        raise NotImplementedError

    def losses(self, batch: Any, generator: torch.Generator, progress: Progress) -> dict[str, LossOutput]:
        target = self.target(batch)
        reconstruction, mean, log_variance = self.reconstruct(target, generator)
        terms = self.terms(reconstruction, target) | {"kl": L.kl_divergence(mean, log_variance)}
        total = torch.stack([getattr(self.loss, name) * value for name, value in terms.items()]).sum()
        return {"main": LossOutput(total, {name: value.detach() for name, value in terms.items()})}

    def batch_size(self, batch: Any) -> int:
        return self.target(batch).shape[0]


class VideoCodecRecipe(CodecRecipe):
    modality = "video"

    def __init__(self, model: VideoVAEConfig, loss: VideoLossConfig) -> None:
        super().__init__(VideoVAE(model))
        self.loss = loss

    def terms(self, reconstruction: Tensor, target: Tensor) -> dict[str, Tensor]:
        terms = L.pixel_losses(reconstruction, target)
        if self.loss.gradient:
            terms["gradient"] = L.gradient_loss(reconstruction, target)
        return terms


class AudioCodecRecipe(CodecRecipe):
    modality = "audio"

    def __init__(self, model: AudioVAEConfig, loss: AudioLossConfig) -> None:
        super().__init__(AudioVAE(model))
        self.loss = loss

    def terms(self, reconstruction: Tensor, target: Tensor) -> dict[str, Tensor]:
        reconstruction = reconstruction[..., : target.shape[-1]]
        terms = {
            "relative": L.relative_error(reconstruction, target),
            "l1": (reconstruction - target).abs().mean(),
        }
        if self.loss.convergence or self.loss.log_mel:
            terms |= L.spectral_losses(
                reconstruction, target, self.model.sample_rate, self.loss.ffts, self.loss.mels
            )
        return terms
