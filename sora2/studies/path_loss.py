"""The flow loss along the sampler's path, and what one modality tells of the other: numbers by which transformers on
the same latents can be compared, whatever they were trained on, long before their clips can be judged."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from sora2.codecs.quotes import other_words, quoted
from sora2.codecs.text import TextEncoder, text_modality
from sora2.data.errors import DataError
from sora2.data.loader import DatasetConfig, LoaderConfig, build_loader
from sora2.diffusion.noise_levels import LevelConfig
from sora2.diffusion.training import DiffusionConfig, make_training_example, training_loss
from sora2.generate.checkpoint import load_model, read_checkpoint, text_encoder
from sora2.types import Batch

#: Task -> the streams whose loss it has.
TASKS = {
    "text_to_av": ("video", "audio"),
    "video_to_audio": ("audio",),
    "audio_to_video": ("video",),
    "extend_forward": ("video", "audio"),
    "audio_only": ("audio",),
}
#: What a study measures unless it says otherwise.
USUAL = ("text_to_av", "video_to_audio", "audio_to_video", "extend_forward")
#: Task -> (the stream that is given, the stream that is made): whose match is measured.
MATCHES = {
    "video_to_audio": ("video", "audio"),
    "audio_to_video": ("audio", "video"),
    "audio_only": ("text", "audio"),
}
BATCH = 32


@torch.no_grad()
def path_losses(
    folder: Path,
    shards: Path,
    clips: int,
    shift: dict[str, float],
    *,
    tasks: Collection[str] = USUAL,
    seed: int = 0,
) -> dict[str, float]:
    """Mean squared error of the velocity on held-out latents, "text_to_av/video" and so on, and how well each modality
    is recognised from the other: "video_to_audio/match", "video_to_audio/gain" and the same of "audio_to_video". Of
    "audio_only" they say how well sound is recognised from the words in quotes of its caption.

    Raw levels are uniform, both modalities share them through `shift`, as a sampler's steps do; clips, levels and noise
    are the same for every checkpoint. float32. A clip is matched where its sound has the lower loss beside its own
    pictures than beside those of another clip, with its own caption both times: chance is 0.5, and what the caption
    says does not help. The gain is the share of the loss beside the others that its own take away. With "audio_only"
    only clips that say something count, and beside another's means: the same caption with another's words in quotes.

    Raises:
        DataError: latents of other codecs than the checkpoint's, "audio_only" without two clips that say something.
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
    encoder = text_encoder(checkpoint) if "audio_only" in tasks else None
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
                own_loss = _clip_losses(velocity[made], noised, target, made)
                if given == "text":
                    assert encoder is not None
                    other, rows = _with_other_words(noised, encoder)
                else:
                    other, rows = _beside_another(noised, given), torch.ones(batch.size, dtype=torch.bool)
                if not rows.any():
                    continue
                other_loss = _clip_losses(model(other)[made], other, target, made)[rows]
                own_loss = own_loss[rows]
                found.setdefault(f"{task}/match", []).append(float((own_loss < other_loss).float().mean()))
                found.setdefault(f"{task}/gain", []).append(float(1 - own_loss.sum() / other_loss.sum()))
        if task == "audio_only" and f"{task}/match" not in found:
            raise DataError(f"{shards}: no two of the first {clips} clips say something in quotes")
    return {name: sum(values) / len(values) for name, values in found.items()}


def _beside_another(noised: Batch, given: str) -> Batch:
    """The batch with each clip's `given` stream exchanged for that of the clip before it."""
    stream = getattr(noised, given)
    moved = {k: getattr(stream, k).roll(1, dims=0) for k in ("latent", "noise_level", "mask")}
    return noised.replace(**{given: stream.replace(**moved)})


def _with_other_words(noised: Batch, encoder: TextEncoder) -> tuple[Batch, Tensor]:
    """The batch with the quoted words of each clip that says something (B,) exchanged for those of the one before."""
    says = torch.tensor([bool(quoted(caption)) for caption in noised.captions])
    rows = says.nonzero()[:, 0].tolist()
    captions = list(noised.captions)
    for row, before in zip(rows, [rows[-1:], *([r] for r in rows)], strict=False):
        captions[row] = other_words(noised.captions[row], quoted(noised.captions[before[0]]))
    return noised.replace(text=text_modality(encoder, captions)), says if len(rows) > 1 else torch.zeros_like(
        says
    )


def _clip_losses(velocity: Tensor, noised: Batch, target: dict[str, Tensor], name: str) -> Tensor:
    """(B,) mean squared error of the velocity (B, N, C) over the noised tokens of each clip."""
    stream = getattr(noised, name)
    counted = stream.mask & (stream.noise_level > 0)  # (B, N)
    error = (velocity.float() - target[name]).square().mean(dim=-1)  # (B, N)
    return torch.where(counted, error, 0.0).sum(dim=1) / counted.sum(dim=1)
