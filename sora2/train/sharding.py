"""Networks over several processes: their weights spread, their sequences shared (`sora2.sequence`).

Spread means fully sharded data parallelism (Rajbhandari et al. 2020, arXiv:1910.02054): every process holds a part of
each weight, gradient, optimizer state and average (`sora2.train.parts`); the weights of a block are gathered when it
runs and freed after it (FSDP2 of PyTorch). Checkpoints hold whole tensors, in the format of any other run, so one is
resumed by any number of processes, spread or not. Each process builds the whole network once on its host, for the first
weights are a function of the seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from sora2.config import ConfigError
from sora2.sequence import SequenceGroup
from sora2.train import checkpoint
from sora2.train.parts import assign, part_of, to_store
from sora2.train.recipe import Recipe


def shard(recipe: Recipe, device: torch.device, processes: int, together: int) -> None:
    """Spread the averaged networks of a recipe over groups of `together` of all `processes`, block by block, in place.

    Each group holds the whole network; with several of them, gradients are averaged over groups as well (HSDP).

    Raises:
        ConfigError: a network without a list of `blocks`, or a PyTorch that cannot tell parameters no clip has used.
    """
    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise ConfigError(
            f"trainer.strategy=fsdp needs torch 2.13 or later, this is {torch.__version__}: earlier ones cannot reduce "
            "gradients when a batch without sound or text leaves parameters unused. Install it, or use trainer=ddp"
        )
    networks = [getattr(recipe, name) for name in recipe.averaged]
    for network in networks:
        if not hasattr(network, "blocks"):
            raise ConfigError(
                f"trainer.strategy=fsdp spreads networks block by block; {type(network).__name__} has no list of "
                "`blocks`: use trainer=ddp"
            )
    mesh = _mesh(device, processes, together)
    for network in networks:
        for block in network.blocks:
            fully_shard(block, mesh=mesh)
        # freed after it, as blocks are: what validation swaps into the parts must not meet weights gathered before
        fully_shard(network, mesh=mesh, reshard_after_forward=True)
        network.set_reduce_scatter_unused_params(True)


def share_sequences(recipe: Recipe, processes: int, together: int) -> None:
    """Let each `together` consecutive ones of all `processes` share the sequences of the averaged networks, in place.

    Raises:
        ConfigError: a network that knows no sequences.
    """
    for name in recipe.averaged:
        if not hasattr(getattr(recipe, name), "among"):
            raise ConfigError(
                f"trainer.sequence_devices={together}: {type(getattr(recipe, name)).__name__} has no sequences to share"
            )
    groups = [dist.new_group(range(first, first + together)) for first in range(0, processes, together)]
    mine = SequenceGroup.of(groups[dist.get_rank() // together])
    for name in recipe.averaged:
        getattr(recipe, name).among = mine


def _mesh(device: torch.device, processes: int, together: int) -> DeviceMesh:
    if together == processes:
        return init_device_mesh(device.type, (processes,), mesh_dim_names=("shard",))
    shape = (processes // together, together)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for a module whose `configure_model` spreads it; checkpoints hold whole tensors.

    A checkpoint is read when the module is spread already, and of each tensor only a part is taken.
    """

    def __init__(self, processes: int, backend: str) -> None:
        super().__init__(processes, 1, save_distributed_checkpoint=False, process_group_backend=backend)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return {name: to_store(value) for name, value in self.lightning_module.state_dict().items()}

    def load_model_state_dict(self, saved: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own, weights = self.lightning_module.state_dict(), saved["state_dict"]
        if own.keys() != weights.keys():
            name = min(own.keys() ^ weights.keys())
            raise ConfigError(
                f"the checkpoint's weights are of another model: {name} is in one of the two only"
            )
        for name, tensor in own.items():
            assign(tensor, weights[name])

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state = optimizer.state_dict()
        whole = {
            i: {n: to_store(v) if isinstance(v, Tensor) else v for n, v in values.items()}
            for i, values in state["state"].items()
        }
        return {**state, "state": whole}

    def load_optimizer_state_dict(self, saved: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, saved["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            parts = {i: _parts(values, parameters[i]) for i, values in state["state"].items()}
            optimizer.load_state_dict({**state, "state": parts})

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return checkpoint.load(Path(checkpoint_path), mapped=True)


def _parts(values: Mapping[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
    """An optimizer's state of one parameter, spread as the parameter is."""
    if not isinstance(parameter, DTensor):
        return dict(values)

    def part(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            return value
        return part_of(value.to(parameter.device, copy=True), parameter)  # what is read is a mapped file

    return {name: part(value) for name, value in values.items()}
