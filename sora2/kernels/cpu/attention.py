"""Attention by AMX tiles: both products and the softmax of a head in cache, in bf16 with float32 sums."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.call import Call
from sora2.kernels.cpu.choice import cpu_kernels, library_for
from sora2.kernels.cpu.library import Library, Long, Pointer

#: Scores of one head beyond which a thread's buffers leave its cache.
MAX_SCORES = 2**22


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, Long) for name in ("batch", "heads", "queries", "keys", "width")),
        *((name, Long * 2) for name in ("q_strides", "k_strides", "v_strides")),
        ("scale", ctypes.c_float),
        ("mask", Pointer),
        ("threads", Long),
    ]


def why_not(call: Call) -> str | None:
    q, m = call.q, call.k.shape[2]
    if call.pattern is not None:
        return "takes no pattern: use 'tiled'"
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return f"takes bf16 on cpu; got {q.dtype} on {q.device.type}"
    if q.shape[3] % 32 or q.shape[3] > 256:
        return f"takes heads 32, 64, .. 256 wide; got {q.shape[3]}"
    if q.shape[2] * m > MAX_SCORES or m == 0:
        return f"takes 1 to {MAX_SCORES} scores per head; got {q.shape[2]} x {m}"
    library = library_for(q)
    if library is None:
        return f"needs the compiled CPU kernels ({cpu_kernels()})"
    return None if library.tiles else "needs a CPU with AMX"


def run(call: Call) -> tuple[Tensor, None]:
    return _TileAttention.apply(call.q, call.k, call.v, call.key_mask, call.scale, library_for(call.q)), None


def _rows_together(x: Tensor) -> Tensor:
    """x (B, H, N, D) with the N rows of a head one after the other; a slice of a longer buffer is left where it is."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def _call(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> _Attention:
    (b, h, n, d), m = q.shape, k.shape[2]
    strides = ((Long * 2)(x.stride(0), x.stride(1)) for x in (q, k, v))
    return _Attention(
        b, h, n, m, d, *strides, scale, None if mask is None else mask.data_ptr(), torch.get_num_threads()
    )


class _TileAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, scale: float, library: Library
    ) -> Tensor:
        q, k, v = (_rows_together(x) for x in (q, k, v))
        mask = None if key_mask is None else key_mask.contiguous()
        out, level = q.new_empty(q.shape), torch.empty(q.shape[:3])
        call = _call(q, k, v, mask, scale)
        library.attention(
            ctypes.addressof(call), q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), level.data_ptr()
        )
        ctx.save_for_backward(q, k, v, mask, out, level)
        ctx.scale, ctx.library = scale, library
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, out, level = ctx.saved_tensors
        grad = grad.contiguous()
        grads = [x.new_empty(x.shape) for x in (q, k, v)]
        call = _call(q, k, v, mask, ctx.scale)
        ctx.library.attention_backward(
            ctypes.addressof(call), *(x.data_ptr() for x in (q, k, v, out, level, grad, *grads))
        )
        return *grads, None, None, None
