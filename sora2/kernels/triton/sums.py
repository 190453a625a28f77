"""Sums over the tokens that use each row of a table, in a fixed order: the table's gradient.

Tokens are sorted by their row and cut into pieces of one row each. The backward of an operation sums every piece, and
a second launch the pieces of every row: a row that half of the tokens use, such as that of clean ones, keeps many
programs busy, not one. Nothing here is read on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Tokens of one piece.
PIECE = 32
#: Pieces and columns that a program of the second launch reads at a time.
TILE, COLUMNS = 64, 64


@dataclass(frozen=True)
class SumPlan:
    """How to add up what belongs to each row of a table."""

    order: Tensor  # (T,) int64: the tokens, sorted by row
    piece: Tensor  # (P + 1,) int32: where in `order` each piece begins; empty ones at the end
    row: Tensor  # (U + 1,) int32: the first piece of each row

    @classmethod
    def of(cls, index: Tensor, rows: int) -> SumPlan:
        """index (T,) int64: the row, 0 .. rows - 1, that each token uses."""
        device, tokens = index.device, len(index)
        ordered, order = index.sort(stable=True)
        begin = torch.searchsorted(ordered, torch.arange(rows + 1, device=device))  # (U + 1,) in `order`
        first = torch.zeros_like(begin)
        first[1:] = ((begin.diff() + PIECE - 1) // PIECE).cumsum(0)  # (U + 1,)
        piece = torch.arange(tokens // PIECE + rows + 1, device=device)  # at least as many as there are
        owner = (torch.searchsorted(first, piece, right=True) - 1).clamp_max(rows - 1)
        start = begin[owner] + (piece - first[owner]) * PIECE
        return cls(order, start.clamp_max(tokens).int(), first.int())

    @property
    def pieces(self) -> int:
        return len(self.piece) - 1


def sum_pieces(shares: Tensor, plan: SumPlan) -> Tensor:
    """Sums of pieces (K, P, D) -> of rows (K, U, D)."""
    from sora2.kernels.triton.sums_kernel import sum_kernel

    kinds, pieces, width = shares.shape
    rows = len(plan.row) - 1
    out = shares.new_empty(kinds, rows, width)
    sum_kernel[(rows, kinds, -(-width // COLUMNS))](
        shares, plan.row, out, pieces, rows, width, COLUMNS=COLUMNS, TILE=TILE, num_warps=4
    )
    return out
