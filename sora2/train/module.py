"""The Lightning module around a recipe: accumulation, clipping, the finiteness guard, EMA, exact state.

What is learned, and how, is in the recipe (`step.py` for the transformer); here is only what every recipe shares.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from sora2.config import to_mapping
from sora2.errors import UserError
from sora2.host import Arriving
from sora2.train.agreement import any_process
from sora2.train.config import OptimizerConfig, TrainConfig
from sora2.train.ema import PowerEMA, named_parameters
from sora2.train.optimizer import build_optimizer
from sora2.train.parts import to_store, whole
from sora2.train.recipe import LossOutput, Progress, Recipe
from sora2.train.sharding import shard, share_sequences


class NonFiniteError(UserError):
    """A loss or gradient became NaN or infinite; nothing that came of it was stored."""


@dataclass(frozen=True)
class StepCheck:
    """What must be finite for a step to count, on its way to the host, and what the step was."""

    numbers: Arriving  # gradient norms and losses
    norms: list[Tensor]
    losses: dict[str, Tensor]
    samples_before: int
    keys: list[str]

    def refuse(self, updated: bool) -> None:
        """Raises `NonFiniteError` unless all is finite. `updated`: whether the optimizer was let go ahead meanwhile."""
        if torch.isfinite(self.numbers.read()).all():
            return
        losses = {name: float(value) for name, value in self.losses.items()}
        raise NonFiniteError(
            f"non-finite loss or gradient after {self.samples_before} samples: gradient norms "
            f"{[float(n) for n in self.norms]}, losses of the last micro-batch {losses}. "
            f"{'Nothing of it was stored' if updated else 'Nothing was updated'}. "
            f"Samples of this step: {', '.join(self.keys)}. Inspect them with `sora2 inspect`, or resume from "
            "the last checkpoint with a lower optimizer.lr."
        )


def keyed_generator(*key: int) -> torch.Generator:
    """A generator on the CPU whose stream is a pure function of `key`, such as (seed, rank, samples seen).

    Random draws never depend on what was drawn before, so a resumed run repeats an uninterrupted one.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def learning_rate(base: float, config: OptimizerConfig, progress: Progress) -> float:
    """Linear warm-up, then constant, half-cosine or stable with a decay of 1 - sqrt at the end, over samples seen.

    Source of the last: Haegele et al. 2024 (arXiv:2405.18392). Until it decays a run does not depend on its length, so
    its checkpoints can be trained longer, or brought to an end from where they are.
    """
    if config.warmup_samples > 0 and progress.samples_seen < config.warmup_samples:
        return base * (progress.samples_seen + 1) / (config.warmup_samples + 1)
    if config.schedule == "constant":
        return base
    if config.schedule == "wsd":
        decayed = max(0.0, 1 - (1 - progress.fraction) / config.decay_fraction)
        decay = 1 - math.sqrt(decayed)
    else:
        decay = 0.5 * (1 + math.cos(math.pi * progress.fraction))
    return base * (config.final_lr_fraction + (1 - config.final_lr_fraction) * decay)


def base_rate(config: OptimizerConfig, optimizer: str, group: dict[str, Any]) -> float:
    """The configured rate of a parameter group, before the schedule."""
    if optimizer != "main":
        return config.discriminator_lr
    return config.muon_lr if group.get("muon", False) else config.lr


