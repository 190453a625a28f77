"""A whole checkpoint in miniature: random codecs and a random transformer, as training would save them."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from sora2.atomic import save_safetensors
from sora2.codecs import SpectralVAE, SpectralVAEConfig, VideoVAE, VideoVAEConfig, load_codecs
from sora2.config import to_mapping
from sora2.media import write_clip
from sora2.model import Transformer, TransformerConfig
from sora2.types import Clip

CLIP = {"frames": 17, "height": 32, "width": 32, "fps": 8.0, "sample_rate": 8000, "channels": 2}
SAMPLES = 17000  # of the trained clip


def save_codecs(folder: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    video = VideoVAEConfig(
        latent_channels=4,
        encoder_fine_width=8,
        encoder_width=8,
        encoder_blocks=1,
        decoder_width=8,
        decoder_blocks=1,
        decoder_fine_width=8,
        decoder_fine_blocks=1,
    )
    VideoVAE(video).save(folder / "video_vae")
    audio = SpectralVAEConfig(
        sample_rate=8000,
        latent_channels=8,
        fft=160,
        frame_hop=40,
        frames_per_latent=8,
        encoder_width=8,
        encoder_blocks=1,
        decoder_width=8,
        decoder_blocks=1,
    )
    SpectralVAE(audio).save(folder / "audio_vae")


def save_checkpoint(folder: Path, **model: object) -> Path:
    """`folder`/export with its codecs beside it, in `folder`."""
    save_codecs(folder)
    codecs = load_codecs(folder / "video_vae", folder / "audio_vae", "bytes")
    config = TransformerConfig(
        **{
            "width": 32,
            "depth": 2,
            "heads": 2,
            "video_width": 16,
            "audio_width": 8,
            "text_width": codecs.text.width,
            "level_features": 16,
            "level_width": 16,
            **{f"{group}_spread": spread for group, spread in codecs.spreads().items()},
            **model,
        }
    )
    network = Transformer(config, torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(2)
    weights = {n: t + 0.05 * torch.randn(t.shape, generator=draw) for n, t in network.state_dict().items()}
    save_safetensors(weights, folder / "export" / "model.safetensors")
    described = {
        "model": to_mapping(config),
        "codecs": {
            "video": str(folder / "video_vae"),
            "audio": str(folder / "audio_vae"),
            "text": "bytes",
            "fingerprints": codecs.fingerprints(),
        },
        "clip": CLIP,
        "diffusion": {},
        "sampling": {"steps": 3, "sampler": "euler"},
        "samples_seen": 0,
    }
    (folder / "export" / "config.yaml").write_text(yaml.safe_dump(described))
    return folder / "export"


def film(frames: int = 17, *, sound: bool = True, seed: int = 0) -> Clip:
    """A moving pattern with a tone, on the trained grid."""
    draw = torch.Generator().manual_seed(seed)
    video = torch.randint(0, 256, (frames, 32, 32, 3), generator=draw, dtype=torch.uint8)
    seconds = torch.arange(frames * 1000) / 8000
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * seconds)
    return Clip(
        video=video,
        fps=8.0,
        audio=torch.stack([tone, -tone]) if sound else None,
        sample_rate=8000 if sound else 0,
        key="film",
    )


def save_film(path: Path, **kwargs: object) -> Path:
    return write_clip(film(**kwargs), path, crf=0, lossless_audio=True)
