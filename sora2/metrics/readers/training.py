"""The attribute readers as a run of `sora2 train`: raw clips with their truth in, one loss per attribute out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from sora2.atomic import save_safetensors, save_text
from sora2.config import ConfigError, from_mapping, to_mapping
from sora2.data.loader import LoaderConfig
from sora2.metrics.readers.attributes import ATTRIBUTES, asked_attributes
from sora2.metrics.readers.damage import (
    DamageConfig,
    cut_start,
    damage_picture,
    damage_sound,
    mirrored_truth,
    turned,
)
from sora2.metrics.readers.network import AttributeReader, ReaderConfig, forward_flops
from sora2.train.config import TrainConfig
from sora2.train.recipe import LossOutput, Progress, Recipe


class ReaderRecipe(Recipe):
    """Cross-entropy of each attribute over the clips that it is asked of, averaged over attributes.

    An attribute that n clips of the batch are asked of weighs as the root of n: one clip of a rare scene shall not
    decide the step, nor shall the common attributes drown the rare ones.
    """

    outer_layers = ("heads.", "model.query", "pathway", "stem.0")

    def __init__(self, config: ReaderConfig, damage_config: DamageConfig) -> None:
        super().__init__()
        self.model = AttributeReader(config)
        self.damage = damage_config
        self._flops: dict[tuple[int, ...], float] = {}

    def losses(self, batch: Any, generator: torch.Generator, progress: Progress) -> dict[str, LossOutput]:
        truths, mirror = truths_of(batch), bool(torch.rand(1, generator=generator) < self.damage.mirror)
        video, audio = cut_start(
            batch["video"], batch["audio"], self.damage, generator, batch["fps"], batch["sample_rate"]
        )
        stills, grey = self.model.views(video)
        if mirror:
            # bars of an instrument are low on the left, whichever way one looks
            turns = torch.tensor([t["scene"] != "strike" for t in truths], device=video.device)
            truths = [
                mirrored_truth(t) if turn else t for t, turn in zip(truths, turns.tolist(), strict=True)
            ]
            stills, grey = (turned(x, turns, axis=-1) for x in (stills, grey))
            audio = turned(audio, turns, axis=1)
        stills, grey = damage_picture(stills, grey, self.damage, generator)
        audio = damage_sound(audio, self.damage, generator)
        losses = attribute_losses(self.model.read(stills, grey, audio), truths)
        weight = torch.tensor([count**0.5 for _, count in losses.values()], device=video.device)
        total = (torch.stack([value for value, _ in losses.values()]) * weight).sum() / weight.sum()
        return {"main": LossOutput(total, {name: value.detach() for name, (value, _) in losses.items()})}

    def batch_size(self, batch: Any) -> int:
        return len(batch["video"])

    def tokens(self, batch: Any) -> int:
        """Pixels of the batch."""
        return batch["video"].numel() // 3

    def forward_flops(self, batch: Any) -> float:
        shape = tuple(batch["video"].shape)
        if shape not in self._flops:
            self._flops[shape] = forward_flops(self.model.config, shape, tuple(batch["audio"].shape))
        return self._flops[shape]

    def export(self, folder: Path, averaged_state: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Averaged weights in half precision, and a config that says what they read."""
        averaged = {name.removeprefix("model."): tensor for name, tensor in averaged_state.items()}
        weights = {name: averaged.get(name, own) for name, own in self.model.state_dict().items()}
        half = {n: t.detach().cpu().half() if t.is_floating_point() else t.cpu() for n, t in weights.items()}
        save_safetensors({n: t.contiguous() for n, t in half.items()}, folder / "model.safetensors")
        stored = {
            "kind": "attribute_readers",
            "config": to_mapping(self.model.config),
            "attributes": {name: list(a.choices) for name, a in ATTRIBUTES.items()},
            "info": info,
        }
        save_text(json.dumps(stored, indent=1) + "\n", folder / "config.json")


def attribute_losses(
    logits: dict[str, Tensor], truths: list[dict[str, Any]]
) -> dict[str, tuple[Tensor, int]]:
    """Attribute -> (mean loss over the clips that it is asked of, their number); without those of no clip."""
    asked = [asked_attributes(truth) for truth in truths]
    found: dict[str, tuple[Tensor, int]] = {}
    for name, attribute in ATTRIBUTES.items():
        rows = [i for i, answers in enumerate(asked) if name in answers]
        if not rows:
            continue
        own = logits[name][rows]  # (rows, choices)
        if attribute.several:
            wanted = torch.tensor(
                [[float(c in asked[i][name]) for c in attribute.choices] for i in rows], device=own.device
            )
            loss = F.binary_cross_entropy_with_logits(own, wanted)
        else:
            index = [attribute.choices.index(str(asked[i][name])) for i in rows]
            loss = F.cross_entropy(own, torch.tensor(index, device=own.device), label_smoothing=0.02)
        found[name] = (loss, len(rows))
    return found


def truths_of(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The truth of every clip of a raw batch.

    Raises `ConfigError` when a clip has none: readers learn from shards of `sora2 toybox`.
    """
    for key, meta in zip(batch["keys"], batch["metas"], strict=True):
        if "truth" not in meta:
            raise ConfigError(
                f"clip {key!r} has no truth: attribute readers train on shards of `sora2 toybox`"
            )
    return [meta["truth"] for meta in batch["metas"]]


def reader_config(config: TrainConfig) -> ReaderConfig:
    return from_mapping(ReaderConfig, config.model, "model")


def loader_config(config: TrainConfig) -> LoaderConfig:
    loader = from_mapping(LoaderConfig, {**config.data, "seed": config.seed}, "data")
    if loader.kind != "raw" or loader.window is not None or loader.mirror:
        raise ConfigError(
            "data: attribute readers train on whole raw clips: set data.kind=raw data.window=null data.mirror=0 "
            "(they are mirrored together with their truth)"
        )
    return loader


def latent_fingerprints(config: TrainConfig) -> None:
    """Readers see pixels and samples: there are no latents to check."""
    return None


def plan(config: TrainConfig) -> list[tuple[str, str]]:
    with torch.device("meta"):
        network = AttributeReader(reader_config(config))
    count = sum(p.numel() for p in network.parameters())
    return [("readers", f"{len(ATTRIBUTES)} attributes, {count / 1e6:.2f} M parameters")]


def build(config: TrainConfig, fingerprints: None) -> ReaderRecipe:
    """The recipe with freshly initialised weights, a pure function of `config.seed`."""
    torch.manual_seed(config.seed)
    return ReaderRecipe(reader_config(config), from_mapping(DamageConfig, config.task, "task"))


def callbacks(config: TrainConfig, folder: Path) -> list[L.Callback]:
    return []
