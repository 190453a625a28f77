"""Published encoders behind this project's protocols, from a path: video and audio VAEs of diffusers, text encoders
of transformers. Both packages are optional; what is missing is said by name."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from sora2.codecs.base import CodecError


def _optional(package: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise CodecError(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"pip install {package}, or this project with its extra 'hub'"
        ) from error


def _module_digest(module: nn.Module, *extra: str) -> str:
    """Hash over names, shapes and some thousand evenly spaced values per tensor: quick for billions of weights."""
    digest = hashlib.sha256(repr(extra).encode())
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 4096)].float().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def load_diffusers(folder: str | Path) -> DiffusersVideoCodec | DiffusersAudioCodec:
    """The codec of a diffusers folder (config.json with `_class_name`, weights beside it)."""
    folder = Path(folder)
    diffusers = _optional("diffusers", f"the codec in {folder}")
    name = json.loads((folder / "config.json").read_text())["_class_name"]
    if not hasattr(diffusers, name):
        raise CodecError(
            f"{folder / 'config.json'}: the installed diffusers has no class {name!r}; upgrade it"
        )
    try:
        vae = getattr(diffusers, name).from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise CodecError(f"diffusers could not load {name} from {folder}: {error}") from error
    adapter = DiffusersAudioCodec if name == "AutoencoderOobleck" else DiffusersVideoCodec
    return adapter(vae).eval().requires_grad_(False)


class _DiffusersCodec(nn.Module):
    """Shared part: the wrapped VAE and how its latents become unit variance, as its own config states."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae
        config = vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or std is None:
            mean = getattr(vae, "latents_mean", None)
            std = getattr(vae, "latents_std", None)
        if mean is None or std is None:
            factor = getattr(config, "scaling_factor", None)
            shift = getattr(config, "shift_factor", None)
            mean, std = [0.0 if shift is None else shift], [1.0 if factor is None else 1.0 / factor]
        self.register_buffer(
            "latent_mean", torch.as_tensor(mean, dtype=torch.float32).flatten(), persistent=False
        )
        self.register_buffer(
            "latent_std", torch.as_tensor(std, dtype=torch.float32).flatten(), persistent=False
        )

    def _normalize(self, raw: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (raw.ndim - 2)
        return (raw - self.latent_mean.view(shape)) / self.latent_std.view(shape)

    def _denormalize(self, latent: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (latent.ndim - 2)
        return latent * self.latent_std.view(shape) + self.latent_mean.view(shape)

    @property
    def spread(self) -> Tensor:
        """(C,) standard deviation of each channel of a normalised latent."""
        return torch.ones(int(self.latent_channels), device=self.latent_mean.device)

    def _posterior(self, x: Tensor, sample: bool, generator: torch.Generator | None) -> Tensor:
        """Mean or draw of the VAE's latent distribution; a VAE without one gives its latent itself."""
        output = self.vae.encode(x)
        if not hasattr(output, "latent_dist"):
            return output.latent
        return output.latent_dist.sample(generator) if sample else output.latent_dist.mode()

    def fingerprint(self) -> str:
        return _module_digest(self.vae, type(self.vae).__name__, str(self.latent_mean), str(self.latent_std))


class DiffusersVideoCodec(_DiffusersCodec):
    """A video VAE (Wan, LTX, Hunyuan, CogVideoX ...) or an image VAE, whose frames are coded one by one."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__(vae)
        weights = [p for n, p in vae.named_parameters() if n.startswith("encoder.") and n.endswith("weight")]
        self.images_only = not any(p.ndim == 5 for p in weights)
        with torch.no_grad():  # strides are measured: their names differ from class to class
            latent = self.encode(torch.zeros(1, 3, 17, 64, 64))
        self.latent_channels = latent.shape[1]
        self.temporal_stride = 16 // (latent.shape[2] - 1)
        self.spatial_stride = 64 // latent.shape[3]

    def encode(self, video: Tensor, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1] -> (B, C, t, h, w)."""
        if not self.images_only:
            return self._normalize(self._posterior(video, sample, generator))
        images = video.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W)
        latent = self._normalize(self._posterior(images, sample, generator))
        return latent.unflatten(0, (video.shape[0], -1)).transpose(1, 2)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, t, h, w) -> (B, 3, T, H, W) in [-1, 1]."""
        if not self.images_only:
            return self.vae.decode(self._denormalize(latent)).sample.clamp(-1, 1)
        images = self.vae.decode(self._denormalize(latent.transpose(1, 2).flatten(0, 1))).sample
        return images.clamp(-1, 1).unflatten(0, (latent.shape[0], -1)).transpose(1, 2)


class DiffusersAudioCodec(_DiffusersCodec):
    """A waveform VAE of the Oobleck kind (Stable Audio)."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__(vae)
        self.hop_samples = int(vae.hop_length)
        self.sample_rate = int(vae.config.sampling_rate)
        self.channels = int(vae.config.audio_channels)
        self.latent_channels = int(vae.config.decoder_input_channels)

    def encode(self, audio: Tensor, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """(B, channels, S) -> (B, C, n), zero-padded to whole latents."""
        padded = nn.functional.pad(audio, (0, -audio.shape[2] % self.hop_samples))
        return self._normalize(self._posterior(padded, sample, generator))

    def decode(self, latent: Tensor, samples: int | None = None) -> Tensor:
        """(B, C, n) -> (B, channels, samples) in [-1, 1]."""
        audio = self.vae.decode(self._denormalize(latent)).sample.clamp(-1, 1)
        return audio if samples is None else audio[:, :, :samples]


class TransformersTextEncoder(nn.Module):
    """The encoder half of a T5 / UMT5 checkpoint, or any encoder or decoder-only model, from a folder."""

    def __init__(self, folder: str | Path, max_tokens: int = 128) -> None:
        super().__init__()
        transformers = _optional("transformers", f"the text encoder in {folder}")
        if not (Path(folder) / "config.json").is_file():
            raise CodecError(
                f"text encoder folder {folder} has no config.json: it is not a transformers checkpoint"
            )
        try:
            config = transformers.AutoConfig.from_pretrained(folder)
            special = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel", "mt5": "MT5EncoderModel"}
            model_class = getattr(transformers, special.get(config.model_type, "AutoModel"))
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            self.model = model_class.from_pretrained(folder).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            raise CodecError(f"transformers could not load the text encoder in {folder}: {error}") from error
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "right"
        self.width = int(config.hidden_size)
        self.max_tokens = max_tokens

    @torch.no_grad()
    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        found = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        mask = found["attention_mask"].bool()  # (B, L)
        hidden = self.model(input_ids=found["input_ids"], attention_mask=mask).last_hidden_state  # (B, L, D)
        return hidden.float() * mask.unsqueeze(-1), mask

    def unread(self, text: str, tokens: int | None = None) -> str:
        most = self.max_tokens if tokens is None else max(0, min(tokens, self.max_tokens))
        ids = self.tokenizer(text)["input_ids"]
        ends = len(ids) - len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(ids) <= most:
            return ""
        return self.tokenizer.decode(ids[max(0, most - ends) :], skip_special_tokens=True).strip()

    def fingerprint(self) -> str:
        name = re.sub(r"\W", "", type(self.model).__name__)
        return f"{name}-{_module_digest(self.model, str(self.max_tokens))}"
