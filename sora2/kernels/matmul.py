"""Attention as matrix products around a softmax, for CPUs whose bf16 matrix product outruns the flash kernel.

With AVX512-bf16 a batched bf16 product reaches several times the speed of PyTorch's flash kernel, which gains
nothing from bf16 there. Scores are rounded to bf16: the output differs from the reference by about 5e-3.
Memory is bounded: beyond `KEEP_WEIGHTS` scores the products run in chunks of queries and the backward
recomputes them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.call import Call
from sora2.kernels.cpu.choice import library_for
from sora2.kernels.cpu.library import Library
from sora2.kernels.cpu.pointwise import softmax_, softmax_backward_

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
#: Scores up to which the softmax weights are kept for the backward (2 bytes each, per layer).
KEEP_WEIGHTS = 16 * 2**20
#: Scores of one chunk, where they are not kept: about what the last-level cache holds.
CHUNK_SCORES = 4 * 2**20


def why_not(call: Call) -> str | None:
    if call.q.device.type != "cpu" or call.q.dtype not in DTYPES:
        return f"takes {', '.join(map(str, DTYPES))} on cpu; got {call.q.dtype} on {call.q.device.type}"
    return None if call.pattern is None else "takes no pattern: use 'compiled' or 'tiled'"


def run(call: Call) -> tuple[Tensor, None]:
    return matmul_attention(call.q, call.k, call.v, call.key_mask, call.scale), None


def matmul_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, scale: float) -> Tensor:
    """q (B, H, N, D), k and v (B, H, M, D), key_mask (B, M) bool or None -> (B, H, N, D)."""
    if k.shape[2] == 0:
        return q * 0.0
    alive = None if key_mask is None else key_mask.any(1)  # (B,)
    out = _MatmulAttention.apply(q, k, v, key_mask, scale, library_for(q))
    if alive is None or bool(alive.all()):
        return out
    return out.masked_fill(
        ~alive[:, None, None, None], 0.0
    )  # a sample without keys; its gradients end here too


class _MatmulAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_mask: Tensor | None,
        scale: float,
        library: Library | None,
    ) -> Tensor:
        b, h, n, _ = q.shape
        keep = b * h * n * k.shape[2] <= KEEP_WEIGHTS and any(ctx.needs_input_grad)
        fq, fk, fv = (x.flatten(0, 1) for x in (q, k, v))  # (B * H, N or M, D)
        softmax = Softmax(key_mask, h, scale, library)
        ctx.scale, ctx.library = scale, library
        if keep:
            weights = softmax(fq, fk)
            ctx.save_for_backward(q, k, v, key_mask, weights)
            return torch.bmm(weights, fv).view_as(q)
        out = torch.empty_like(fq)
        for rows in _chunks(b * h, n, k.shape[2], False):
            out[:, rows] = torch.bmm(softmax(fq[:, rows], fk), fv)
        ctx.save_for_backward(q, k, v, key_mask, None)
        return out.view_as(q)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, key_mask, kept = ctx.saved_tensors
        b, h, n, _ = q.shape
        fq, fk, fv = (x.flatten(0, 1) for x in (q, k, v))
        fg = grad.flatten(0, 1)  # (B * H, N, D)
        softmax = Softmax(key_mask, h, ctx.scale, ctx.library)
        gq, gk, gv = torch.empty_like(fq), None, None
        for rows in _chunks(b * h, n, k.shape[2], kept is not None):
            weights = kept if kept is not None else softmax(fq[:, rows], fk)  # (B * H, n, M)
            g = fg[:, rows]
            to_v = torch.bmm(weights.transpose(1, 2), g)  # (B * H, M, D)
            g_scores = softmax.backward(torch.bmm(g, fv.transpose(1, 2)), weights)  # (B * H, n, M)
            gq[:, rows] = _product(g_scores, fk, softmax.rest)
            to_k = _product(g_scores.transpose(1, 2), fq[:, rows], softmax.rest)  # (B * H, M, D)
            if gk is None or gv is None:
                gk, gv = to_k, to_v
            else:  # sums over many chunks lose digits in bf16
                gk, gv = gk.float() + to_k, gv.float() + to_v
        return gq.view_as(q), gk.to(k.dtype).view_as(k), gv.to(v.dtype).view_as(v), None, None, None


class Softmax:
    """Weights (B * H, n, M) of queries and keys, and the gradient of the scores; scale and mask are in it."""

    def __init__(self, key_mask: Tensor | None, heads: int, scale: float, library: Library | None) -> None:
        self.scale, self.library, self.key_mask = scale, library, key_mask
        self.columns = _masked_columns(key_mask, heads) if library is None else None
        #: What is left to multiply the gradient of the scores with.
        self.rest = scale if library is None else 1.0

    def __call__(self, q: Tensor, k: Tensor) -> Tensor:
        """q (B * H, n, D), k (B * H, M, D) -> (B * H, n, M)."""
        if self.library is not None:
            return softmax_(self.library, torch.bmm(q, k.transpose(1, 2)), self.key_mask, self.scale)
        scores = _product(q, k.transpose(1, 2), self.scale)
        if self.columns is not None:
            first, last, hidden = self.columns
            scores[:, :, first:last].masked_fill_(hidden, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, -1)

    def backward(self, grad: Tensor, weights: Tensor) -> Tensor:
        """Gradient of the weights (overwritten) -> of q k^T, but for the factor `rest`."""
        if self.library is not None:
            return softmax_backward_(self.library, grad, weights, self.scale)
        return torch.ops.aten._softmax_backward_data(grad, weights, -1, weights.dtype)


def _product(a: Tensor, b: Tensor, factor: float) -> Tensor:
    """factor * a @ b over batches, in one product."""
    if factor == 1.0:
        return torch.bmm(a, b)
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0.0, alpha=factor)


def _chunks(rows: int, queries: int, keys: int, whole: bool) -> list[slice]:
    """Query ranges whose scores fit `CHUNK_SCORES`."""
    step = queries if whole else max(1, min(queries, CHUNK_SCORES // (rows * keys)))
    return [slice(i, min(i + step, queries)) for i in range(0, queries, step)]


def _masked_columns(key_mask: Tensor | None, heads: int) -> tuple[int, int, Tensor] | None:
    """The range of keys that are padding in any sample, and who must not see them: (first, last, (B * H, 1,
    cols)).

    Padding sits at the end of the text, so this is a narrow band and the rest of the scores is left alone.
    """
    if key_mask is None:
        return None
    columns = (~key_mask).any(0).nonzero()[:, 0]
    if len(columns) == 0:
        return None
    first, last = int(columns[0]), int(columns[-1]) + 1
    return first, last, ~key_mask[:, first:last].repeat_interleave(heads, 0).unsqueeze(1)
