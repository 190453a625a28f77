"""Norm + modulate and gate + residual over a modality-major stream, each with its own backward.

The stream is flat, (T, D), one contiguous slice per modality. A modality's parameters are rows of a small table (U, D),
looked up by runs: `index` (B, R) names the row of each run of consecutive tokens. So nothing of size T is gathered
when a clip has one level (R = 1), and the gradient of a table is a sum over runs and a scatter of B * R rows.

Plain autograd computes the same (`modulate_reference`, `gated_add_reference` are the definitions) but splits and
concatenates the stream at every step; these write slices of one output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Runs:
    """Where one modality lies in the stream and which table row each of its runs uses."""

    rows: slice  # of the (T, D) stream
    index: Tensor  # (B, R) int64

    def view(self, flat: Tensor) -> Tensor:
        """(T, D) -> (B, R, tokens of a run, D), a view."""
        part = flat[self.rows]
        return part.view(*self.index.shape, -1, part.shape[-1])

    def gather(self, table: Tensor) -> Tensor:
        """(U, D) -> (B, R, 1, D)."""
        return table.index_select(0, self.index.flatten()).view(*self.index.shape, 1, -1)

    def scatter(self, grad: Tensor, table: Tensor) -> Tensor:
        """Sum of (B, R, n, D) over the tokens that used each row -> (U, D): the backward of `gather`."""
        per_run = grad.sum(2).flatten(0, 1)  # (B * R, D)
        if table.shape[0] == 1:
            return per_run.sum(0, keepdim=True)
        return torch.zeros_like(table).index_add_(0, self.index.flatten(), per_run)


class _NormModulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, runs: tuple[Runs, ...], *tables: Tensor) -> Tensor:
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)  # (T, D)
        out = torch.empty_like(x)
        for r, shift, gain in zip(runs, tables[::2], tables[1::2], strict=True):
            torch.addcmul(r.gather(shift), r.view(normed), r.gather(gain), out=r.view(out))
        ctx.save_for_backward(x, normed, mean, rstd, *tables)
        ctx.runs = runs
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, normed, mean, rstd, *tables = ctx.saved_tensors
        grad = grad.contiguous()
        scratch = torch.mul(grad, normed)  # (T, D)
        grads: list[Tensor] = []
        for r, shift, gain in zip(ctx.runs, tables[::2], tables[1::2], strict=True):
            grads += [r.scatter(r.view(grad), shift), r.scatter(r.view(scratch), gain)]
        for r, gain in zip(ctx.runs, tables[1::2], strict=True):
            torch.mul(r.view(grad), r.gather(gain), out=r.view(scratch))
        mask = [True, False, False]
        gx = torch.ops.aten.native_layer_norm_backward(
            scratch, x, x.shape[-1:], mean, rstd, None, None, mask
        )[0]
        return gx, None, None, *grads


class _GatedAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, update: Tensor, runs: tuple[Runs, ...], *gates: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for r, gate in zip(runs, gates, strict=True):
            torch.addcmul(r.view(x), r.view(update), r.gather(gate), out=r.view(out))
        ctx.save_for_backward(update, *gates)
        ctx.runs = runs
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        update, *gates = ctx.saved_tensors
        grad = grad.contiguous()
        scratch = torch.mul(grad, update)  # (T, D)
        grads = [r.scatter(r.view(scratch), gate) for r, gate in zip(ctx.runs, gates, strict=True)]
        for r, gate in zip(ctx.runs, gates, strict=True):
            torch.mul(r.view(grad), r.gather(gate), out=r.view(scratch))
        return grad, scratch, None, *grads


def norm_modulate(
    x: Tensor, runs: tuple[Runs, ...], shifts: list[Tensor], gains: list[Tensor], eps: float
) -> Tensor:
    """LayerNorm(x) * gain + shift, without learned norm weights.

    x (T, D); per modality a shift and a gain table (U, D), in the dtype of x -> (T, D).
    """
    tables = [t for pair in zip(shifts, gains, strict=True) for t in pair]
    return _NormModulate.apply(x, eps, runs, *tables)


def gated_add(x: Tensor, update: Tensor, runs: tuple[Runs, ...], gates: list[Tensor]) -> Tensor:
    """x + gate * update. x and update (T, D); per modality a gate table (U, D), in the dtype of x -> (T, D)."""
    return _GatedAdd.apply(x, update, runs, *gates)


def norm_modulate_reference(
    x: Tensor, runs: tuple[Runs, ...], shifts: list[Tensor], gains: list[Tensor], eps: float
) -> Tensor:
    """The definition of `norm_modulate` in plain autograd."""
    normed = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)
    parts = [
        (r.view(normed) * g[r.index].unsqueeze(2) + s[r.index].unsqueeze(2)).flatten(0, 2)
        for r, s, g in zip(runs, shifts, gains, strict=True)
    ]
    return torch.cat(parts)


def gated_add_reference(x: Tensor, update: Tensor, runs: tuple[Runs, ...], gates: list[Tensor]) -> Tensor:
    """The definition of `gated_add` in plain autograd."""
    parts = [
        (r.view(x) + r.view(update) * g[r.index].unsqueeze(2)).flatten(0, 2)
        for r, g in zip(runs, gates, strict=True)
    ]
    return torch.cat(parts)
