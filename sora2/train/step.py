"""The training step of the joint audio-video transformer: batch -> noise -> model -> loss, on one screen.

A batch is one packed sequence of clean latents per clip. A task (foley, image to video, extension ...) is nothing
but a map of noise levels over its tokens, so there is one model, one loss, and no branch on the task anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from sora2.codecs import Codecs, load_codecs
from sora2.codecs.speech_text import MARKS
from sora2.codecs.text import LETTERS, SPEECH
from sora2.config import ConfigError, from_mapping, to_mapping
from sora2.data.loader import LoaderConfig
from sora2.diffusion.training import DiffusionConfig, make_training_example, training_loss
from sora2.model import Transformer, TransformerConfig
from sora2.model import build as build_transformer
from sora2.model.flops import attention_pairs, count_parameters, forward_flops, memory
from sora2.train.config import TrainConfig
from sora2.train.optimizer import state_values
from sora2.train.recipe import LossOutput, Progress, Recipe
from sora2.types import Batch, clean_modality
from sora2.weights import write_checkpoint


class DiffusionRecipe(Recipe):
    """Flow matching on packed video, audio, reference and text tokens with per-token noise levels."""

    averaged = ("model",)
    outer_layers = ("project_in", "project_out", "kind", "timed_text", "table", "modulation", "qk_norm")

    def __init__(
        self,
        model: Transformer,
        diffusion: DiffusionConfig,
        info: dict[str, Any],
        export_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model = model
        self.diffusion = diffusion
        self.info = info  # what inference needs beside the weights: model, codecs, clip, sampling
        self.export_dtype = export_dtype

    def losses(self, batch: Batch, generator: torch.Generator, progress: Progress) -> dict[str, LossOutput]:
        # x_t = (1 - t) x_0 + t eps, with a level t per token drawn for this clip's task; target v = eps - x_0
        noised, target = make_training_example(batch, self.diffusion, generator)
        velocity = self.model(noised)  # {"video": (B, N_v, C), "audio": (B, N_a, C)}
        # mean over tokens with t > 0 of || velocity - v ||^2, per modality, and by bucket of t for the log
        total, named = training_loss(velocity, noised, target, self.diffusion)
        return {"main": LossOutput(total, named)}

    def batch_size(self, batch: Batch) -> int:
        return batch.size

    def read_weights(self, path: Path) -> dict[str, Tensor]:
        """Of an export. One that had no letters of speech to read meets them as large as the words of its captions.

        From nothing they would not be heard for long: tokens of letters would all be alike beside those of words.
        """
        weights, text = super().read_weights(path), "project_in.text.weight"
        columns = self.model.config.text_width - weights[text].shape[1] if text in weights else 0
        if self.info["codecs"]["text"].endswith((LETTERS, SPEECH)) and columns == MARKS:
            new = torch.randn(len(weights[text]), columns, generator=torch.Generator().manual_seed(0))
            weights[text] = torch.cat([weights[text], new * weights[text].square().mean().sqrt()], dim=1)
        return weights

    def idle_parameters(self, batch: Batch) -> set[str]:
        return {f"model.{name}" for name in self.model.idle_parameters(batch.modalities())}

    def tokens(self, batch: Batch) -> int:
        return batch.size * sum(m.tokens for m in batch.modalities().values())

    def forward_flops(self, batch: Batch) -> float:
        tokens = {name: m.tokens for name, m in batch.modalities().items()}
        pairs = attention_pairs(self.model.config, batch)
        return batch.size * forward_flops(self.model.config, tokens, attention_pairs=pairs)

    def export(self, folder: Path, averaged_state: dict[str, Tensor], info: dict[str, Any]) -> None:
        weights = {name.removeprefix("model."): value for name, value in averaged_state.items()}
        write_checkpoint(folder, weights, self.export_dtype, {**self.info, **info})


def model_config(config: TrainConfig, codecs: Codecs) -> TransformerConfig:
    """The checked `model` section; token widths and spreads that it leaves open are those of the codecs.

    Raises:
        ConfigError: a width that is not what the codec makes.
    """
    clip, values = config.clip, dict(config.model)
    video = codecs.video_shape(clip.frames, clip.height, clip.width, clip.fps, patch_size=patch_size(config))
    widths = codecs.token_widths(video, codecs.audio_shape(video.seconds))
    for group, width in widths.items():
        key = f"{group}_width"
        if values.get(key) is None:
            values[key] = width
        elif values[key] != width:
            raise ConfigError(
                f"model.{key}={values[key]}, but a {group} token of {getattr(config.codecs, group)} has {width} "
                f"numbers: set model.{key}=null, or name another codec in codecs.{group}"
            )
    for group, spread in codecs.spreads().items():
        if values.get(f"{group}_spread") is None:
            values[f"{group}_spread"] = spread
    return from_mapping(TransformerConfig, values, "model")


def open_codecs(config: TrainConfig) -> Codecs:
    """The frozen codecs of the run.

    Raises:
        ConfigError: a text encoder that would cut prompts shorter than the captions of the data.
    """
    paths = config.codecs
    codecs = load_codecs(paths.video, paths.audio, paths.text, paths.text_tokens)
    longest = loader_config(config).max_text_tokens
    if codecs.text is not None and codecs.text.max_tokens < longest:
        raise ConfigError(
            f"codecs.text={paths.text} cuts prompts at {codecs.text.max_tokens} tokens, but "
            f"data.max_text_tokens={longest}: set codecs.text_tokens={longest}"
        )
    return codecs


def loader_config(config: TrainConfig) -> LoaderConfig:
    if "patch_size" in config.data:
        raise ConfigError(
            f"data.patch_size={config.data['patch_size']} is not a setting: set model.patch_size"
        )
    return from_mapping(
        LoaderConfig, {**config.data, "seed": config.seed, "patch_size": patch_size(config)}, "data"
    )


def patch_size(config: TrainConfig) -> int:
    """Latent cells per side of a video token, checked before there are codecs to measure tokens by."""
    given = {name: value for name, value in config.model.items() if name == "patch_size"}
    return from_mapping(TransformerConfig, given, "model").patch_size


def latent_fingerprints(config: TrainConfig) -> dict[str, str]:
    """Of the codecs that the latents must have been made with. Raises when a codec's weights are missing."""
    return open_codecs(config).fingerprints()


