"""Tiny but real ingredients for tests: codecs with random weights, latent shards, a training config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from sora2.codecs import load_codecs
from sora2.codecs.spectral_vae import SpectralVAE, SpectralVAEConfig
from sora2.codecs.video_vae import VideoVAE, VideoVAEConfig
from sora2.data import ShardWriter, pack_latents
from sora2.data.encode import geometry

FRAMES, SIZE, FPS, RATE = 9, 32, 8.0, 16_000


def save_tiny_codecs(folder: Path) -> tuple[Path, Path]:
    """A video and an audio codec of the real kinds, a few thousand random weights each."""
    torch.manual_seed(0)
    video = VideoVAE(
        VideoVAEConfig(
            latent_channels=32, encoder_fine_width=8, encoder_width=16, encoder_blocks=1,
            decoder_width=16, decoder_blocks=1, decoder_fine_width=8, decoder_fine_blocks=1,
        )
    )  # fmt: skip
    audio = SpectralVAE(
        SpectralVAEConfig(encoder_width=16, encoder_blocks=1, decoder_width=16, decoder_blocks=1)
    )
    return video.save(folder / "video"), audio.save(folder / "audio")


def write_latents(
    folder: Path,
    codecs_folder: Path,
    count: int = 40,
    broken: int | None = None,
    text_tokens: int | None = None,
    caption: str = "clip number",
    silent: int | None = None,
    text_encoder: str = "bytes",
    meta: Callable[[int], dict[str, str]] = lambda _: {},
) -> Path:
    """`count` latent samples of random numbers; sample `broken` holds a NaN, every `silent`-th one has no sound.
    `meta`: what KEY.json of a sample says besides."""
    codecs = load_codecs(codecs_folder / "video", codecs_folder / "audio", text_encoder, text_tokens)
    video = codecs.video_shape(FRAMES, SIZE, SIZE, FPS, patch_size=2)
    audio = codecs.audio_shape(video.seconds)
    generator = torch.Generator().manual_seed(1)
    captions = [caption.format(i) if "{" in caption else f"{caption} {i}" for i in range(count)]
    text, mask = codecs.text.encode(captions)
    with ShardWriter(folder, shard_size=16) as writer:
        for i in range(count):
            latent = torch.randn(video.latent_shape, generator=generator)
            if i == broken:
                latent[0, 0, 0, 0] = float("nan")
            about = {
                **meta(i),
                "key": f"clip-{i:03d}", "caption": captions[i], "frames": FRAMES, "height": SIZE, "width": SIZE,
                "fps": FPS, "samples": audio.samples, "sample_rate": RATE, "channels": 2,
                "fingerprints": codecs.fingerprints(), "geometry": geometry(codecs),
            }  # fmt: skip
            sound = torch.randn(audio.latent_shape, generator=generator)
            tensors = {"video": latent, "audio": sound, "text": text[i][mask[i]]}
            if silent is not None and i % silent == 0:
                del tensors["audio"]
                about |= {"samples": 0, "sample_rate": 0, "channels": 0}
            writer.write(about["key"], pack_latents(tensors, about))
    return folder


def training_overrides(root: Path, name: str = "run", **extra: object) -> list[str]:
    """Overrides of the real configs for a few steps of a small model on the world in `root`."""
    settings = {
        "name": name,
        "out": root / "runs",
        "codecs.video": root / "codecs/video",
        "codecs.audio": root / "codecs/audio",
        "codecs.text": "bytes",
        "clip": f"{{frames: {FRAMES}, height: {SIZE}, width: {SIZE}, fps: {FPS}, sample_rate: {RATE}, channels: 2}}",
        "data.datasets": f"[{{path: {root / 'latents'}, weight: 1.0}}]",
        "data.batch_size": 4,
        "model.width": 32,
        "model.depth": 2,
        "model.heads": 2,
        "trainer.max_samples": 48,
        "trainer.threads": 1,
        "trainer.checkpoint_every_samples": 24,
        "trainer.checkpoint_every_minutes": "null",
        "trainer.log_every_steps": 1,
        "trainer.peak_tflops": 1.0,
        "optimizer.warmup_samples": 0,
        **extra,
    }
    return [f"{key}={value}" for key, value in settings.items()]
