"""Weights for inference from any checkpoint of a run, at any width of their average, while the run goes on or after;
and weights that were exported before, in another dtype."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import torch

from sora2.config import from_mapping
from sora2.errors import UserError
from sora2.generate.checkpoint import load_model, read_checkpoint
from sora2.train import checkpoint
from sora2.train.config import Dtype, TrainConfig
from sora2.train.ema import reconstruct
from sora2.train.module import TrainingModule
from sora2.train.run import RECIPES
from sora2.weights import write_checkpoint


def export_run(
    run: Path,
    out: Path,
    *,
    samples: int | None = None,
    sigma_rel: float | None = None,
    live: bool = False,
    dtype: Dtype | None = None,
) -> int:
    """Write what `sora2 train` writes at its end, from the checkpoint after `samples` (default: the newest).

    sigma_rel: width of the average. The run keeps `ema.sigma_rel`; any other is put together from the snapshots of
    `ema.snapshot_every_samples`, of which one must lie at `samples`. live: the weights themselves, without averaging.
    dtype: of the weights in the file, in place of the run's `trainer.export_dtype`.

    Returns:
        The samples that the weights have seen.

    Raises:
        UserError: no such checkpoint, a damaged one, a width for which there are no snapshots.
    """
    if live and sigma_rel is not None:
        raise UserError("--live takes the weights as they are: leave --sigma-rel out")
    path = _checkpoint(run, samples)
    saved = checkpoint.load(path)
    config = from_mapping(TrainConfig, saved["sora2"]["config"], str(path))
    if dtype is not None:
        config = replace(config, trainer=replace(config.trainer, export_dtype=dtype))
    problem = importlib.import_module(RECIPES[config.recipe])
    module = TrainingModule(problem.build(config, problem.latent_fingerprints(config)), config)
    module.load_state_dict(saved["state_dict"])
    module.on_load_checkpoint(saved)
    assert module.ema is not None
    if live:
        module.export_weights(out, {n: p.detach() for n, p in module.averaged_parameters().items()}, None)
    elif sigma_rel is None or sigma_rel in module.ema.sigma_rel:
        module.export(out, 0 if sigma_rel is None else module.ema.sigma_rel.index(sigma_rel))
    else:
        module.export_weights(out, reconstruct(run / "ema", sigma_rel, module.samples_seen), sigma_rel)
    return module.samples_seen


def repack(folder: Path, out: Path, dtype: Dtype) -> int:
    """Write the transformer that lies in the export `folder` to `out`, stored as `dtype`.

    Returns:
        The samples that the weights have seen.

    Raises:
        UserError: the folder is not a transformer's export or is damaged, or `out` is that folder.
    """
    if out.resolve() == folder.resolve():
        raise UserError(
            f"--out {out} is the folder that is read: choose another, and compare before you replace it"
        )
    found = read_checkpoint(folder)
    config = found.config
    if "training" in config:
        config["training"]["trainer"]["export_dtype"] = dtype
    write_checkpoint(out, load_model(found).state_dict(), getattr(torch, dtype), config)
    return int(config.get("samples_seen", 0))


def _checkpoint(run: Path, samples: int | None) -> Path:
    folder = run / "checkpoints"
    if samples is None:
        path = checkpoint.newest(folder)
        if path is None:
            raise UserError(f"{folder} holds no checkpoint: name the folder of a run of `sora2 train`")
        return path
    path = checkpoint.path_for(folder, samples)
    if not path.is_file():
        there = ", ".join(str(int(p.stem.split("-")[1])) for p in sorted(folder.glob("samples-*.ckpt")))
        raise UserError(f"{folder} has no checkpoint after {samples} samples; there are: {there or 'none'}")
    return path
