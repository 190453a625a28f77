"""Tensors of which every process holds a part. Where nothing is spread they are ordinary ones, and all here is free.

`local`, `whole`, `to_store` and `assign` are all that optimizer, averages and checkpoints know of the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, as a view: the tensor itself where it is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Of a spread one every process must ask, and gets a copy."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


@torch.no_grad()
def to_store(tensor: Tensor) -> Tensor:
    """All of a tensor, for the process that writes files. Of a spread one every process must ask; the first gets it, on
    its host, and the others nothing: no device ever holds more than one whole tensor.
    """
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    full = tensor.full_tensor()
    return full.cpu() if dist.get_rank() == 0 else full.new_empty(0)


@torch.no_grad()
def assign(tensor: Tensor, value: Tensor) -> None:
    """Write the whole `value` into a tensor: each process takes its part, and nothing is sent."""
    if isinstance(tensor, DTensor):
        value = part_of(value.to(tensor.device, tensor.dtype), tensor)
    tensor.copy_(value)


def part_of(value: Tensor, like: DTensor) -> DTensor:
    """A whole tensor that every process has, spread as `like` is; nothing is sent."""
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


@dataclass(frozen=True)
class Turns:
    """Work on whole matrices of which every process holds some rows: process r does it for those numbered r, r + W ...

    So nothing is done twice, and each row travels to one process and back.
    """

    group: ProcessGroup | None  # None: nothing is spread
    processes: int = 1  # W
    mine: int = 0  # r

    @classmethod
    def of(cls, tensor: Tensor) -> Turns:
        """Among the processes that a tensor is spread over."""
        if not isinstance(tensor, DTensor):
            return cls(None)
        axis = next(i for i, placement in enumerate(tensor.placements) if placement.is_shard())
        mesh = tensor.device_mesh
        return cls(mesh.get_group(axis), mesh.size(axis), mesh.get_local_rank(axis))

    def apply(
        self, work: Callable[[Tensor], Tensor], matrices: Sequence[Tensor], rows: int
    ) -> Sequence[Tensor]:
        """`work` is on (n, rows, columns) and keeps the shape; `matrices` and what returns are (held rows, columns)."""
        if self.group is None:
            return work(torch.stack(list(matrices))).unbind()
        columns = matrices[0].shape[1]
        held = self._rows_of_each(rows)
        counts = [len(range(r, len(matrices), self.processes)) for r in range(self.processes)]
        order = [i for r in range(self.processes) for i in range(r, len(matrices), self.processes)]
        here, mine = held[self.mine], counts[self.mine]
        theirs = [n * here * columns for n in counts]  # numbers of the matrices that others work on
        ours = [mine * h * columns for h in held]  # numbers of those that this process works on
        packed = torch.cat([matrices[i].flatten() for i in order])
        parts = self._exchange(packed, theirs, ours).split(ours)
        full = torch.cat([p.view(mine, h, columns) for p, h in zip(parts, held, strict=True)], dim=1)
        done = work(full) if mine else full
        packed = torch.cat([p.flatten() for p in done.split(held, dim=1)])
        back = self._exchange(packed, ours, theirs).view(len(matrices), here, columns)
        found = dict(zip(order, back.unbind(), strict=True))
        return [found[i] for i in range(len(matrices))]

    def _rows_of_each(self, rows: int) -> list[int]:
        """As FSDP cuts a tensor: equal pieces, but for the last ones, which may be short or empty."""
        piece = -(-rows // self.processes)
        return [max(0, min(piece, rows - r * piece)) for r in range(self.processes)]

    def _exchange(self, numbers: Tensor, sent: list[int], received: list[int]) -> Tensor:
        found = numbers.new_empty(sum(received))
        dist.all_to_all_single(found, numbers, received, sent, group=self.group)
        return found
