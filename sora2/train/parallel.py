"""Everything about devices: strategy, compilation, activation checkpointing. Models know nothing of it."""

from __future__ import annotations

import os

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

from sora2.config import ConfigError
from sora2.kernels import choose_dtype, use_cpu_kernels
from sora2.train.config import TrainerConfig
from sora2.train.recipe import Recipe
from sora2.train.sharding import ShardedStrategy


def device(config: TrainerConfig) -> torch.device:
    """The kind of device a config trains on. Raises `ConfigError` when it asks for a GPU that is not there."""
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.accelerator=gpu, but this torch sees no CUDA device: use trainer=cpu, or install a CUDA build "
            'of torch (make setup VENV=.venv-cuda TORCH="torch==2.11.0")'
        )
    use_gpu = config.accelerator == "gpu" or (config.accelerator == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def use_threads(config: TrainerConfig) -> None:
    """Compute on `trainer.threads` threads of the CPU from here on, in this process and those that it starts."""
    if config.threads is None:
        return
    torch.set_num_threads(config.threads)
    if config.processes > 1 or config.strategy != "auto":
        os.environ["OMP_NUM_THREADS"] = str(config.threads)  # unset, Lightning would choose


def precision(config: TrainerConfig) -> str:
    """What "auto" means here, see `choose_dtype`.

    The answer is written to the run's config.yaml, and a resumed run keeps it.
    """
    asked = {"auto": "auto", "bf16-mixed": "bf16", "32-true": "fp32"}[config.precision]
    return "bf16-mixed" if choose_dtype(device(config), asked) == torch.bfloat16 else "32-true"


def cpu_kernels(config: TrainerConfig) -> str:
    """The CPU kernels a run uses, "compiled" or "plain", from here on in this process.

    As with the precision, the answer is written to the run's config.yaml, and a resumed run keeps it: the two differ in
    the last digits.

    Raises:
        CpuKernelError: compiled ones are asked for and cannot be built.
    """
    if device(config).type == "cuda":
        return "plain"
    return use_cpu_kernels(None if config.cpu_kernels == "auto" else config.cpu_kernels).name


def strategy(config: TrainerConfig) -> str | Strategy:
    """Lightning's strategy: one process, or data parallel over devices and nodes, with weights whole or spread."""
    if config.processes == 1 and config.strategy == "auto":
        return "auto"
    backend = "nccl" if device(config).type == "cuda" else "gloo"
    if config.strategy == "fsdp":
        return ShardedStrategy(config.processes, backend)
    # A batch without sound, text or references is legal and leaves their parameters unused.
    return DDPStrategy(
        process_group_backend=backend, gradient_as_bucket_view=True, find_unused_parameters=True
    )


def apply(recipe: Recipe, config: TrainerConfig) -> None:
    """Wrap the repeated blocks of the recipe's networks for checkpointing and compilation, in place."""
    blocks = [block for name in recipe.averaged for block in getattr(getattr(recipe, name), "blocks", [])]
    if (config.activation_checkpointing or config.compile) and not blocks:
        raise ConfigError(
            "trainer.compile and trainer.activation_checkpointing work on networks with a list of `blocks`; "
            f"{type(recipe).__name__} has none: switch them off"
        )
    if config.activation_checkpointing:
        wanted: set[int] = {id(b) for b in blocks}
        for name in recipe.averaged:
            apply_activation_checkpointing(getattr(recipe, name), check_fn=lambda m: id(m) in wanted)
        blocks = [block for name in recipe.averaged for block in getattr(recipe, name).blocks]
    if config.compile:
        for block in blocks:
            nn.Module.compile(block, dynamic=None)
