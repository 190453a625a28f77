"""What every latent codec shares: statistics that make latents unit variance, a fingerprint, how it is saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sora2.atomic import save_safetensors, save_text
from sora2.codecs.layers import mid_side
from sora2.config import to_mapping
from sora2.errors import UserError
from sora2.weights import pack, unpack

#: How names begin of what is stored in no shorter dtype: statistics, and the linear path out of the latent. Of a
#: balanced latent one channel carries nearly all of the picture, and 8 bits of what it is multiplied by cost 0.03 dB.
SHORTEST = {"latent_": torch.float32, "linear_decoder": torch.float16}


class CodecError(UserError):
    """A codec folder, configuration or input that cannot be used."""


class LatentCodec(nn.Module):
    """Base of the trained codecs. Subclasses set `kind` and `config_class` and implement `posterior` and
    `decode_raw`; callers use `encode` and `decode`, whose latents have zero mean and in each channel the deviation
    `spread`: 1, unless the codec was balanced."""

    kind: ClassVar[str]
    config_class: ClassVar[type]
    #: How the names of the decoder's tensors and settings begin: what latents do not depend on.
    decoder_names: ClassVar[tuple[str, ...]] = ("decoder", "linear_decoder")
    latent_channels: int

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self._flops: dict[tuple[int, ...], float] = {}  # shape -> count
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        self.register_buffer("latent_spread", torch.ones(config.latent_channels))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the raw latent."""
        raise NotImplementedError

    def decode_raw(self, latent: Tensor) -> Tensor:
        """Raw latent -> pixels or samples."""
        raise NotImplementedError

    def decode_parts(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """`decode_raw` as what the latent determines and, where a codec has such a thing, noise added to it."""
        return self.decode_raw(latent), None

    def normalize(self, raw: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (raw.ndim - 2)
        return (raw - self.latent_mean.view(shape)) * (self.latent_spread / self.latent_std).view(shape)

    def denormalize(self, latent: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (latent.ndim - 2)
        return latent * (self.latent_std / self.latent_spread).view(shape) + self.latent_mean.view(shape)

    @property
    def spread(self) -> Tensor:
        """(C,) standard deviation of each channel of a normalised latent."""
        return self.latent_spread

    def encode(self, x: Tensor, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Normalised latent: the posterior mean, or one draw from the posterior."""
        mean, log_variance = self.posterior(x)
        if sample:
            noise = torch.empty_like(mean).normal_(generator=generator)
            mean = mean + noise * torch.exp(0.5 * log_variance)
        return self.normalize(mean)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Store what `encode` subtracts and divides by, measured on raw latents of the training data."""
        if not bool((std > 0).all()):
            raise CodecError(f"{self.kind} codec: a latent channel has no variance; its training collapsed")
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    @torch.no_grad()
    def track_statistics(self, raw: Tensor, momentum: float = 0.99) -> None:
        """Move the statistics towards those of one training batch of raw latents."""
        flat = raw.float().transpose(0, 1).flatten(1)  # (C, positions of the batch)
        variance = self.latent_std.square().lerp(
            (flat - self.latent_mean[:, None]).square().mean(1), 1 - momentum
        )
        self.latent_mean.lerp_(flat.mean(1), 1 - momentum)
        self.latent_std.copy_(variance.clamp_min(1e-12).sqrt())

    def forward_flops(self, shape: tuple[int, ...]) -> float:
        """Floating-point operations (a multiply-add is two) of the matrix products of one encode and decode."""
        from torch.utils.flop_counter import FlopCounterMode

        if shape not in self._flops:  # counted by running it, once for each shape
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                x = torch.zeros(shape, device=self.latent_mean.device)
                self.decode_raw(self.posterior(x)[0])
            self._flops[shape] = float(counter.get_total_flops())
        return self._flops[shape]

    def initialize_linear(self, x: Tensor) -> None:
        """Set the linear path from data, before training."""
        raise NotImplementedError

    def is_decoder(self, name: str) -> bool:
        """Whether a tensor or setting of this name belongs to the decoder, so that latents do not depend on it."""
        return name.startswith(self.decoder_names)

    def fingerprint(self) -> str:
        """16 hex digits over what makes latents: configuration, weights of the encoder, statistics.

        Equal exactly when the latents are. A decoder that was trained further (`codec.freeze_encoder`) reads the
        latents made before.
        """
        config = {name: value for name, value in to_mapping(self.config).items() if not self.is_decoder(name)}
        digest = hashlib.sha256(json.dumps([self.kind, config], sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            if self.is_decoder(name) or (name == "latent_spread" and bool((tensor == 1).all())):
                continue
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(
        self, folder: str | Path, dtype: torch.dtype = torch.float32, info: dict[str, Any] | None = None
    ) -> Path:
        """Write config.json and model.safetensors. Weights may be stored in a shorter dtype; statistics never are.

        torch.int8 stores matrices and filters as `quantize` does, and the rest in float16. To load and save again
        changes no bit, so that a decoder that is trained further keeps the fingerprint of its encoder.
        """
        folder = Path(folder)
        tensors = pack_codec(self.state_dict(), dtype)
        text = {"kind": self.kind, "config": to_mapping(self.config), "info": {} if info is None else info}
        save_safetensors(tensors, folder / "model.safetensors")
        save_text(json.dumps(text, indent=1) + "\n", folder / "config.json")
        return folder


def pack_codec(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of a codec as `LatentCodec.save` stores them."""
    return pack(tensors, dtype, SHORTEST)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a saved codec in float32, with what was added to codecs since they were first saved."""
    tensors = unpack(load_file(path))
    if "latent_mean" in tensors:
        tensors.setdefault("latent_spread", torch.ones_like(tensors["latent_mean"]))
    return tensors


def whole_cells(video: Tensor, temporal_stride: int, spatial_stride: int) -> Tensor:
    """(B, 3, T, H, W) -> (B, T + temporal_stride - 1, H, W, 3): frame 0 is repeated to fill the first causal cell.

    Raises:
        CodecError: frames or pixels that are no whole cells.
    """
    frames, height, width = video.shape[2:]
    if (frames - 1) % temporal_stride:
        raise CodecError(f"video of {frames} frames: the causal codec holds 1 + {temporal_stride} * k frames")
    if height % spatial_stride or width % spatial_stride:
        raise CodecError(f"video of {height} x {width} pixels: both must be multiples of {spatial_stride}")
    lead = video[:, :, :1].expand(-1, -1, temporal_stride - 1, -1, -1)
    return torch.cat([lead, video], dim=2).permute(0, 2, 3, 4, 1)


class SoundCodec(LatentCodec):
    """A codec of sound: (B, channels, S) <-> latent (B, C, n) with n = ceil(S / hop_samples)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.latent_channels = config.latent_channels
        self.hop_samples = config.hop_samples
        self.sample_rate = config.sample_rate
        self.channels = config.channels

    def _hops(self, audio: Tensor) -> Tensor:
        """(B, channels, S) -> zero-padded mid/side samples, (B, channels, n * hop)."""
        if audio.ndim != 3 or audio.shape[1] != self.channels:
            raise CodecError(
                f"audio of shape {tuple(audio.shape)}: this codec takes (batch, {self.channels}, samples)"
            )
        padded = F.pad(audio, (0, -audio.shape[2] % self.hop_samples))
        return mid_side(padded, 1)

    def decode(self, latent: Tensor, samples: int | None = None) -> Tensor:
        """Normalised latent (B, C, n) -> audio (B, channels, samples) in [-1, 1]; whole hops when None."""
        audio = self.decode_raw(self.denormalize(latent)).clamp(-1, 1)
        if samples is None:
            return audio
        if not 0 < samples <= audio.shape[2]:
            raise CodecError(
                f"samples={samples}: {latent.shape[2]} latents hold 1 to {audio.shape[2]} samples"
            )
        return audio[:, :, :samples]
