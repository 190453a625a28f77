"""Split and merge of heads by compiled kernels: QK-norm, rotation and change of layout in one pass each way."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.cpu.library import Library, Long, Pointer
from sora2.kernels.stream import Span


class _Spans(ctypes.Structure):
    _fields_ = [(name, Long) for name in ("count", "batch", "tokens")] + [
        (name, Pointer) for name in ("row", "start", "length")
    ]


@functools.lru_cache(maxsize=64)
def _laid_out(batch: int, *bounds: tuple[int, int, int]) -> tuple[_Spans, tuple[ctypes.Array, ...]]:
    """The structure, and the arrays that it points to. Checked here: the kernels trust it."""
    row, place = 0, 0
    for first, start, length in bounds:
        if first != row or start != place or length < 0:
            raise ValueError(f"spans {bounds} do not cover the stream of {batch} samples in order")
        row, place = row + batch * length, place + length
    arrays = tuple((Long * len(bounds))(*column) for column in zip(*bounds, strict=True))
    return _Spans(len(bounds), batch, place, *(ctypes.addressof(a) for a in arrays)), arrays


def _spans(spans: tuple[Span, ...], batch: int, rows: int, tokens: int) -> int:
    """The address of the C structure, which stays alive in the cache."""
    bounds = tuple((s.rows.start, s.sequence.start, s.sequence.stop - s.sequence.start) for s in spans)
    found = _laid_out(batch, *bounds)[0]
    if found.tokens != tokens or batch * tokens != rows:
        raise ValueError(f"spans {bounds} of {batch} samples do not cover {rows} rows and {tokens} tokens")
    return ctypes.addressof(found)


class SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        library: Library,
        qkv: Tensor,
        gain: Tensor,
        cosine: Tensor,
        sine: Tensor,
        spans: tuple[Span, ...],
        shape: tuple[int, int, int, int],
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        b, h, n, dh = shape
        qkv = qkv.contiguous()
        weight, cosine, sine = (x.float().contiguous() for x in (gain, cosine, sine))
        if qkv.shape != (b * n, 3 * h * dh) or cosine.shape not in ((1, n, dh // 2), (b, n, dh // 2)):
            raise ValueError(
                f"qkv {tuple(qkv.shape)} and angles {tuple(cosine.shape)} do not fit heads {shape}"
            )
        out = qkv.new_empty(3, b, h, n, dh)
        library.split_heads(
            _spans(spans, b, qkv.shape[0], n), qkv.dtype == torch.bfloat16, h, dh, qkv.data_ptr(), weight.data_ptr(),
            cosine.data_ptr(), sine.data_ptr(), cosine.shape[0], eps, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(qkv, weight, cosine, sine)
        ctx.library, ctx.spans, ctx.shape, ctx.eps, ctx.dtype = library, spans, shape, eps, gain.dtype
        return out[0], out[1], out[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weight, cosine, sine = ctx.saved_tensors
        b, h, n, dh = ctx.shape
        q, k, v = (g.contiguous() for g in grads)  # (B, H, N, Dh)
        grad, grad_gain = torch.empty_like(qkv), torch.zeros_like(weight)
        ctx.library.split_heads_backward(
            _spans(ctx.spans, b, qkv.shape[0], n), qkv.dtype == torch.bfloat16, h, dh, qkv.data_ptr(),
            weight.data_ptr(), cosine.data_ptr(), sine.data_ptr(), cosine.shape[0], ctx.eps, q.data_ptr(),
            k.data_ptr(), v.data_ptr(), grad.data_ptr(), grad_gain.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return None, grad, grad_gain.to(ctx.dtype), None, None, None, None, None


class MergeHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, x: Tensor, spans: tuple[Span, ...]) -> Tensor:
        ctx.library, ctx.spans, ctx.shape = library, spans, x.shape
        b, h, n, dh = x.shape
        x, out = x.contiguous(), x.new_empty(b * n, h * dh)
        _merge(library, x, out, spans, to_stream=True)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous()
        out = grad.new_empty(ctx.shape)
        _merge(ctx.library, out, grad, ctx.spans, to_stream=False)
        return None, out, None


def _merge(
    library: Library, in_heads: Tensor, in_stream: Tensor, spans: tuple[Span, ...], to_stream: bool
) -> None:
    b, h, n, dh = in_heads.shape
    library.merge_heads(
        _spans(spans, b, in_stream.shape[0], n), in_heads.dtype == torch.bfloat16, to_stream, h, dh,
        in_heads.data_ptr(), in_stream.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
