"""The flow loss along the sampler's path: numbers by which any two transformers on the same latents can be compared,
whatever they were trained on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch

from sora2.data.loader import DatasetConfig, LoaderConfig, build_loader
from sora2.diffusion.noise_levels import LevelConfig
from sora2.diffusion.training import DiffusionConfig, make_training_example, training_loss
from sora2.generate.checkpoint import load_model, read_checkpoint

#: Task -> the streams whose loss it has.
TASKS = {
    "text_to_av": ("video", "audio"),
    "video_to_audio": ("audio",),
    "audio_to_video": ("video",),
    "extend_forward": ("video", "audio"),
}
BATCH = 32


@torch.no_grad()
def path_losses(
    folder: Path, shards: Path, clips: int, shift: dict[str, float], *, seed: int = 0
) -> dict[str, float]:
    """Mean squared error of the velocity on held-out latents, "text_to_av/video" and so on.

    Raw levels are uniform, both modalities share them through `shift`, as a sampler's steps do; clips, levels and noise
    are the same for every checkpoint. float32.

    Raises:
        DataError: latents of other codecs than the checkpoint's.
    """
    checkpoint = read_checkpoint(folder)
    model = load_model(checkpoint)
    levels = LevelConfig(uniform=1.0, shift=shift, pairing={"shared": 1.0})
    settings = LoaderConfig(datasets=(DatasetConfig(str(shards)),), batch_size=BATCH, workers=0, seed=seed)
    stream = build_loader(settings, checkpoint.config["codecs"].get("fingerprints"))
    batches = list(islice(iter(stream), -(-clips // BATCH)))
    stream.close()
    found: dict[str, list[float]] = {}
    for task, streams in TASKS.items():
        config = DiffusionConfig(
            mixture={task: 1.0},
            text_dropout=0.0,
            modality_dropout={"video": 0.0, "audio": 0.0},
            levels=levels,
        )
        for i, batch in enumerate(batches):
            generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + i)
            noised, target = make_training_example(batch, config, generator)
            _, named = training_loss(model(noised), noised, target, config)
            for name in streams:
                found.setdefault(f"{task}/{name}", []).append(float(named[name]))
    return {name: sum(values) / len(values) for name, values in found.items()}