def plan(config: TrainConfig) -> list[tuple[str, str]]:
    """Rows of the printed plan: parameters, tokens, FLOPs, memory. Computed without allocating the model."""
    DiffusionConfig.from_dict(config.task)
    clip, count = config.clip, _count(config)
    density = count.pairs / (count.settings.depth * sum(count.tokens.values()) ** 2)
    chunk, total = count.settings.attention.chunk_seconds, sum(count.tokens.values())
    widest = _count(config, references=True) if _has_references(config) else count
    beside = sum(widest.tokens.values()) - total
    more = f", and {beside} of a person's face and voice where clips have references" if beside else ""
    return [
        ("model", f"{count_parameters(count.settings) / 1e6:.1f} M parameters"),
        ("clip", f"{clip.frames} frames {clip.height} x {clip.width} at {clip.fps:g} fps, {clip.sample_rate} Hz"),
        ("tokens", f"{total} = " + " + ".join(f"{n} {name}" for name, n in count.tokens.items()) + more),
        ("attention", f"{density:.3f} of all pairs" + ("" if chunk is None else f", causal by chunks of {chunk:g} s")),
        ("compute", f"{count.flops / 1e9:.1f} GFLOP per sample (forward and backward)"),
        ("memory", _memory(config, widest)),
    ]  # fmt: skip


def _memory(config: TrainConfig, count: _Count) -> str:
    t, batch = config.trainer, loader_config(config).batch_size
    shards = (t.shard_devices or t.processes) if t.strategy == "fsdp" else 1
    weights = dict(build_transformer(count.settings, device="meta").named_parameters())
    needed = memory(
        count.settings,
        {name: -(-n // t.sequence_devices) for name, n in count.tokens.items()},
        batch,
        activation_bytes=t.product_dtype.itemsize,
        optimizer_values=state_values(weights, config.optimizer, DiffusionRecipe.outer_layers)
        + len(config.ema.sigma_rel),
        shards=shards,
        checkpointing=t.activation_checkpointing,
    )
    shared = "" if t.sequence_devices == 1 else f", shared by {t.sequence_devices}"
    spread = "" if shards == 1 else f", spread over {shards}"
    return (
        f"{needed.total / 2**30:.1f} GiB a device: {needed.state / 2**30:.1f} of weights, gradients, optimizer and "
        f"averages{spread}; {needed.activations / 2**30:.1f} of activations of {batch} samples{shared}"
    )


@dataclass(frozen=True)
class _Count:
    settings: TransformerConfig
    tokens: dict[str, int]
    pairs: int  # of attention, over all layers
    flops: float  # of a sample, forward and backward


def _count(config: TrainConfig, references: bool = False) -> _Count:
    clip, codecs = config.clip, open_codecs(config)
    settings = model_config(config, codecs)
    video = codecs.video_shape(clip.frames, clip.height, clip.width, clip.fps, patch_size=settings.patch_size)
    audio = codecs.audio_shape(video.seconds)
    places = {
        "text": torch.zeros(codecs.text.max_tokens, 3),
        "video": video.positions(),
        "audio": audio.positions(),
    }
    if references:
        places |= {"reference_video": video.still.positions(), "reference_audio": audio.positions()}
    tokens = {name: len(place) for name, place in places.items()}
    empty = {name: clean_modality(torch.zeros(1, len(place), 1), place) for name, place in places.items()}
    pairs = attention_pairs(settings, Batch(**empty, video_shape=video, audio_shape=audio))  # type: ignore[arg-type]
    flops = 3 * forward_flops(settings, tokens, attention_pairs=pairs)
    dense = settings.depth * sum(tokens.values()) ** 2
    return _Count(settings, tokens, dense if pairs is None else sum(pairs), flops)


def _has_references(config: TrainConfig) -> bool:
    """Whether some of its clips lie beside another clip of their person."""
    return any(d.references > 0 for d in loader_config(config).datasets)


def flops_per_sample(config: TrainConfig) -> float:
    """Of one training sample, forward and backward, a multiply-add counted as two."""
    return _count(config).flops


def build(config: TrainConfig, fingerprints: dict[str, str]) -> DiffusionRecipe:
    """The recipe with freshly initialised weights, a pure function of `config.seed`."""
    torch.manual_seed(config.seed)
    model_settings = model_config(config, open_codecs(config))
    diffusion = DiffusionConfig.from_dict(config.task)
    info = {
        "model": to_mapping(model_settings),
        "codecs": {**to_mapping(config.codecs), "fingerprints": fingerprints},
        "clip": to_mapping(config.clip),
        "diffusion": to_mapping(diffusion),
        "references": _has_references(config),
        "sampling": config.sampling,
    }
    stored = getattr(torch, config.trainer.export_dtype)
    return DiffusionRecipe(build_transformer(model_settings), diffusion, info, stored)


def callbacks(config: TrainConfig, folder: Path) -> list[L.Callback]:
    if config.trainer.render_every_samples is None:
        return []
    from sora2.train.render import SampleRenderer  # here, for it writes films, and most runs do not

    return [
        SampleRenderer(folder / "samples", config.trainer.render_every_samples, config.trainer.render_prompts)
    ]
