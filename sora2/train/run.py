"""One training run, from the checked config to the exported weights."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path

import lightning as L
import yaml
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from sora2.atomic import save_text
from sora2.config import ConfigError, to_mapping
from sora2.train import checkpoint, parallel
from sora2.train.callbacks import Checkpointer, ProgressLine, Stopper
from sora2.train.config import LoggerConfig, TrainConfig, TrainerConfig
from sora2.train.datamodule import TrainingData
from sora2.train.module import TrainingModule
from sora2.train.plan import describe
from sora2.train.throughput import measure_peak_flops
from sora2.train.validation import Validator

#: recipe name -> module with the functions `build`, `loader_config`, `latent_fingerprints`, `plan` and `callbacks`
RECIPES = {
    "diffusion": "sora2.train.step",
    "video_codec": "sora2.train.codec_problem",
    "audio_codec": "sora2.train.codec_problem",
    "readers": "sora2.metrics.readers.training",
}


def train(config: TrainConfig) -> Path:
    """Run `config`; returns the run's folder. Resumes from its newest checkpoint unless `config.resume` is false.

    The folder holds config.yaml, checkpoints/, logs/, samples/ and, at the end, export/ (inference weights).

    Raises:
        ConfigError: settings that do not fit, a folder that another process trains in.
    """
    folder = Path(config.out) / config.name
    first = getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"
    if config.dry_run or not first:  # the first process of a run claims its folder for all
        return _train(config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            return _train(config, folder)
    except Timeout as error:
        raise ConfigError(
            f"another process trains in {folder}: wait for it or stop it, or choose another `name=`"
        ) from error


def _train(config: TrainConfig, folder: Path) -> Path:
    recipe_module = importlib.import_module(RECIPES[config.recipe])
    config = replace(config, trainer=settled(config, folder))
    parallel.use_threads(config.trainer)
    loader_config = recipe_module.loader_config(config)
    fingerprints = recipe_module.latent_fingerprints(config)
    print(describe(config, recipe_module.plan(config), loader_config.batch_size))
    if config.dry_run:
        return folder

    L.seed_everything(config.seed, verbose=False)
    resume_from = find_checkpoint(config, folder)
    recipe = recipe_module.build(config, fingerprints)
    if config.init_from is not None and resume_from is None:
        recipe.load_weights(Path(config.init_from), config.init_fresh)
    if config.train_only:
        recipe.freeze_all_but(config.train_only)
    parallel.apply(recipe, config.trainer)
    module = TrainingModule(recipe, config)
    save_text(yaml.safe_dump(to_mapping(config), sort_keys=False), folder / "config.yaml")

    device = parallel.device(config.trainer)
    peak = config.trainer.peak_tflops
    peak_flops = measure_peak_flops(device, config.trainer.product_dtype) if peak is None else peak * 1e12
    stopper = Stopper()
    callbacks: list[L.Callback] = [
        stopper,
        ProgressLine(peak_flops * config.trainer.devices * config.trainer.nodes),
    ]
    callbacks += recipe_module.callbacks(config, folder)
    if config.validation.every_samples is not None:
        callbacks.append(Validator(config.validation, loader_config, fingerprints))
    callbacks.append(Checkpointer(folder / "checkpoints"))
    trainer = L.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.nodes,
        strategy=parallel.strategy(config.trainer),
        precision=config.trainer.precision,
        max_epochs=-1,
        logger=build_logger(config.logger, folder, resume_from),
        callbacks=callbacks,
        plugins=[checkpoint.AtomicCheckpointIO()],
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        module,
        datamodule=TrainingData(loader_config, fingerprints, config.trainer.sequence_devices),
        ckpt_path=resume_from,
    )
    if stopper.signalled:
        raise KeyboardInterrupt
    module.export(folder / "export")
    if trainer.is_global_zero:
        print(f"exported weights to {folder / 'export'}")
    return folder


def settled(config: TrainConfig, folder: Path) -> TrainerConfig:
    """The trainer's settings with precision and CPU kernels decided.

    "auto" means those that a run to be resumed began with, else what `parallel` finds here.
    """
    trainer, begun = config.trainer, folder / "config.yaml"
    if checkpoint.newest(folder / "checkpoints") and begun.exists():
        first = checkpoint.EARLIER["trainer"] | yaml.safe_load(begun.read_text())["trainer"]
        kept = {
            name: first[name] for name in ("precision", "cpu_kernels") if getattr(trainer, name) == "auto"
        }
        trainer = replace(trainer, **kept)
    return replace(trainer, precision=parallel.precision(trainer), cpu_kernels=parallel.cpu_kernels(trainer))


def find_checkpoint(config: TrainConfig, folder: Path) -> Path | None:
    """The checkpoint to resume from, checked against the config; None for a fresh run.

    Raises `ConfigError` when the folder holds a run that this config does not continue.
    """
    newest = checkpoint.newest(folder / "checkpoints")
    if newest is None:
        return None
    if not config.resume:
        raise ConfigError(
            f"{folder} already holds checkpoints (newest {newest.name}) and resume=false: choose another `name=`, "
            "delete the folder, or drop resume=false to continue it"
        )
    saved = checkpoint.load(newest, mapped=True)
    for change in checkpoint.check_resumable(saved["sora2"]["config"], config, newest):
        print(f"changed since the checkpoint: {change}")
    print(f"resuming from {newest} ({saved['sora2']['samples_seen']} samples)")
    return newest


def build_logger(config: LoggerConfig, folder: Path, resume_from: Path | None) -> Logger:
    """CSV, TensorBoard or wandb. A resumed run writes beside the earlier log, never over it."""
    part = "from-000000000000" if resume_from is None else f"from-{resume_from.stem.split('-')[1]}"
    if config.name == "csv":
        attempt = part
        while (folder / "logs" / attempt / "metrics.csv").exists():
            attempt += "-again"
        return CSVLogger(folder, name="logs", version=attempt, flush_logs_every_n_steps=1)
    if config.name == "tensorboard":
        return TensorBoardLogger(folder, name="logs", version=part)
    os.environ.setdefault("WANDB_SILENT", "true")
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        project=config.project, name=folder.name, id=folder.name, resume="allow", save_dir=folder / "logs",
        offline=config.offline,
    )  # fmt: skip
