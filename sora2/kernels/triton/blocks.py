"""How the kernels cut their work: block sizes, warps and pipeline stages per kernel, dtype and head size.

Registers and spills of every entry are asserted for sm_90 by `tests/kernels/test_triton_compile.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

#: Head sizes the attention kernels take.
HEADS = (16, 32, 64, 128)
#: dtypes they take. float64 is for checking: its products run without tensor cores.
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Blocks:
    """Of one launch. `queries` and `keys` are upper bounds, lowered to fit the pattern's tiles."""

    queries: int
    keys: int
    warps: int
    stages: int
    tensor_maps: bool = False  # whole tiles by the bulk copy engine of sm_90 (TMA)

    def fit(self, query_size: int, key_size: int) -> Blocks:
        """Blocks for tiles of these sizes: they divide the tile where they can, so that whole tiles need no mask."""
        return replace(self, queries=_block(query_size, self.queries), keys=_block(key_size, self.keys))


#: (kernel, bytes per element, head size) -> blocks. Smaller heads use the entry of 64. Those of two bytes are the
#: fastest on an H200: of 128 for 31,476 tokens (`benchmarks/kernels_gpu.py --tune`), of 64 for 1,536 padded samples
#: of 220 tokens.
TABLE: dict[tuple[str, int, int], Blocks] = {
    ("forward", 2, 128): Blocks(128, 64, 4, 3, tensor_maps=True),
    ("query_gradient", 2, 128): Blocks(64, 64, 4, 2, tensor_maps=True),
    ("key_gradient", 2, 128): Blocks(64, 64, 4, 2, tensor_maps=True),
    ("forward", 2, 64): Blocks(128, 64, 4, 2),
    ("query_gradient", 2, 64): Blocks(64, 64, 4, 2),
    ("key_gradient", 2, 64): Blocks(64, 64, 4, 2),
    ("forward", 4, 128): Blocks(32, 32, 4, 2),
    ("query_gradient", 4, 128): Blocks(32, 32, 8, 2),
    ("key_gradient", 4, 128): Blocks(32, 16, 8, 2),
    ("forward", 4, 64): Blocks(64, 64, 8, 2),
    ("query_gradient", 4, 64): Blocks(64, 64, 8, 2),
    ("key_gradient", 4, 64): Blocks(32, 64, 8, 2),
}


def blocks(kernel: str, dtype: torch.dtype, head: int) -> Blocks:
    """The entry for a kernel: "forward", "query_gradient" or "key_gradient"."""
    if dtype == torch.float64:
        return Blocks(16, 16, 4, 1)
    return TABLE[kernel, dtype.itemsize, max(head, 64)]


def _block(size: int, limit: int) -> int:
    whole = size & -size  # the largest power of two that divides the tile
    if whole >= min(32, limit):
        return min(whole, limit)
    return min(limit, max(16, 1 << (size - 1).bit_length()))
