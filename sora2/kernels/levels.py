"""Shift, gain and gate of every token by its noise level: rows of parameters per distinct level, looked up in use.

The rows are made once per batch and shared by all layers; a layer adds a learned table of its own. Compiled CPU kernels
read both where they lie (`sora2.kernels.cpu`); the plain form adds them up first and calls `sora2.kernels.modulate`.
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

Tables = tuple[tuple[Tensor, ...], ...]  # per parameter, per segment (U, D)


@dataclass(frozen=True)
class Levels:
    """The rows of one batch: per segment of the stream (U, P, D), P parameters of each distinct level."""

    rows: tuple[Tensor, ...]
    runs: tuple[Runs, ...]
    level_of_run: tuple[Tensor, ...]  # per segment (batch * runs,): which row each run of tokens uses
    compiled: LevelRows | None

    @classmethod
    def of(
        cls, rows: Sequence[Tensor], runs: tuple[Runs, ...], level_of_run: tuple[Tensor, ...], stream: Tensor
    ) -> Levels:
        """Rows for a stream of tokens like `stream` (T, D), by compiled kernels where they take it."""
        library = library_for(stream)
        if library is None:
            return cls(
                tuple(_by_run(*x) for x in zip(rows, runs, level_of_run, strict=True)),
                runs,
                level_of_run,
                None,
            )
        of_token = [
            index.view(r.batch, r.runs)
            .repeat_interleave((r.rows.stop - r.rows.start) // (r.batch * r.runs), 1)
            .flatten()
            for r, index in zip(runs, level_of_run, strict=True)
        ]
        compiled = LevelRows(library, rows, of_token)
        return cls(compiled.rows, runs, level_of_run, compiled)

    def layer(self, tables: Sequence[Tensor] | None, first: int, count: int) -> Modulation:
        """Parameters first .. first + count - 1 with a layer's tables, per segment (count, D); None = rows alone."""
        return Modulation(self, None if tables is None else tuple(tables), first, count)


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
            for i, (rows, runs, order) in enumerate(
                zip(levels.rows, levels.runs, levels.level_of_run, strict=True)
            ):
                if levels.compiled is not None:  # rows of levels, in a graph that torch.compile makes
                    rows = _by_run(rows, runs, order)
                rows = rows[:, self.first : self.first + self.count]
                rows = rows if self.tables is None else rows + self.tables[i]
                found.append(rows.to(dtype).unbind(1))  # count x (U, D)
            self.parameters = tuple(zip(*found, strict=True))
        return self.parameters
