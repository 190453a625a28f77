"""Norm, shift, gain and gate by compiled kernels, each tensor read and written once in either direction.

Parameters are looked up by the token's row of levels inside the kernel: nothing of the size of the stream is made of
them. Gradients of the rows, which all blocks share, are summed in one float32 buffer (`RowGradients`), not block by
block.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.cpu.library import Library, Long, Pointer

#: Tokens of one task. A constant: sums must not depend on the number of threads.
TASK_TOKENS = 64


class _Plan(ctypes.Structure):
    _fields_ = [(name, Long) for name in ("tokens", "width", "columns", "segments", "tasks", "slots", "splits")] + [
        (name, Pointer)
        for name in (
            "task_chunk", "task_segment", "chunk_token", "chunk_row", "chunk_slot", "order", "split_slot", "split_row",
            "split_segment", "rows",
        )
    ]  # fmt: skip


def work_of(row_of_token: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.int32]]:
    """The tokens of every row, cut into tasks of `TASK_TOKENS` and these into chunks of one row.

    Args:
        row_of_token: per segment of the stream, in order, the row of each of its tokens.

    Returns:
        The arrays of `struct Plan` in `source/modulate.h`.
    """
    orders, rows, starts, segments, first = [], [], [], [], 0
    for segment, row in enumerate(row_of_token):
        order = np.argsort(row, kind="stable")
        by_row = row[order]
        begins = np.empty(len(row), dtype=bool)
        begins[1:] = by_row[1:] != by_row[:-1]
        begins[::TASK_TOKENS] = True
        start = np.flatnonzero(begins)
        orders.append(order + first)
        starts.append(start + first)
        rows.append(by_row[start])
        segments.append(np.full(len(start), segment))
        first += len(row)
    chunk_token, chunk_row, chunk_segment = (np.concatenate(x) for x in (starts, rows, segments))
    offset = np.concatenate([np.arange(len(row)) % TASK_TOKENS == 0 for row in row_of_token])
    task_chunk = np.flatnonzero(offset[chunk_token])  # chunks with which a task begins
    same = np.zeros(len(chunk_row), dtype=bool)  # of the row of the chunk before
    same[1:] = (chunk_row[1:] == chunk_row[:-1]) & (chunk_segment[1:] == chunk_segment[:-1])
    shared = same.copy()
    shared[:-1] |= same[1:]
    slot = np.where(shared, np.cumsum(shared) - 1, -1)
    split = np.flatnonzero(shared & ~same)
    found = {
        "task_chunk": np.append(task_chunk, len(chunk_row)),
        "task_segment": chunk_segment[task_chunk],
        "chunk_token": np.append(chunk_token, first),
        "chunk_row": chunk_row,
        "chunk_slot": slot,
        "order": np.concatenate(orders),
        "split_slot": np.append(slot[split], shared.sum()),
        "split_row": chunk_row[split],
        "split_segment": chunk_segment[split],
    }
    return {name: np.ascontiguousarray(x, dtype=np.int32) for name, x in found.items()}


class RowGradients:
    """Gradients of the rows of levels in the running backward pass: one buffer per segment that all layers add to."""

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        self.shapes = tuple(shapes)
        self.pass_number = -1  # of the backward pass that the buffers belong to
        self.buffers: list[Tensor] = []
        self.pointers: ctypes.Array | None = None
        self.written: set[int] = set()

    def begin(self, first: int, count: int) -> tuple[ctypes.Array, bool]:
        """The buffers, and whether columns first .. first + count - 1 hold something to add to."""
        number = torch._C._current_graph_task_id()
        if number != self.pass_number or self.pointers is None:
            self.pass_number = number
            self.buffers = [torch.empty(shape) for shape in self.shapes]
            self.pointers = (Pointer * len(self.buffers))(*(b.data_ptr() for b in self.buffers))
            self.written = set()
        columns = set(range(first, first + count))
        old = columns & self.written
        for buffer in self.buffers if old and old != columns else []:
            buffer[:, sorted(columns - old)] = 0.0
        self.written |= columns
        return self.pointers, bool(old)

    def take(self) -> list[Tensor] | None:
        """The sums, given away; None where no layer has added in this pass."""
        buffers, number = self.buffers, self.pass_number
        self.buffers, self.pointers, self.pass_number = [], None, -1
        if number != torch._C._current_graph_task_id():
            return None
        for column in set(range(self.shapes[0][1])) - self.written:
            for buffer in buffers:
                buffer[:, column] = 0.0
        return buffers


class _Shared(torch.autograd.Function):
    """Hands the rows on to all layers, and their summed gradient back."""

    @staticmethod
    def forward(ctx: Any, gradients: RowGradients, *rows: Tensor) -> tuple[Tensor, ...]:
        ctx.gradients = gradients
        ctx.set_materialize_grads(False)
        return tuple(r.view_as(r) for r in rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *direct: Tensor | None) -> tuple[Tensor | None, ...]:
        summed = ctx.gradients.take()
        if summed is None:
            return None, *direct
        return None, *(s if d is None else s + d for s, d in zip(summed, direct, strict=True))


class LevelRows:
    """The rows of one batch as the kernels read them."""

    def __init__(self, library: Library, rows: Sequence[Tensor], row_of_token: Sequence[Tensor]) -> None:
        """
        Args:
            rows: per segment of the stream (U, P, D), float32: P parameters of each distinct level.
            row_of_token: per segment (tokens,) int64, the row of each of its tokens.
        """
        self.library = library
        self.gradients = RowGradients([r.shape for r in rows])
        self.rows = _Shared.apply(self.gradients, *(r.float().contiguous() for r in rows))
        self._kept = [r.detach() for r in self.rows]
        self._work = work_of([r.cpu().numpy() for r in row_of_token])
        self._pointers = (Pointer * len(rows))(*(r.data_ptr() for r in self._kept))
        self.tokens, (_, self.columns, self.width) = sum(len(r) for r in row_of_token), rows[0].shape
        sizes = (
            len(self._work["task_segment"]),
            int(self._work["split_slot"][-1]),
            len(self._work["split_row"]),
        )
        arrays = {name: x.ctypes.data for name, x in self._work.items()}
        self.plan = _Plan(
            self.tokens,
            self.width,
            self.columns,
            len(rows),
            *sizes,
            **arrays,
            rows=ctypes.addressof(self._pointers),
        )

    def norm_modulate(
        self, x: Tensor, update: Tensor | None, table: Tensor | None, column: int, eps: float
    ) -> tuple[Tensor, Tensor]:
        """x and its norm modulated or, with an `update`, x + gate * update and its norm modulated.

        Args:
            x, update: (T, D).
            table: (segments, C, D) float32 added to the first C columns of the rows; None = nothing.
            column: of the first parameter: [gate,] shift, gain.
        """
        self._check(x, update)
        return _NormModulate.apply(x, update, table, self, column, eps, *self.rows)

    def gated_add(self, x: Tensor, update: Tensor, table: Tensor | None, column: int) -> Tensor:
        """x + gate * update, (T, D) each; the gate is parameter `column`."""
        self._check(x, update)
        return _GatedAdd.apply(x, update, table, self, column, *self.rows)

    def _check(self, x: Tensor, update: Tensor | None) -> None:
        if x.shape != (self.tokens, self.width) or (update is not None and update.shape != x.shape):
            given = f"{tuple(x.shape)}" + ("" if update is None else f" and {tuple(update.shape)}")
            raise ValueError(f"the stream is ({self.tokens}, {self.width}); got {given}")


def _prepared(
    x: Tensor, update: Tensor | None, table: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    x = x.contiguous()
    update = None if update is None else update.to(x.dtype).contiguous()
    return x, update, None if table is None else table.contiguous()


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _row_gradients(ctx: Any, count: int) -> tuple[ctypes.Array | None, int]:
    if not any(ctx.needs_input_grad[-len(ctx.levels.rows) :]):
        return None, 0
    pointers, add = ctx.levels.gradients.begin(ctx.column, count)
    return pointers, int(add)


class _NormModulate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, update: Tensor | None, table: Tensor | None, levels: LevelRows, column: int, eps: float,
        *rows: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        given = x
        x, update, table = _prepared(x, update, table)
        added = given if update is None else torch.empty_like(x)  # (T, D)
        out, statistics = torch.empty_like(x), torch.empty(x.shape[0], 2)
        levels.library.norm_modulate(
            ctypes.addressof(levels.plan), x.dtype == torch.bfloat16, column, _address(table),
            0 if table is None else table.shape[1], x.data_ptr(), _address(update),
            None if update is None else added.data_ptr(), out.data_ptr(), statistics.data_ptr(), eps,
            torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(x if update is None else added, statistics, update, table)
        ctx.levels, ctx.column = levels, column
        ctx.set_materialize_grads(False)
        return added, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, through: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        x, statistics, update, table = ctx.saved_tensors
        levels = ctx.levels
        grad = torch.zeros_like(x) if grad is None else grad.contiguous()
        through = None if through is None else through.contiguous()
        grad_x = torch.empty_like(x)
        grad_update = None if update is None else torch.empty_like(update)
        grad_table = None if table is None else torch.zeros_like(table)
        pointers, add = _row_gradients(ctx, 2 if update is None else 3)
        levels.library.norm_modulate_backward(
            ctypes.addressof(levels.plan), x.dtype == torch.bfloat16, ctx.column, _address(table),
            0 if table is None else table.shape[1], grad.data_ptr(), _address(through), x.data_ptr(),
            statistics.data_ptr(), _address(update), grad_x.data_ptr(), _address(grad_update), pointers, add,
            _address(grad_table), torch.get_num_threads(),
        )  # fmt: skip
        return grad_x, grad_update, grad_table, None, None, None, *[None] * len(levels.rows)


class _GatedAdd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        update: Tensor,
        table: Tensor | None,
        levels: LevelRows,
        column: int,
        *rows: Tensor,
    ) -> Tensor:
        x, update, table = _prepared(x, update, table)
        out = torch.empty_like(x)
        levels.library.gated_add(
            ctypes.addressof(levels.plan), x.dtype == torch.bfloat16, column, _address(table),
            0 if table is None else table.shape[1], x.data_ptr(), update.data_ptr(), out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(update, table)
        ctx.levels, ctx.column = levels, column
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        update, table = ctx.saved_tensors
        levels, grad = ctx.levels, grad.contiguous()
        grad_update = torch.empty_like(update)
        grad_table = None if table is None else torch.zeros_like(table)
        pointers, add = _row_gradients(ctx, 1)
        levels.library.gated_add_backward(
            ctypes.addressof(levels.plan), update.dtype == torch.bfloat16, ctx.column, _address(table),
            0 if table is None else table.shape[1], grad.data_ptr(), update.data_ptr(), grad_update.data_ptr(),
            pointers, add, _address(grad_table), torch.get_num_threads(),
        )  # fmt: skip
        return grad, grad_update, grad_table, None, None, *[None] * len(levels.rows)
