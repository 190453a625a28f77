"""Where modalities lie in the flat stream of a batch, (T, D), one contiguous slice for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sora2.kernels.triton.sums import SumPlan


@dataclass(frozen=True)
class Span:
    """One modality: `rows` of the (T, D) stream are `sequence` of every sample's N tokens."""

    rows: slice
    sequence: slice


@dataclass(frozen=True)
class Runs:
    """Where one modality lies in the stream, and which table row each of its runs of tokens uses.

    `index` (batch * runs,) names the row of each run. None: the table's rows are the runs already, or it has
    one row that all share.
    """

    rows: slice  # of the (T, D) stream
    batch: int
    runs: int  # per sample, of equal length
    index: Tensor | None = None
    plan: SumPlan | None = None  # of an index with one run per token, for the backward on a GPU

    def view(self, flat: Tensor) -> Tensor:
        """(T, D) -> (batch, runs, tokens of a run, D), a view."""
        return flat[self.rows].view(self.batch, self.runs, -1, flat.shape[-1])

    def gather(self, table: Tensor) -> Tensor:
        """(U, D) -> (batch or 1, runs or 1, 1, D)."""
        if table.shape[0] == 1:
            return table.view(1, 1, 1, -1)
        found = table if self.index is None else table.index_select(0, self.index)
        return found.view(self.batch, self.runs, 1, -1)

    def scatter(self, grad: Tensor, table: Tensor) -> Tensor:
        """Sum of (batch, runs, n, D) over the tokens that used each row -> (U, D): the backward of `gather`."""
        per_run = grad.sum(2).flatten(0, 1)  # (batch * runs, D)
        if table.shape[0] == 1:
            return per_run.sum(0, keepdim=True)
        if self.index is None:
            return per_run
        return torch.zeros(table.shape, dtype=grad.dtype, device=grad.device).index_add_(
            0, self.index, per_run
        )
