"""The loss on held-out clips during training: of the averaged weights, always on the same clips with the same noise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import lightning as L
import torch
from tqdm import tqdm

from sora2.config import ConfigError
from sora2.data.loader import DatasetConfig, LoaderConfig, build_loader
from sora2.train.callbacks import Every
from sora2.train.config import ValidationConfig
from sora2.train.module import TrainingModule, keyed_generator
from sora2.train.parts import local


class Validator(L.Callback):
    """Logs validation/NAME for every named loss when another multiple of `every_samples` has been trained, and at the
    end. Its random numbers are its own: a run that is validated equals one that is not."""

    def __init__(
        self, config: ValidationConfig, loader: LoaderConfig, fingerprints: dict[str, str] | None
    ) -> None:
        if not config.datasets:
            raise ConfigError(
                f"validation.every_samples={config.every_samples} needs held-out shards: name their folders in "
                "validation.datasets"
            )
        self.config = config
        self.due = Every(config.every_samples)
        datasets = tuple(DatasetConfig(path) for path in config.datasets)
        self.loader = replace(loader, datasets=datasets, workers=0, cache_in_memory=False, drop={})
        self.fingerprints = fingerprints
        self.batches: list[Any] = []

    def on_train_start(self, trainer: L.Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        self.due.start(module.samples_seen)
        count = -(-self.config.clips // self.loader.batch_size)
        stream = build_loader(self.loader, self.fingerprints)
        self.batches = list(islice(iter(stream), count))
        stream.close()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not module.at_step_boundary:
            return
        if self.due.due(module.samples_seen) or trainer.should_stop:
            # by every process: the others would wait, and may hold a part of the weights
            losses = self.measure(trainer, module)
            if not trainer.is_global_zero:
                return
            for logger in trainer.loggers:
                logger.log_metrics(
                    {f"validation/{n}": v for n, v in losses.items()}, step=module.samples_seen
                )
            shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
            tqdm.write(f"validation at {module.samples_seen} samples: {shown}", file=sys.stderr)

    @torch.no_grad()
    def measure(self, trainer: L.Trainer, module: TrainingModule) -> dict[str, float]:
        """Means over the held-out batches; "main" is what training minimises. A loss that some batches do not have is
        the mean of those that do."""
        found: dict[str, list[float]] = {}
        data = trainer.datamodule  # type: ignore[attr-defined]
        with averaged_weights(module), trainer.precision_plugin.forward_context():
            for i, held in enumerate(self.batches):
                batch = data.transfer_batch_to_device(held, module.device, 0)
                generator = keyed_generator(0x5EED, i)
                output = module.recipe.losses(batch, generator, module.progress)["main"]
                for name, value in {"main": output.total, **output.named}.items():
                    if torch.isfinite(value):
                        found.setdefault(name, []).append(float(value))
        return {name: sum(values) / len(values) for name, values in found.items()}


@contextmanager
def averaged_weights(module: TrainingModule) -> Iterator[None]:
    """Evaluate with the exported average; the weights in training come back exactly."""
    assert module.ema is not None
    live = module.averaged_parameters()
    kept = {name: value.detach().clone() for name, value in live.items()}
    module.recipe.eval()
    try:
        for name, average in module.ema.average().items():
            local(live[name].detach()).copy_(local(average))
        yield
    finally:
        for name, value in kept.items():
            local(live[name].detach()).copy_(local(value))
        module.recipe.train()
