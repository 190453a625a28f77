"""The flow loss along the sampler's path, and what one modality tells of the other: numbers by which transformers on
the same latents can be compared, whatever they were trained on, long before their clips can be judged."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from sora2.data.loader import DatasetConfig, LoaderConfig, build_loader
from sora2.diffusion.noise_levels import LevelConfig
from sora2.diffusion.training import DiffusionConfig, make_training_example, training_loss
from sora2.generate.checkpoint import load_model, read_checkpoint
from sora2.types import Batch

#: Task -> the streams whose loss it has.
TASKS = {
    "text_to_av": ("video", "audio"),
    "video_to_audio": ("audio",),
    "audio_to_video": ("video",),
    "extend_forward": ("video", "audio"),
}
#: Task -> (the stream that is given, the stream that is made): whose match is measured.
MATCHES = {"video_to_audio": ("video", "audio"), "audio_to_video": ("audio", "video")}
BATCH = 32


@torch.no_grad()
def path_losses(
    folder: Path,
    shards: Path,
    clips: int,
    shift: dict[str, float],
    *,
    tasks: Collection[str] = tuple(TASKS),
    seed: int = 0,
) -> dict[str, float]:
    """Mean squared error of the velocity on held-out latents, "text_to_av/video" and so on, and how well each modality
    is recognised from the other: "video_to_audio/match", "video_to_audio/gain" and the same of "audio_to_video".

    Raw levels are uniform, both modalities share them through `shift`, as a sampler's steps do; clips, levels and noise
    are the same for every checkpoint. float32. A clip is matched where its sound has the lower loss beside its own
    pictures than beside those of another clip, with its own caption both times: chance is 0.5, and what the caption
    says does not help. The gain is the share of the loss beside the others that its own take away.

    Raises:
        DataError: latents of other codecs than the checkpoint's.
    """
    checkpoint = read_checkpoint(folder)
    model = load_model(checkpoint)
    levels = LevelConfig(uniform=1.0, shift=shift, pairing={"shared": 1.0})
    settings = LoaderConfig(
        datasets=(DatasetConfig(str(shards)),),
        batch_size=BATCH,
        workers=0,
        seed=seed,
        patch_size=checkpoint.model.patch_size,
        max_text_tokens=0,  # as long as the captions are
    )
    stream = build_loader(settings, checkpoint.config["codecs"].get("fingerprints"))
    batches = list(islice(iter(stream), -(-clips // BATCH)))
    stream.close()
    found: dict[str, list[float]] = {}
    for task in tasks:
        config = DiffusionConfig(
            mixture={task: 1.0},
            text_dropout=0.0,
            modality_dropout={"video": 0.0, "audio": 0.0},
            levels=levels,
        )
        for i, batch in enumerate(batches):
            generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + i)
            noised, target = make_training_example(batch, config, generator)
            velocity = model(noised)
            _, named = training_loss(velocity, noised, target, config)
            for name in TASKS[task]:
                found.setdefault(f"{task}/{name}", []).append(float(named[name]))
            if task in MATCHES:
                given, made = MATCHES[task]
                other = _beside_another(noised, given)
                own_loss = _clip_losses(velocity[made], noised, target, made)
                other_loss = _clip_losses(model(other)[made], other, target, made)
                found.setdefault(f"{task}/match", []).append(float((own_loss < other_loss).float().mean()))
                found.setdefault(f"{task}/gain", []).append(float(1 - own_loss.sum() / other_loss.sum()))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _beside_another(noised: Batch, given: str) -> Batch:
    """The batch with each clip's `given` stream exchanged for that of the clip before it."""
    stream = getattr(noised, given)
    moved = {k: getattr(stream, k).roll(1, dims=0) for k in ("latent", "noise_level", "mask")}
    return noised.replace(**{given: stream.replace(**moved)})


def _clip_losses(velocity: Tensor, noised: Batch, target: dict[str, Tensor], name: str) -> Tensor:
    """(B,) mean squared error of the velocity (B, N, C) over the noised tokens of each clip."""
    stream = getattr(noised, name)
    counted = stream.mask & (stream.noise_level > 0)  # (B, N)
    error = (velocity.float() - target[name]).square().mean(dim=-1)  # (B, N)
    return torch.where(counted, error, 0.0).sum(dim=1) / counted.sum(dim=1)
