"""Small shards with known content, and codecs that are exact, so that every truth in these tests is exact."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sora2.data import ShardWriter, pack_latents
from sora2.types import Clip

GEOMETRY = {
    "video": {"channels": 4, "temporal_stride": 4, "spatial_stride": 8},
    "audio": {"latent_channels": 6, "hop_samples": 400},
    "text": {"width": 5, "max_tokens": 8},
}
FINGERPRINTS = {"video": "v1", "audio": "a1", "text": "t1"}


def latent_meta(key: str, frames: int = 5, side: int = 32, samples: int = 4000, caption: str = "") -> dict:
    return {
        "key": key,
        "caption": caption if caption else f"caption of {key}",
        "frames": frames,
        "height": side if frames else 0,
        "width": side if frames else 0,
        "fps": 16.0 if frames else 0.0,
        "samples": samples,
        "sample_rate": 16000 if samples else 0,
        "channels": 2 if samples else 0,
        "licence": "CC0-1.0",
        "source": "test",
        "fingerprints": FINGERPRINTS,
        "geometry": GEOMETRY,
    }


def latent_members(number: int, meta: dict) -> dict[str, bytes]:
    """Latents whose every value is the sample's number (exact in bf16 below 256)."""
    tensors = {"text": torch.full((3, 5), float(number))}
    if meta["frames"]:
        cells = meta["height"] // 8
        tensors["video"] = torch.full((4, 1 + (meta["frames"] - 1) // 4, cells, cells), float(number))
    if meta["samples"]:
        tensors["audio"] = torch.full((6, meta["samples"] // 400), float(number))
    return pack_latents(tensors, meta)


def write_latents(folder: Path, metas: list[dict], shard_size: int = 8) -> Path:
    with ShardWriter(folder, shard_size) as writer:
        for number, meta in enumerate(metas):
            writer.write(meta["key"], latent_members(number, meta))
    return folder


class ExactVideo(nn.Module):
    """Folds 4 x 8 x 8 pixels into channels; frame 0 fills its latent frame by repetition. Loses nothing."""

    temporal_stride, spatial_stride, latent_channels = 4, 8, 3 * 4 * 64

    def __init__(self, tag: str = "exact-video") -> None:
        super().__init__()
        self.tag = tag
        self.unused = nn.Parameter(torch.zeros(1))

    def encode(self, video: Tensor) -> Tensor:
        b, c, t, h, w = video.shape
        video = torch.cat([video[:, :, :1].expand(-1, -1, 3, -1, -1), video], dim=2)
        x = video.reshape(b, c, (t + 3) // 4, 4, h // 8, 8, w // 8, 8).permute(0, 1, 3, 5, 7, 2, 4, 6)
        return x.reshape(b, -1, (t + 3) // 4, h // 8, w // 8)

    def decode(self, latent: Tensor) -> Tensor:
        b, _, t, h, w = latent.shape
        x = latent.reshape(b, 3, 4, 8, 8, t, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return x.reshape(b, 3, 4 * t, 8 * h, 8 * w)[:, :, 3:]

    def fingerprint(self) -> str:
        return self.tag


class ExactAudio(nn.Module):
    """Folds 400 samples of both channels into a latent frame."""

    sample_rate, channels, hop_samples, latent_channels = 16000, 2, 400, 800

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def encode(self, audio: Tensor) -> Tensor:
        b, c, s = audio.shape
        audio = nn.functional.pad(audio, (0, -s % 400))
        return audio.reshape(b, c, -1, 400).permute(0, 1, 3, 2).reshape(b, 800, -1)

    def decode(self, latent: Tensor, samples: int | None = None) -> Tensor:
        b, _, n = latent.shape
        return latent.reshape(b, 2, 400, n).permute(0, 1, 3, 2).reshape(b, 2, -1)[..., :samples]

    def fingerprint(self) -> str:
        return "exact-audio"


def moving_clip(key: str, frames: int = 5, side: int = 32, seed: int = 0, sound: bool = True) -> Clip:
    """Smooth moving colours (H.264 keeps them well) and a quiet tone."""
    t = torch.arange(frames)[:, None, None] / 8 + seed
    y = torch.linspace(0, 3, side)[None, :, None]
    x = torch.linspace(0, 3, side)[None, None, :]
    channels = [torch.sin(x + y * k + 6 * t) for k in (0.3, 0.5, 0.7)]
    video = ((torch.stack(channels, dim=-1) + 1) * 100 + 20).to(torch.uint8)
    samples = round(frames / 16 * 16000)
    tone = 0.1 * torch.sin(torch.arange(samples) / 16000 * 6.283 * (300 + 50 * seed))
    return Clip(
        video=video,
        audio=torch.stack([tone, -tone]) if sound else None,
        fps=16.0,
        sample_rate=16000 if sound else 0,
        caption=f"colours {seed}",
        key=key,
        meta={"licence": "CC0-1.0", "source": "test"},
    )
