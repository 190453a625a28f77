"""The operations of `sora2.kernels.modulate` on a GPU, each one pass over the stream forward and one backward.

For eager mode: torch.compile fuses the plain forms itself, and better with its neighbours. The normed stream is not
stored; the backward sums a table's gradient in two fixed steps, within chunks of rows and then over the chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.stream import Runs
from sora2.kernels.triton.device import on_device_of
from sora2.kernels.triton.sums import SumPlan, sum_pieces

#: Programs of one backward launch at which a GPU is busy: eight per multiprocessor of the largest.
PROGRAMS = 8 * 132
#: Rows of a program at least, so that its sums cost little beside its rows.
ROWS = 8


def norm_modulate(
    x: Tensor, runs: tuple[Runs, ...], shifts: Sequence[Tensor], gains: Sequence[Tensor], eps: float
) -> Tensor:
    """As `sora2.kernels.modulate.norm_modulate`."""
    return _Modulate.apply(x, None, eps, runs, *shifts, *gains)[1]


def gated_add(x: Tensor, update: Tensor, runs: tuple[Runs, ...], gates: Sequence[Tensor]) -> Tensor:
    """As `sora2.kernels.modulate.gated_add`."""
    return _Modulate.apply(x, update, None, runs, *gates)[0]


def gated_add_norm_modulate(
    x: Tensor,
    update: Tensor,
    runs: tuple[Runs, ...],
    gates: Sequence[Tensor],
    shifts: Sequence[Tensor],
    gains: Sequence[Tensor],
    eps: float,
) -> tuple[Tensor, Tensor]:
    """As `sora2.kernels.modulate.gated_add_norm_modulate`."""
    return _Modulate.apply(x, update, eps, runs, *gates, *shifts, *gains)


class _Modulate(torch.autograd.Function):
    """(added, modulated); `update` None leaves the gate away, `eps` None the norm, and what is left away is None."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, update: Tensor | None, eps: float | None, runs: tuple[Runs, ...], *tables: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        from sora2.kernels.triton.modulate_kernel import modulate_kernel

        x = x.contiguous()
        update = None if update is None else update.contiguous()
        gated, normed = update is not None, eps is not None
        gates, shifts, gains = _split(tables, len(runs), gated, normed)
        added = torch.empty_like(x) if gated else None
        modulated = torch.empty_like(x) if normed else None
        mean, rstd = (x.new_empty(x.shape[0], dtype=_total(x)) if normed else None for _ in range(2))
        with on_device_of(x):
            for r, gate, shift, gain in zip(runs, gates, shifts, gains, strict=True):
                rows = r.rows.stop - r.rows.start
                if rows == 0:
                    continue
                streams = [
                    None if t is None else t[r.rows] for t in (x, update, added, modulated, mean, rstd)
                ]
                modulate_kernel[(rows,)](
                    *(*streams[:2], gate, shift, gain, r.index, *streams[2:]),
                    *(rows // (r.batch * r.runs), x.shape[1], eps if normed else 0.0),
                    **_constants(x, gated, normed, gain if gate is None else gate),
                )
        ctx.save_for_backward(added if gated else x, update, mean, rstd, *tables)
        ctx.runs, ctx.gated, ctx.normed = runs, gated, normed
        ctx.set_materialize_grads(False)
        return added, modulated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_added: Tensor | None, g_modulated: Tensor | None) -> tuple[Tensor | None, ...]:
        from sora2.kernels.triton.modulate_kernel import modulate_backward_kernel

        h, update, mean, rstd, *tables = ctx.saved_tensors
        gated, normed = ctx.gated, ctx.normed
        gates, _, gains = _split(tables, len(ctx.runs), gated, normed)
        g_added = _dense(g_added, h) if gated else None
        g_modulated = _dense(g_modulated, h) if normed else None
        g_x = torch.empty_like(h) if normed else g_added
        g_update = torch.empty_like(h) if gated else None
        found: list[list[Tensor]] = [[], [], []]  # gradients of gates, shifts, gains
        with on_device_of(h):
            for r, gate, gain in zip(ctx.runs, gates, gains, strict=True):
                table = gain if gate is None else gate
                rows, lines = r.rows.stop - r.rows.start, r.batch * r.runs
                length = rows // lines if lines else 0
                chunk = max(1, min(length, max(ROWS, -(-rows // PROGRAMS))))
                chunks = -(-length // chunk)
                plan = _plan(r, table) if length == 1 else None
                programs = lines * chunks if plan is None else plan.pieces
                kinds = (gated, normed, normed)
                sums = h.new_empty(sum(kinds), programs, h.shape[1], dtype=_total(h))
                parts = iter(sums)
                shares = [next(parts) if kept else None for kept in kinds]
                streams = [
                    None if t is None else t[r.rows]
                    for t in (g_added, g_modulated, h, update, mean, rstd, g_x, g_update)
                ]
                if rows:
                    modulate_backward_kernel[(programs,)](
                        *(*streams[:4], gate, gain, r.index, *streams[4:], *shares),
                        *((None, None) if plan is None else (plan.order, plan.piece)),
                        *(length, chunk, chunks, h.shape[1]),
                        **_constants(h, gated, normed, table),
                    )
                summed = iter(_by_row(sums, r, table, chunks) if plan is None else sum_pieces(sums, plan))
                for to, kept in zip(found, kinds, strict=True):
                    if kept:
                        to.append(next(summed).to(table.dtype))
        return g_x, g_update, None, None, *found[0], *found[1], *found[2]


def _split(
    tables: Sequence[Tensor], count: int, gated: bool, normed: bool
) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None], Sequence[Tensor | None]]:
    """Gates, shifts and gains per modality, contiguous; None where an operation has none."""
    tables = [t.contiguous() for t in tables]
    none = [None] * count
    gates = tables[:count] if gated else none
    rest = tables[count:] if gated else tables
    return gates, (rest[:count] if normed else none), (rest[count:] if normed else none)


def _plan(runs: Runs, table: Tensor) -> SumPlan | None:
    """How tokens add up to the rows that they look up one by one; None where they share one row, or have their own."""
    if runs.index is None or table.shape[0] == 1:
        return None
    return SumPlan.of(runs.index, table.shape[0]) if runs.plan is None else runs.plan


def _by_row(sums: Tensor, runs: Runs, table: Tensor, chunks: int) -> Tensor:
    """Sums of chunks (K, batch * runs * chunks, D) -> of rows of the table (K, U, D), in a fixed order."""
    per_run = sums.view(len(sums), runs.batch * runs.runs, chunks, -1).sum(2)  # (K, batch * runs, D)
    if table.shape[0] == 1:
        return per_run.sum(1, keepdim=True)
    if runs.index is None:
        return per_run
    users = torch.arange(table.shape[0], device=table.device)[:, None] == runs.index  # (U, batch * runs)
    return users.to(per_run.dtype) @ per_run


def _dense(grad: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if grad is None else grad.contiguous()


def _total(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _constants(x: Tensor, gated: bool, normed: bool, table: Tensor) -> dict:
    import triton
    import triton.language as tl

    block = triton.next_power_of_2(x.shape[1])
    return {
        "GATED": gated,
        "NORMED": normed,
        "SHARED": table.shape[0] == 1,
        "BLOCK": block,
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "num_warps": min(16, max(1, block // 256)),
    }
