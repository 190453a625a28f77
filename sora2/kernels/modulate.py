"""Norm + modulate and gate + residual over a modality-major stream, with a backward of their own.

The stream is flat, (T, D), one contiguous slice per modality. A modality's parameters are rows of a table
that are looked up by runs of consecutive tokens, so nothing of size T is gathered when a clip has one level,
and the gradient of a table is a sum over each run's tokens.

Plain autograd computes the same (`norm_modulate_reference` and `gated_add_reference` are the definitions) but
splits and concatenates the stream at every step; these write slices of one output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.stream import Runs
from sora2.kernels.triton import modulate as on_gpu
from sora2.kernels.triton import takes


def _modulate(out: Tensor, normed: Tensor, runs: Sequence[Runs], tables: Sequence[Tensor]) -> Tensor:
    for r, shift, gain in zip(runs, tables[::2], tables[1::2], strict=True):
        torch.addcmul(r.gather(shift), r.view(normed), r.gather(gain), out=r.view(out))
    return out


def _scale(out: Tensor, x: Tensor, runs: Sequence[Runs], tables: Sequence[Tensor]) -> Tensor:
    for r, table in zip(runs, tables, strict=True):
        torch.mul(r.view(x), r.gather(table), out=r.view(out))
    return out


def _scatter(product: Tensor, runs: Sequence[Runs], tables: Sequence[Tensor]) -> list[Tensor]:
    return [r.scatter(r.view(product), table) for r, table in zip(runs, tables, strict=True)]


def _norm_modulate_backward(
    grad: Tensor, saved: Sequence[Tensor], runs: Sequence[Runs], tables: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of the stream and of the interleaved (shift, gain) tables; saved is (x, normed, mean, rstd)."""
    x, normed, mean, rstd = saved
    scratch = torch.mul(grad, normed)  # (T, D)
    pairs = zip(_scatter(grad, runs, tables[::2]), _scatter(scratch, runs, tables[1::2]), strict=True)
    flat = [g for pair in pairs for g in pair]
    _scale(scratch, grad, runs, tables[1::2])
    only_input = [True, False, False]
    gx = torch.ops.aten.native_layer_norm_backward(
        scratch, x, x.shape[-1:], mean, rstd, None, None, only_input
    )[0]
    return gx, flat


class _NormModulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, runs: tuple[Runs, ...], *tables: Tensor) -> Tensor:
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)  # (T, D)
        ctx.save_for_backward(x, normed, mean, rstd, *tables)
        ctx.runs = runs
        return _modulate(torch.empty_like(x), normed, runs, tables)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, tables = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        gx, g_tables = _norm_modulate_backward(grad.contiguous(), saved, ctx.runs, tables)
        return gx, None, None, *g_tables


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
        g_gates = _scatter(scratch, ctx.runs, gates)
        return grad, _scale(scratch, grad, ctx.runs, gates), None, *g_gates


class _GatedAddNormModulate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, update: Tensor, eps: float, runs: tuple[Runs, ...], *tables: Tensor
    ) -> tuple[Tensor, Tensor]:
        gates, modulation = tables[: len(runs)], tables[len(runs) :]
        out = torch.empty_like(x)
        for r, gate in zip(runs, gates, strict=True):
            torch.addcmul(r.view(x), r.view(update), r.gather(gate), out=r.view(out))
        normed, mean, rstd = torch.native_layer_norm(out, out.shape[-1:], None, None, eps)  # (T, D)
        ctx.save_for_backward(out, normed, mean, rstd, update, *tables)
        ctx.runs = runs
        return out, _modulate(torch.empty_like(x), normed, runs, modulation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_out: Tensor, g_modulated: Tensor) -> tuple[Tensor | None, ...]:
        saved, update, tables = ctx.saved_tensors[:4], ctx.saved_tensors[4], ctx.saved_tensors[5:]
        gates, modulation = tables[: len(ctx.runs)], tables[len(ctx.runs) :]
        grad, g_modulation = _norm_modulate_backward(g_modulated.contiguous(), saved, ctx.runs, modulation)
        grad.add_(g_out)  # (T, D)
        scratch = torch.mul(grad, update)  # (T, D)
        g_gates = _scatter(scratch, ctx.runs, gates)
        return grad, _scale(scratch, grad, ctx.runs, gates), None, None, *g_gates, *g_modulation


def norm_modulate(
    x: Tensor, runs: tuple[Runs, ...], shifts: Sequence[Tensor], gains: Sequence[Tensor], eps: float
) -> Tensor:
    """LayerNorm(x) * gain + shift, without learned norm weights.

    x (T, D); per modality a shift and a gain table (U, D), in the dtype of x -> (T, D).
    """
    if torch.compiler.is_compiling():  # the compiler fuses the plain form itself
        return norm_modulate_reference(x, runs, shifts, gains, eps)
    if takes(x):
        return on_gpu.norm_modulate(x, runs, shifts, gains, eps)
    return _NormModulate.apply(x, eps, runs, *_interleave(shifts, gains))


def gated_add(x: Tensor, update: Tensor, runs: tuple[Runs, ...], gates: Sequence[Tensor]) -> Tensor:
    """x + gate * update. x and update (T, D); per modality a gate table (U, D), in the dtype of x -> (T, D)."""
    if torch.compiler.is_compiling():
        return gated_add_reference(x, update, runs, gates)
    if takes(x):
        return on_gpu.gated_add(x, update, runs, gates)
    return _GatedAdd.apply(x, update, runs, *gates)


def gated_add_norm_modulate(
    x: Tensor,
    update: Tensor,
    runs: tuple[Runs, ...],
    gates: Sequence[Tensor],
    shifts: Sequence[Tensor],
    gains: Sequence[Tensor],
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`gated_add`, and `norm_modulate` of its result, in one node: (x + gate * update, its norm modulated)."""
    if torch.compiler.is_compiling():
        x = gated_add_reference(x, update, runs, gates)
        return x, norm_modulate_reference(x, runs, shifts, gains, eps)
    if takes(x):
        return on_gpu.gated_add_norm_modulate(x, update, runs, gates, shifts, gains, eps)
    return _GatedAddNormModulate.apply(x, update, eps, runs, *gates, *_interleave(shifts, gains))


def norm_modulate_reference(
    x: Tensor, runs: tuple[Runs, ...], shifts: Sequence[Tensor], gains: Sequence[Tensor], eps: float
) -> Tensor:
    """The definition of `norm_modulate` in plain autograd."""
    normed = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)
    parts = [
        (r.view(normed) * r.gather(g) + r.gather(s)).flatten(0, 2)
        for r, s, g in zip(runs, shifts, gains, strict=True)
    ]
    return torch.cat(parts)


def gated_add_reference(x: Tensor, update: Tensor, runs: tuple[Runs, ...], gates: Sequence[Tensor]) -> Tensor:
    """The definition of `gated_add` in plain autograd."""
    parts = [
        (r.view(x) + r.view(update) * r.gather(g)).flatten(0, 2) for r, g in zip(runs, gates, strict=True)
    ]
    return torch.cat(parts)


def _interleave(shifts: Sequence[Tensor], gains: Sequence[Tensor]) -> list[Tensor]:
    return [t for pair in zip(shifts, gains, strict=True) for t in pair]