class TrainingModule(L.LightningModule):
    """Trains a `Recipe`. One call of `training_step` is one micro-batch."""

    def __init__(self, recipe: Recipe, config: TrainConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.recipe = recipe
        self.config = config
        self.samples_seen = 0  # over all ranks
        self.step_keys: list[str] = []  # samples of the step in progress, for the error message of the guard
        self.latest: dict[str, Tensor] = {}  # named losses of the last micro-batch
        self.latest_totals: dict[str, Tensor] = {}
        self.grad_norm: Tensor | None = None
        self._micro_batches = 0
        self._idle: set[str] | None = None  # parameters that this process has not met in this step
        self._samples_at_step_start = 0
        self._unchecked: StepCheck | None = None
        self.ema: PowerEMA | None = None

    def averaged_parameters(self) -> dict[str, Tensor]:
        return named_parameters({name: getattr(self.recipe, name) for name in self.recipe.averaged})

    def configure_model(self) -> None:
        t = self.config.trainer
        if t.strategy == "fsdp" and not isinstance(getattr(self.recipe, self.recipe.averaged[0]), FSDPModule):
            shard(self.recipe, self.trainer.strategy.root_device, t.processes, t.shard_devices or t.processes)
        if t.sequence_devices > 1:
            share_sequences(self.recipe, t.processes, t.sequence_devices)

    def on_fit_start(self) -> None:
        if self.ema is None:
            self.ema = PowerEMA(self.averaged_parameters(), self.config.ema.sigma_rel)
        self.ema.to(self.device)  # a checkpoint is read before the network is on its device

    @property
    def progress(self) -> Progress:
        return Progress(self.samples_seen, self.config.trainer.max_samples)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        o = self.config.optimizer
        dtype = self.config.trainer.product_dtype
        names = {id(p): name for name, p in self.recipe.named_parameters()}
        optimizers = []
        for parameters in self.recipe.optimizer_groups().values():
            named = {names[id(p)]: p for p in parameters}
            optimizers.append(build_optimizer(named, o, self.recipe.outer_layers, dtype))
        return optimizers

    def training_step(self, batch: Any, batch_index: int) -> None:
        accumulate = self.config.trainer.accumulate
        if self._micro_batches == 0:
            self._samples_at_step_start = self.samples_seen
            self.step_keys = []
        self.step_keys += list(batch["keys"] if isinstance(batch, dict) else batch.keys)

        together = self.config.trainer.sequence_devices
        generator = keyed_generator(self.config.seed, self.global_rank // together, self.samples_seen)
        outputs = self.recipe.losses(batch, generator, self.progress)
        for output in outputs.values():
            # gradients are averaged over all processes: those of one sequence are to be added up
            self.manual_backward(output.total * together / accumulate)

        if self.config.trainer.strategy == "fsdp":
            idle = self.recipe.idle_parameters(batch)
            self._idle = idle if self._idle is None else self._idle & idle
        self._record(outputs)
        self.samples_seen += self.recipe.batch_size(batch) * self.config.trainer.replicas
        self._micro_batches += 1
        if self._micro_batches == accumulate:
            self._micro_batches = 0
            self._optimizer_step(outputs)

    def _record(self, outputs: dict[str, LossOutput]) -> None:
        self.latest_totals = {name: output.total.detach() for name, output in outputs.items()}
        self.latest = {name: value for output in outputs.values() for name, value in output.named.items()}

    def _optimizer_step(self, outputs: dict[str, LossOutput]) -> None:
        o = self.config.optimizer
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        groups = self.recipe.optimizer_groups()
        self._drop_idle_gradients()
        norms = [whole(torch.nn.utils.clip_grad_norm_(p, o.grad_clip)) for p in groups.values()]
        self.grad_norm = norms[0]
        checked = torch.stack([*norms, *(t.to(norms[0]) for t in self.latest_totals.values())])
        losses = {**self.latest_totals, **self.latest}
        this = StepCheck(Arriving(checked), norms, losses, self._samples_at_step_start, self.step_keys)
        self.settle()
        self._unchecked = this
        if not self.looks_back:
            self.settle()
        begun = Progress(self._samples_at_step_start, self.progress.max_samples)
        for name, optimizer in zip(groups, optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(base_rate(o, name, group), o, begun)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(
                self.averaged_parameters(), self.samples_seen, self.samples_seen - self._samples_at_step_start
            )

    def _drop_idle_gradients(self) -> None:
        """Leave parameters that no process has met as they are. FSDP gives them gradients of zero, for it must reduce
        the same ones on every process."""
        idle, self._idle = self._idle, None
        if idle is None:
            return
        named = dict(self.recipe.named_parameters())
        for (_, p), met in zip(named.items(), any_process(*(n not in idle for n in named)), strict=True):
            if not met:
                p.grad = None

    @property
    def looks_back(self) -> bool:
        """Whether a step is checked when the next one has been asked for: a GPU would stand still while its host waits
        for the answer. What a refused step spoils is never stored."""
        return self.device.type == "cuda"

    def settle(self) -> None:
        """Check the last step, if it was not; to be called before anything is stored. Raises `NonFiniteError`."""
        last, self._unchecked = self._unchecked, None
        if last is not None:
            last.refuse(updated=self.looks_back)

    @property
    def at_step_boundary(self) -> bool:
        """True between optimizer steps: the only moments at which a checkpoint is exact."""
        return self._micro_batches == 0

    def export(self, folder: Path, index: int = 0) -> None:
        """Write the averaged weights for inference, of the width `ema.sigma_rel[index]`, to `folder`."""
        assert self.ema is not None
        self.export_weights(folder, self.ema.average(index), self.ema.sigma_rel[index])

    def export_weights(self, folder: Path, weights: dict[str, Tensor], sigma_rel: float | None) -> None:
        """Write weights in the place of `averaged_parameters` as safetensors and a config, no pickles.

        All processes of a run must call it; the first one writes.

        sigma_rel: the width over which they were averaged; None: not averaged.
        """
        self.settle()
        weights = {name: to_store(value) for name, value in weights.items()}
        if self.global_rank != 0:
            return
        info = {
            "samples_seen": self.samples_seen,
            "sigma_rel": sigma_rel,
            "training": to_mapping(self.config),
        }
        self.recipe.export(folder, weights, info)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.settle()
        checkpoint["sora2"] = {
            "samples_seen": self.samples_seen,
            "config": to_mapping(self.config),
            "ema": {} if self.ema is None else self.ema.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["sora2"]
        self.samples_seen = saved["samples_seen"]
        self.ema = PowerEMA(self.averaged_parameters(), self.config.ema.sigma_rel)
        self.ema.load_state_dict(saved["ema"])
