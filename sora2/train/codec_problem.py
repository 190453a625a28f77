"""The codecs as runs of `sora2 train`: their configs, data and exports. What they learn is in `codec_recipes.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import torch

from sora2.codecs.load import build_codec
from sora2.codecs.spectral_vae import SpectralVAEConfig
from sora2.codecs.video_vae import VideoVAEConfig
from sora2.config import ConfigError, from_mapping
from sora2.data.loader import LoaderConfig
from sora2.data.raw import FOREGROUND
from sora2.train.codec_recipes import (
    AudioCodecRecipe,
    AudioLossConfig,
    CodecRecipe,
    VideoCodecRecipe,
    VideoLossConfig,
)
from sora2.train.config import TrainConfig


@dataclass(frozen=True)
class VideoCodecConfig:
    model: VideoVAEConfig = field(default_factory=VideoVAEConfig)
    loss: VideoLossConfig = field(default_factory=VideoLossConfig)
    freeze_encoder: bool = False  # train the decoder of init_from further; latents stay as they are


@dataclass(frozen=True)
class AudioCodecConfig:
    model: SpectralVAEConfig = field(default_factory=SpectralVAEConfig)
    loss: AudioLossConfig = field(default_factory=AudioLossConfig)
    freeze_encoder: bool = False


CodecConfig = VideoCodecConfig | AudioCodecConfig


def codec_config(config: TrainConfig) -> CodecConfig:
    """The checked `codec` section of a codec run."""
    if not config.codec:
        raise ConfigError(
            f"recipe={config.recipe} needs a codec section: add codec=video_vae or spectral_vae"
        )
    codec: CodecConfig
    if config.recipe == "video_codec":
        codec = from_mapping(VideoCodecConfig, config.codec, "codec")
    else:
        codec = from_mapping(AudioCodecConfig, config.codec, "codec")
    if codec.freeze_encoder and config.init_from is None:
        raise ConfigError(
            "codec.freeze_encoder=true trains the decoder of a codec that exists: name its folder in init_from"
        )
    return codec


def loader_config(config: TrainConfig) -> LoaderConfig:
    is_video = config.recipe == "video_codec"
    settings = {"require_video": is_video, "require_audio": not is_video, **config.data, "seed": config.seed}
    loader = from_mapping(LoaderConfig, settings, "data")
    if loader.kind != "raw":
        raise ConfigError(f"data.kind={loader.kind!r}: a codec trains on raw shards, set data.kind=raw")
    codec = codec_config(config)
    if isinstance(codec, AudioCodecConfig) and codec.loss.clear_mel and FOREGROUND not in loader.streams:
        raise ConfigError(
            f"codec.loss.clear_mel={codec.loss.clear_mel} is asked of foregrounds: set "
            f"data.streams=[audio,{FOREGROUND}], or codec.loss.clear_mel=0"
        )
    return loader


def latent_fingerprints(config: TrainConfig) -> None:
    """Codecs read pixels and samples: there are no latents to check."""
    return None


def plan(config: TrainConfig) -> list[tuple[str, str]]:
    codec = codec_config(config)
    with torch.device("meta"):
        network = build_codec(codec.model)
    count = sum(p.numel() for p in network.parameters())
    return [("codec", f"{network.kind}, {count / 1e6:.1f} M parameters")]


def build(config: TrainConfig, fingerprints: None) -> CodecRecipe:
    """The recipe with freshly initialised weights, a pure function of `config.seed`."""
    torch.manual_seed(config.seed)
    codec = codec_config(config)
    dtype = getattr(torch, config.trainer.export_dtype)
    if isinstance(codec, VideoCodecConfig):
        return VideoCodecRecipe(
            codec.model, codec.loss, freeze_encoder=codec.freeze_encoder, export_dtype=dtype
        )
    return AudioCodecRecipe(codec.model, codec.loss, freeze_encoder=codec.freeze_encoder, export_dtype=dtype)


def callbacks(config: TrainConfig, folder: Path) -> list[L.Callback]:
    return []
