"""Shift, gain and gate of every token by its noise level: rows of parameters per distinct level, looked up in use.

The rows are made once per batch and shared by all layers; a layer adds a learned table of its own. Compiled CPU kernels
read both where they lie (`sora2.kernels.cpu`); the plain form adds them up first and calls `sora2.kernels.modulate`.
On a GPU the modalities are one: a launch for each costs more than one look-up per token, so their rows are joined to
one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.kernels.cpu.choice import library_for
from sora2.kernels.cpu.modulate import LevelRows
from sora2.kernels.modulate import gated_add, gated_add_norm_modulate, norm_modulate
from sora2.kernels.stream import Runs
from sora2.kernels.triton import takes
from sora2.kernels.triton.sums import SumPlan

Tables = tuple[tuple[Tensor, ...], ...]  # per parameter, per segment (U, D)


@dataclass(frozen=True)
class Levels:
    """The rows of one batch: per segment of the stream (U, P, D), P parameters of each distinct level."""

    rows: tuple[Tensor, ...]
    runs: tuple[Runs, ...]  # per segment, or one for all of them
    level_of_run: tuple[Tensor, ...]  # per segment (batch * runs,): which row each run of tokens uses
    compiled: LevelRows | None

    @classmethod
    def of(
        cls, rows: Sequence[Tensor], runs: tuple[Runs, ...], level_of_run: tuple[Tensor, ...], stream: Tensor
    ) -> Levels:
        """Rows for a stream of tokens like `stream` (T, D), by compiled kernels where they take it."""
        library = library_for(stream)
        if takes(stream):
            return cls(tuple(rows), (_join(rows, runs, level_of_run),), level_of_run, None)
        if library is None:
            return cls(
                tuple(_by_run(*x) for x in zip(rows, runs, level_of_run, strict=True)),
                runs,
                level_of_run,
                None,
            )
        of_token = [_of_token(r, index) for r, index in zip(runs, level_of_run, strict=True)]
        compiled = LevelRows(library, rows, of_token)
        return cls(compiled.rows, runs, level_of_run, compiled)

    def layer(self, tables: Sequence[Tensor] | None, first: int, count: int) -> Modulation:
        """Parameters first .. first + count - 1 with a layer's tables, per segment (count, D); None = rows alone."""
        return Modulation(self, None if tables is None else tuple(tables), first, count)


def _of_token(runs: Runs, level_of_run: Tensor) -> Tensor:
    """(batch * runs,) -> (batch * tokens,): the level of each token."""
    length = (runs.rows.stop - runs.rows.start) // max(1, runs.batch * runs.runs)
    return level_of_run[:, None].expand(-1, length).flatten()


def _join(rows: Sequence[Tensor], runs: tuple[Runs, ...], level_of_run: tuple[Tensor, ...]) -> Runs:
    """All segments as one, in which every token names its row of the rows of all segments, (sum of U, P, D)."""
    first, found = 0, []
    for part, r, index in zip(rows, runs, level_of_run, strict=True):
        found.append(_of_token(r, index) + first)
        first += len(part)
    index = torch.cat(found)  # (T,)
    plan = SumPlan.of(index, first) if torch.is_grad_enabled() else None
    return Runs(slice(0, len(index)), 1, len(index), index, plan)


def _by_run(rows: Tensor, runs: Runs, order: Tensor) -> Tensor:
    """Rows laid out by run, once for all layers, unless runs are many and levels few: those are looked up in use."""
    return rows.index_select(0, order) if runs.index is None and len(rows) > 1 else rows


class Modulation:
    """What one layer does to its tokens. Parameters are numbered within the layer."""

    def __init__(self, levels: Levels, tables: tuple[Tensor, ...] | None, first: int, count: int) -> None:
        self.levels, self.tables, self.first, self.count = levels, tables, first, count
        self.stacked: Tensor | None = None  # (segments, count, D), what the compiled kernels add
        self.parameters: Tables | None = None
        if self._compiled is not None and tables is not None:
            if first != 0:
                raise ValueError("a layer's tables belong to the first parameters of a row")
            self.stacked = torch.stack(tables).float()

    @property
    def _compiled(self) -> LevelRows | None:
        return None if torch.compiler.is_compiling() else self.levels.compiled

    def norm_modulate(self, x: Tensor, shift: int, eps: float) -> tuple[Tensor, Tensor]:
        """x itself, for what goes past the norm, and LayerNorm(x) * gain + shift; the gain is parameter `shift` + 1.

        x (T, D) -> (T, D) each.
        """
        if self._compiled is not None:
            return self._compiled.norm_modulate(x, None, self.stacked, self.first + shift, eps)
        p = self._plain(x.dtype)
        return x, norm_modulate(x, self.levels.runs, p[shift], p[shift + 1], eps)

    def gated_add(self, x: Tensor, update: Tensor, gate: int) -> Tensor:
        """x + gate * update, (T, D) each; parameter `gate`."""
        if self._compiled is not None:
            return self._compiled.gated_add(x, update, self.stacked, self.first + gate)
        return gated_add(x, update, self.levels.runs, self._plain(x.dtype)[gate])

    def gated_add_norm_modulate(
        self, x: Tensor, update: Tensor, gate: int, eps: float
    ) -> tuple[Tensor, Tensor]:
        """`gated_add`, and its result's norm modulated by the two parameters after the gate, (T, D) each."""
        if self._compiled is not None:
            return self._compiled.norm_modulate(x, update, self.stacked, self.first + gate, eps)
        p = self._plain(x.dtype)
        return gated_add_norm_modulate(x, update, self.levels.runs, p[gate], p[gate + 1], p[gate + 2], eps)

    def _plain(self, dtype: torch.dtype) -> Tables:
        if self.parameters is None:
            found = []
            levels = self.levels
            for i, rows in enumerate(levels.rows):
                if levels.compiled is not None:  # rows of levels, in a graph that torch.compile makes
                    rows = _by_run(rows, levels.runs[i], levels.level_of_run[i])
                rows = rows[:, self.first : self.first + self.count]
                found.append(rows if self.tables is None else rows + self.tables[i])  # (U, count, D)
            if len(levels.runs) < len(levels.rows):  # joined
                found = [torch.cat(found).transpose(0, 1).contiguous().transpose(0, 1)]
            by_segment = [rows.to(dtype).unbind(1) for rows in found]  # count x (U, D) each
            self.parameters = tuple(zip(*by_segment, strict=True))
        return self.parameters
