"""The plan of a run as text: what would be trained on what, how long, and where it goes. Allocates nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sora2.kernels import cpu_kernels
from sora2.train import checkpoint
from sora2.train.config import TrainConfig


def describe(config: TrainConfig, recipe_lines: Iterable[tuple[str, str]], batch_size: int) -> str:
    """A table of the run. `recipe_lines` are the recipe's own (name, text) rows; `batch_size` is per device."""
    t, o = config.trainer, config.optimizer
    step = batch_size * t.accumulate * t.replicas
    devices = (
        f"{t.replicas} devices"
        if t.sequence_devices == 1
        else f"{t.replicas} groups of {t.sequence_devices} devices"
    )
    folder = Path(config.out) / config.name
    newest = checkpoint.newest(folder / "checkpoints")
    rates = f"AdamW lr {o.lr:g}"
    if o.name == "muon":
        rates = f"Muon lr {o.muon_lr:g} for hidden matrices, {rates} for the rest"
    rows = [
        ("run", f"{config.name} -> {folder}" + (f", continues {newest.name}" if newest and config.resume else "")),
        *recipe_lines,
        ("step", f"{step} samples = {batch_size} x {t.accumulate} accumulated x {devices}"),
        ("length", f"{t.max_samples:,} samples = {-(-t.max_samples // step):,} steps" + _minutes(t.max_minutes)),
        ("optimizer", f"{rates}, {o.schedule}, EMA {list(config.ema.sigma_rel)}" + _only(config.train_only)),
        ("precision", f"{t.precision} on {t.accelerator}, strategy {t.strategy}" + (", compiled" if t.compile else "")),
        ("kernels", str(cpu_kernels()) if t.accelerator != "gpu" else "of the GPU"),
        ("checkpoint", f"every {t.checkpoint_every_samples:,} samples" + _minutes(t.checkpoint_every_minutes)),
        ("log", config.logger.name + (" (offline)" if config.logger.name == "wandb" and config.logger.offline else "")),
    ]  # fmt: skip
    return "\n".join(f"{name:>12}  {text}" for name, text in rows)


def _only(parts: tuple[str, ...]) -> str:
    return f"; learns only {', '.join(parts)}" if parts else ""


def _minutes(minutes: float | None) -> str:
    return "" if minutes is None else f", or {minutes:g} minutes"
