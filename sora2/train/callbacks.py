"""What happens around the steps: log lines, checkpoints, renders. Nothing here changes what is learned."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
from tqdm import tqdm

from sora2.train import checkpoint
from sora2.train.agreement import any_process
from sora2.train.module import TrainingModule
from sora2.train.throughput import ThroughputMeter


def _wait_seconds(trainer: L.Trainer) -> float:
    return trainer.datamodule.wait_seconds  # type: ignore[attr-defined]


class ProgressLine(L.Callback):
    """The bar on screen and the log: losses, throughput, MFU, data wait, memory, ETA."""

    def __init__(self, peak_flops: float) -> None:
        self.meter = ThroughputMeter(peak_flops)
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: L.Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        self.meter.reset(_wait_seconds(trainer))
        if trainer.is_global_zero:
            self.bar = tqdm(
                total=module.config.trainer.max_samples,
                initial=module.samples_seen,
                unit="sample",
                dynamic_ncols=True,
                desc=module.config.name,
                smoothing=0,
            )

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        replicas, recipe = module.config.trainer.replicas, module.recipe
        size = recipe.batch_size(batch) * replicas
        self.meter.add(size, recipe.tokens(batch) * replicas, recipe.forward_flops(batch) * replicas)
        if self.bar is not None:
            self.bar.update(size)
        if not module.at_step_boundary or trainer.global_step % module.config.trainer.log_every_steps:
            return
        module.settle()
        report = self.meter.report(
            _wait_seconds(trainer), module.config.trainer.max_samples - module.samples_seen
        )
        self.meter.reset(_wait_seconds(trainer))
        losses = {f"loss/{name}": float(v) for name, v in {**module.latest_totals, **module.latest}.items()}
        losses = {name: value for name, value in losses.items() if not math.isnan(value)}
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        extra = {"lr": lr, "samples_seen": module.samples_seen}
        if module.grad_norm is not None:
            extra["grad_norm"] = float(module.grad_norm)
        for logger in trainer.loggers:
            logger.log_metrics({**losses, **report.metrics(), **extra}, step=module.samples_seen)
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {losses['loss/main']:.4f}  {report.line()}")

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class Every:
    """True each time another multiple of `samples` (or `minutes`) has passed, on all processes at once."""

    def __init__(self, samples: int | None, minutes: float | None = None) -> None:
        self.samples, self.minutes = samples, minutes
        self.seen = 0
        self.clock = time.monotonic()

    def start(self, samples_seen: int) -> None:
        self.seen, self.clock = samples_seen, time.monotonic()

    def due(self, samples_seen: int) -> bool:
        by_samples = self.samples is not None and samples_seen // self.samples > self.seen // self.samples
        by_time = False
        if self.minutes is not None:
            [by_time] = any_process(time.monotonic() - self.clock >= 60 * self.minutes)
        if by_samples or by_time:
            self.start(samples_seen)
        return by_samples or by_time


class Stopper(L.Callback):
    """Ends the session between two optimizer steps: at `max_samples`, `stop_at_samples`, `max_minutes`, or when asked
    by a signal (Ctrl-C, or the SIGTERM of a scheduler that takes the machine back). A second signal aborts at once."""

    def __init__(self) -> None:
        self.signalled = False
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        self.start = time.monotonic()
        t = module.config.trainer
        self.last = t.max_samples if t.stop_at_samples is None else min(t.max_samples, t.stop_at_samples)
        trainer.should_stop = module.samples_seen >= self.last
        if threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True
        tqdm.write("stopping after this step with a checkpoint; once more to abort", file=sys.stderr)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not module.at_step_boundary:
            return
        t = module.config.trainer
        over = t.max_minutes is not None and time.monotonic() - self.start >= 60 * t.max_minutes
        over, self.signalled = any_process(over, self.signalled)
        if over or self.signalled or module.samples_seen >= self.last:
            trainer.should_stop = True

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


class Checkpointer(L.Callback):
    """Exact checkpoints at step boundaries, by samples and by wall clock, and EMA snapshots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: L.Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        t, e = module.config.trainer, module.config.ema
        self.checkpoint_due = Every(t.checkpoint_every_samples, t.checkpoint_every_minutes)
        self.snapshot_due = Every(e.snapshot_every_samples)
        self.checkpoint_due.start(module.samples_seen)
        self.snapshot_due.start(module.samples_seen)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not module.at_step_boundary:
            return
        if self.checkpoint_due.due(module.samples_seen) or trainer.should_stop:
            self.save(trainer, module)
        if self.snapshot_due.due(module.samples_seen) and module.ema is not None:
            module.settle()
            folder = self.folder.parent / "ema"
            module.ema.save_snapshot(folder, module.samples_seen, write=trainer.is_global_zero)

    def save(self, trainer: L.Trainer, module: TrainingModule) -> None:
        trainer.save_checkpoint(checkpoint.path_for(self.folder, module.samples_seen), weights_only=False)
        if trainer.is_global_zero:
            checkpoint.prune(self.folder, module.config.trainer.keep_checkpoints)
