"""What the processes of a run decide together, over their hosts: no process waits for a GPU."""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup


def any_process(*flags: bool) -> list[bool]:
    """Each flag, true on every process where it is on any of them. All processes must ask at the same moment.

    A clock or a signal that only some of them have noticed would otherwise leave the others waiting in a collective.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return list(flags)
    votes = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(votes, dist.ReduceOp.MAX, group=_hosts(dist.group.WORLD))
    return [bool(vote) for vote in votes]


@functools.cache
def _hosts(world: ProcessGroup) -> ProcessGroup:
    """The processes of `world`, speaking to each other without their GPUs."""
    return world if dist.get_backend(world) == "gloo" else dist.new_group(backend="gloo")
