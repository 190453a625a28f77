"""The two codecs as trainable problems: raw pixels or samples in, named reconstruction losses out.

A raw batch is {"video": (B, 3, T, H, W) float in [-1, 1], "audio": (B, channels, S) float, "keys": ...}; the video
codec needs the first entry, the audio codec the second.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sora2.codecs import losses as L
from sora2.codecs.base import CodecError, LatentCodec, pack_codec, read_weights
from sora2.codecs.discriminators import AudioDiscriminator, VideoDiscriminator
from sora2.codecs.load import build_codec
from sora2.codecs.spectral_vae import SpectralVAEConfig
from sora2.codecs.video_vae import VideoVAEConfig
from sora2.host import noise_generator
from sora2.toybox.foreground import has_own_noise
from sora2.train.recipe import LossOutput, Progress, Recipe
from sora2.weights import unpack


@dataclass(frozen=True)
class VideoLossConfig:
    """Weights of the video codec's losses; a term of weight 0 is not computed.

    `decibel` is log10 of the squared error per clip: PSNR itself, which gives easy clips the weight of hard ones.
    The adversarial terms begin after `adversarial_start` of the run.
    """

    mse: float = 1.0
    l1: float = 0.1
    decibel: float = 0.0
    gradient: float = 0.0
    kl: float = 1e-4
    adversarial: float = 0.0
    features: float = 0.0
    adversarial_start: float = 0.5


@dataclass(frozen=True)
class AudioLossConfig:
    """Weights of the audio codec's losses.

    `relative` is log10 of error over signal power, per clip, of the foreground where batches have one (`data.streams`):
    nobody can repeat the samples of rain, and a latent that tries has no room for what sounds in it.
    `clear_mel`: as `log_mel`, of what the latent determines alone, on foregrounds that hold no noise; `attack`: the
    same where something begins there, in windows of 4 to 16 ms.
    """

    relative: float = 1.0
    clear_mel: float = 0.0
    attack: float = 0.0
    l1: float = 0.0
    convergence: float = 0.0
    log_mel: float = 8.0
    kl: float = 1e-2
    adversarial: float = 0.0
    features: float = 0.0
    adversarial_start: float = 0.5
    ffts: tuple[int, ...] = (256, 512, 1024)
    mels: tuple[int, ...] = (40, 80, 80)


class CodecRecipe(Recipe):
    """What both codecs share: first-batch initialisation, posterior draw, adversary, statistics, export.

    `discriminator` is built when a loss weight asks for it. `features` compares the hidden layers of `perceptual`
    where one is given, a frozen network that returns (maps, features), and of the discriminator otherwise.
    `freeze_encoder` trains the decoder alone: encoder and statistics, and so all latents, stay bit for bit.
    """

    modality: str
    outer_layers = ("_in.", "_out.", "linear_", "noise_gain")

    def __init__(
        self,
        model: LatentCodec,
        loss: Any,
        discriminator: nn.Module,
        perceptual: nn.Module | None = None,
        freeze_encoder: bool = False,
        export_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model = model
        self.export_dtype = export_dtype
        self.freeze_encoder = freeze_encoder
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(model.is_decoder(name) or not freeze_encoder)
        self.loss = loss
        uses_adversary = bool(loss.adversarial or (loss.features and perceptual is None))
        self.discriminator = discriminator if uses_adversary else None
        self.perceptual = None if perceptual is None else perceptual.eval().requires_grad_(False)
        self.register_buffer("initialized", torch.tensor(False))

    def optimizer_groups(self) -> dict[str, list[nn.Parameter]]:
        groups = {"main": [p for p in self.model.parameters() if p.requires_grad]}
        if self.discriminator is not None:
            groups["discriminator"] = list(self.discriminator.parameters())
        return groups

    def target(self, batch: dict[str, Any]) -> Tensor:
        if self.modality not in batch:
            raise CodecError(
                f"the batch has no {self.modality!r}: the {self.modality} codec trains on raw shards that contain "
                f"it (got {sorted(batch)})"
            )
        return batch[self.modality]

    def read_weights(self, path: Path) -> dict[str, Tensor]:
        return read_weights(path)

    def draw(self, mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
        """One draw from the posterior."""
        noise = torch.empty_like(mean).normal_(generator=noise_generator(generator, mean.device))
        return mean + noise * torch.exp(0.5 * log_variance)

    def terms(self, expected: Tensor, noise: Tensor | None, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Unweighted reconstruction terms, named as in the loss config, of the two parts that are decoded."""
        raise NotImplementedError

    def losses(self, batch: Any, generator: torch.Generator, progress: Progress) -> dict[str, LossOutput]:
        target = self.target(batch)
        self._initialize(target)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            mean, log_variance = self.model.posterior(target)
        parts = self.model.decode_parts(self.draw(mean, log_variance, generator))
        expected, noise = (None if part is None else part[..., : target.shape[-1]] for part in parts)
        reconstruction = expected if noise is None else expected + noise
        terms = self.terms(expected, noise, batch)
        if not self.freeze_encoder:
            terms["kl"] = L.kl_divergence(mean, log_variance)
            if self.training:
                self.model.track_statistics(mean.detach())
        adversarial = self.discriminator is not None and progress.fraction >= self.loss.adversarial_start
        if self.perceptual is not None and self.loss.features:
            terms["features"] = L.feature_matching(
                self.perceptual(target)[1], self.perceptual(reconstruction)[1]
            )
        outputs = {}
        if self.discriminator is not None:
            # A group without a loss yet gets a zero with a graph, so that the trainer steps it all the same.
            idle = torch.stack([p.sum() * 0.0 for p in self.discriminator.parameters()]).sum()
            outputs["discriminator"] = LossOutput(idle)
        if adversarial:
            terms |= self._against(reconstruction, target)
            real, _ = self.discriminator(target)
            fake, _ = self.discriminator(reconstruction.detach())
            hinge = L.hinge_discriminator(real, fake)
            outputs["discriminator"] = LossOutput(hinge, {"discriminator": hinge.detach()})
        total = torch.stack([getattr(self.loss, name) * value for name, value in terms.items()]).sum()
        outputs["main"] = LossOutput(total, {name: value.detach() for name, value in terms.items()})
        return outputs

    def _against(self, reconstruction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The codec's side of the adversarial game; the discriminator's weights get no gradient from it."""
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fake, fake_features = torch.func.functional_call(self.discriminator, frozen, (reconstruction,))
        terms = {"adversarial": L.hinge_generator(fake)}
        if self.perceptual is None and self.loss.features:
            with torch.no_grad():
                _, real_features = self.discriminator(target)
            terms["features"] = L.feature_matching(real_features, fake_features)
        return terms

    def _initialize(self, target: Tensor) -> None:
        """Before the first step, set the linear path from the first batch; every rank gets rank 0's."""
        if bool(self.initialized):
            return
        if self.freeze_encoder:
            raise CodecError(
                "freeze_encoder needs the weights of a trained codec: name its folder in init_from"
            )
        self.model.initialize_linear(target)
        if dist.is_available() and dist.is_initialized():
            for tensor in self.model.state_dict().values():
                dist.broadcast(tensor, src=0)
        self.initialized.fill_(True)

    def load_weights(self, folder: Path, fresh: Collection[str] = ()) -> None:
        super().load_weights(folder, fresh)
        fresh_linear = [
            n for n in self.model.state_dict() if n.startswith("linear_") and n.startswith(tuple(fresh))
        ]
        self.initialized.fill_(not fresh_linear)
        if self.freeze_encoder:
            encoder = {n: t for n, t in self.model.state_dict().items() if not self.model.is_decoder(n)}
            stored = unpack(pack_codec(encoder, self.export_dtype))
            if any(not torch.equal(encoder[name], tensor) for name, tensor in stored.items()):
                raise CodecError(
                    f"trainer.export_dtype={str(self.export_dtype).removeprefix('torch.')} would round the frozen "
                    f"encoder of {folder} and change its latents: set trainer.export_dtype=float16, or float32"
                )

    def batch_size(self, batch: Any) -> int:
        return self.target(batch).shape[0]

    def tokens(self, batch: Any) -> int:
        """Pixels or samples of the batch."""
        target = self.target(batch)
        return target.numel() // target.shape[1]

    def forward_flops(self, batch: Any) -> float:
        """Of the matrix products of encoder and decoder; norms and activations are not counted."""
        return self.model.forward_flops(tuple(self.target(batch).shape))

    def export(self, folder: Path, averaged_state: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Write the averaged weights with the running latent statistics."""
        current = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        averaged = {name.removeprefix("model."): tensor for name, tensor in averaged_state.items()}
        weights = {
            n: averaged[n] if n in averaged and not n.startswith("latent_") else t for n, t in current.items()
        }
        try:
            self.model.load_state_dict(weights)
            self.model.save(folder, dtype=self.export_dtype, info=info)
        finally:
            self.model.load_state_dict(current)


class VideoCodecRecipe(CodecRecipe):
    """Reconstruct pixels."""

    modality = "video"

    def __init__(
        self,
        model: VideoVAEConfig,
        loss: VideoLossConfig,
        perceptual: nn.Module | None = None,
        freeze_encoder: bool = False,
        export_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            build_codec(model), loss, VideoDiscriminator(), perceptual, freeze_encoder, export_dtype
        )

    def terms(self, expected: Tensor, noise: Tensor | None, batch: dict[str, Any]) -> dict[str, Tensor]:
        target = batch["video"]
        terms = L.pixel_losses(expected, target)
        if self.loss.decibel:
            terms["decibel"] = L.log_squared_error(expected, target)
        if self.loss.gradient:
            terms["gradient"] = L.gradient_loss(expected, target)
        return terms


class AudioCodecRecipe(CodecRecipe):
    """Reconstruct samples and their spectra.

    The waveform that the latent determines answers for the samples, the shaped noise for what then lacks in the
    spectra. With one loss on the sum, the decoder would fill a noisy spectrum with tones.
    """

    modality = "audio"

    def __init__(
        self,
        model: SpectralVAEConfig,
        loss: AudioLossConfig,
        perceptual: nn.Module | None = None,
        freeze_encoder: bool = False,
        export_dtype: torch.dtype = torch.float32,
    ) -> None:
        adversary = AudioDiscriminator(model.channels)
        super().__init__(build_codec(model), loss, adversary, perceptual, freeze_encoder, export_dtype)

    def terms(self, expected: Tensor, noise: Tensor | None, batch: dict[str, Any]) -> dict[str, Tensor]:
        target = batch["audio"]
        foreground = batch.get("foreground", target)
        terms = {"relative": L.relative_error(expected, foreground)}
        if self.loss.l1:
            terms["l1"] = (expected - foreground).abs().mean()
        if self.loss.convergence or self.loss.log_mel:
            terms |= self._spectral(expected if noise is None else expected.detach() + noise, target)
        if (self.loss.clear_mel or self.loss.attack) and "foreground" in batch:
            truths = [meta.get("truth") for meta in batch["metas"]]
            clear = torch.tensor([t is not None and not has_own_noise(t) for t in truths])
            if clear.any():
                share = clear.float().mean()  # fewer clips weigh less
                got, wanted = expected[clear], foreground[clear]
                if self.loss.clear_mel:
                    terms["clear_mel"] = self._spectral(got, wanted)["log_mel"] * share
                if self.loss.attack:
                    terms["attack"] = L.attack_error(got, wanted, self.model.sample_rate) * share
        return terms

    def _spectral(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        return L.spectral_losses(prediction, target, self.model.sample_rate, self.loss.ffts, self.loss.mels)
