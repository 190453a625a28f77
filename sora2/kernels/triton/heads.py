"""`split_heads` of `sora2.kernels.heads` as one kernel each way: an operator that torch.compile does not open.

Reads qkv once forward, and once with the three gradients backward; the norms are recomputed rather than stored. Sums
are in float32 throughout, with one rounding at the end. The gain's gradient is summed in a fixed order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sora2.kernels.stream import Span
from sora2.kernels.triton.device import on_device_of

#: Tokens of one program.
TOKENS = 16


def split_heads(
    qkv: Tensor, gain: Tensor, cosine: Tensor, sine: Tensor, spans: tuple[Span, ...], batch: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `sora2.kernels.heads.split_heads`, on a GPU. The tables must be contiguous; qkv may be a strided slice of
    rows."""
    flat = [x for s in spans for x in (s.rows.start, s.rows.stop, s.sequence.start, s.sequence.stop)]
    q, k, v = torch.ops.sora2.split_heads(qkv, gain, cosine, sine, flat, batch, eps)
    return q, k, v


@functools.lru_cache(maxsize=64)
def sequence_of_rows(spans: tuple[int, ...], batch: int, device: torch.device) -> Tensor:
    """(T,) int32: sample * N + position of each row of the stream. `spans` are four bounds per modality."""
    found = [torch.empty(0, dtype=torch.int64)]
    total = sum(stop - start for start, stop in zip(spans[2::4], spans[3::4], strict=True))
    for rows_start, rows_stop, start, stop in zip(*(spans[i::4] for i in range(4)), strict=True):
        if rows_start != sum(len(x) for x in found) or rows_stop - rows_start != batch * (stop - start):
            raise ValueError(f"spans {spans} do not cover the stream of {batch} samples in order")
        found.append((torch.arange(batch)[:, None] * total + torch.arange(start, stop)).flatten())
    return torch.cat(found).int().to(device)


def _grid(qkv: Tensor, gain: Tensor, batch: int) -> tuple[int, int, int, dict]:
    import triton
    import triton.language as tl

    tokens, head = qkv.shape[0], gain.shape[-1]
    constants = {
        "HALF": head // 2,
        "BLOCK": triton.next_power_of_2(head // 2),
        "TOKENS": TOKENS,
        "ACC": tl.float64 if qkv.dtype == torch.float64 else tl.float32,
        "num_warps": 4,
    }
    return tokens, qkv.shape[1] // (3 * head), tokens // batch, constants


@torch.library.custom_op(
    "sora2::split_heads",
    mutates_args=(),
    schema="(Tensor qkv, Tensor gain, Tensor cosine, Tensor sine, int[] spans, int batch, float eps)"
    " -> (Tensor, Tensor, Tensor)",
)
def _split(qkv, gain, cosine, sine, spans, batch, eps):  # type: ignore[no-untyped-def]
    from sora2.kernels.triton.heads_kernel import split_kernel

    tokens, heads, length, constants = _grid(qkv, gain, batch)
    q, k, v = _empty(qkv, gain, batch)
    with on_device_of(qkv):
        split_kernel[(-(-tokens // TOKENS),)](
            *(qkv, gain, cosine, sine, sequence_of_rows(tuple(spans), batch, qkv.device), q, k, v),
            *(tokens, heads, length, cosine.shape[0] * length, qkv.stride(0), eps),
            **constants,
        )
    return q, k, v


@_split.register_fake
def _(qkv, gain, cosine, sine, spans, batch, eps):  # type: ignore[no-untyped-def]
    return _empty(qkv, gain, batch)


@torch.library.custom_op(
    "sora2::split_heads_backward",
    mutates_args=(),
    schema="(Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor qkv, Tensor gain, Tensor cosine, Tensor sine,"
    " int[] spans, int batch, float eps) -> (Tensor, Tensor)",
)
def _split_backward(grad_q, grad_k, grad_v, qkv, gain, cosine, sine, spans, batch, eps):  # type: ignore[no-untyped-def]
    from sora2.kernels.triton.heads_kernel import split_backward_kernel

    tokens, heads, length, constants = _grid(qkv, gain, batch)
    grads = [g if g.stride(3) == 1 else g.contiguous() for g in (grad_q, grad_k, grad_v)]
    grad = qkv.new_empty(qkv.shape)
    programs = -(-tokens // TOKENS)
    total = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    shares = qkv.new_empty(programs, *gain.shape, dtype=total)
    with on_device_of(qkv):
        split_backward_kernel[(programs,)](
            *(
                qkv,
                gain,
                cosine,
                sine,
                sequence_of_rows(tuple(spans), batch, qkv.device),
                *grads,
                grad,
                shares,
            ),
            *(tokens, heads, length, cosine.shape[0] * length, qkv.stride(0)),
            *(s for g in grads for s in g.stride()[:3]),
            eps,
            **constants,
        )
    return grad, shares.sum(0).to(gain.dtype)


@_split_backward.register_fake
def _(grad_q, grad_k, grad_v, qkv, gain, cosine, sine, spans, batch, eps):  # type: ignore[no-untyped-def]
    return qkv.new_empty(qkv.shape), torch.empty_like(gain)


def _empty(qkv: Tensor, gain: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    head = gain.shape[-1]
    shape = (batch, qkv.shape[1] // (3 * head), qkv.shape[0] // batch, head)
    return qkv.new_empty(shape), qkv.new_empty(shape), qkv.new_empty(shape)


def _save(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, ...]) -> None:
    qkv, gain, cosine, sine, ctx.spans, ctx.batch, ctx.eps = inputs
    ctx.save_for_backward(qkv, gain, cosine, sine)


def _gradients(ctx: Any, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor) -> tuple[Any, ...]:
    grad, grad_gain = torch.ops.sora2.split_heads_backward(
        grad_q, grad_k, grad_v, *ctx.saved_tensors, ctx.spans, ctx.batch, ctx.eps
    )
    return grad, grad_gain, None, None, None, None, None


_split.register_autograd(_gradients, setup_context=_save)
