"""Attention in the compiled kernels, over a pattern's pairs of tiles or over everything: products and softmax in cache.

bf16 is multiplied in AMX tiles or by the instruction for pairs (AVX512-bf16) where there are some, with float32 sums;
all else in float32. The backward is deterministic to the bit, whatever the number of threads.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.call import Call
from sora2.kernels.cpu.build import is_amd
from sora2.kernels.cpu.choice import DTYPES, cpu_kernels, library_for
from sora2.kernels.cpu.library import Library, Long, Pointer
from sora2.kernels.pattern import PADDING, Lists, TilePattern

MAX_WIDTH = 256


class _Lists(ctypes.Structure):
    _fields_ = [(name, Pointer) for name in ("start", "full", "entry")]


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, Long) for name in ("batch", "heads", "queries", "keys", "width")),
        *((name, Long * 2) for name in ("q_strides", "k_strides", "v_strides")),
        ("scale", ctypes.c_float),
        *((name, Long) for name in ("query_tiles", "key_tiles", "groups")),
        *((name, Pointer) for name in ("query_start", "key_start")),
        *((name, _Lists) for name in ("by_query", "by_key")),
        *((name, Pointer) for name in ("query_rank", "key_rank")),
        *((name, Long) for name in ("rank_rows", "threads")),
    ]


@dataclass(frozen=True)
class Pairs:
    """Which pairs of tiles are computed, and the ranks that are compared inside them."""

    query_start: Tensor  # (n + 1,) int32
    key_start: Tensor  # (m + 1,) int32
    groups: int
    by_query: Lists
    by_key: Lists
    query_rank: Tensor | None  # (1 or B, N) int32
    key_rank: Tensor | None  # (1 or B, M) int32


def why_not(call: Call) -> str | None:
    if call.q.device.type != "cpu" or call.q.dtype not in (*DTYPES, torch.float16):
        return f"takes bf16, fp16 and fp32 on cpu; got {call.q.dtype} on {call.q.device.type}"
    if call.q.shape[3] % 16 or call.q.shape[3] > MAX_WIDTH:
        return f"takes heads 16, 32, .. {MAX_WIDTH} wide; got {call.q.shape[3]}"
    if call.q.shape[2] == 0 or call.k.shape[2] == 0:
        return "takes at least one query and one key"
    if library_for(_taken(call.q)) is None:
        return f"needs the compiled CPU kernels ({cpu_kernels()})"
    return None


def bf16_products(call: Call) -> str | None:
    """How a call is multiplied in bf16, "tiles" or "pairs"; None where it is not taken, or in floats."""
    if call.q.dtype != torch.bfloat16 or why_not(call) is not None:
        return None
    library = library_for(call.q)
    return None if library is None or library.products == "floats" else library.products


def why_not_best(call: Call) -> str | None:
    """Why another backend serves a pattern better; None where this one is the best.

    Without AVX-512 the products here reach three quarters of the speed of PyTorch's.
    """
    reason = why_not(call)
    if reason is not None:
        return reason
    library = library_for(_taken(call.q))
    return None if library is not None and library.wide else "gains nothing from a CPU without AVX-512"


def outruns_flash(call: Call) -> bool:
    """Whether a float32 call without a pattern is faster here than by PyTorch's flash kernel: twice as fast with
    AVX-512 on AMD's processors, where MKL, which that kernel multiplies with, takes AVX2."""
    return (
        call.q.dtype == torch.float32
        and why_not_best(call) is None
        and torch.backends.mkl.is_available()
        and is_amd()
    )


def run(call: Call) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, D) and natural log-sum-exp (B, H, N) in float32, the latter without gradient."""
    q, k, v = (_taken(x) for x in (call.q, call.k, call.v))
    out, level = _CompiledAttention.apply(q, k, v, _pairs(call), call.scale, library_for(q))
    return out.to(call.q.dtype), level


def _taken(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float16 else x


def _pairs(call: Call) -> Pairs:
    if call.pattern is not None:
        return _of_pattern(call.pattern)
    n, m = call.q.shape[2], call.k.shape[2]
    if call.key_mask is None:
        return _everything(n, m)
    key_rank = (~call.key_mask).int() * PADDING  # (B, M)
    return Pairs(*_axes(n, m), 1, *_lists(False), key_rank.new_zeros(len(key_rank), n), key_rank)


def _of_pattern(p: TilePattern) -> Pairs:
    ranks = (None if r is None else r.contiguous() for r in (p.query_rank, p.key_rank))
    return Pairs(p.queries.start, p.keys.start, p.groups, p.by_query, p.by_key, *_same_rows(*ranks))


def _same_rows(query: Tensor | None, key: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Ranks with one row each, or one for every sample each."""
    if query is None or key is None or len(query) == len(key):
        return query, key
    rows = max(len(query), len(key))
    return query.expand(rows, -1).contiguous(), key.expand(rows, -1).contiguous()


@functools.lru_cache(maxsize=64)
def _everything(n: int, m: int) -> Pairs:
    return Pairs(*_axes(n, m), 1, *_lists(True), None, None)


@functools.lru_cache(maxsize=64)
def _axes(n: int, m: int) -> tuple[Tensor, Tensor]:
    return torch.tensor([0, n], dtype=torch.int32), torch.tensor([0, m], dtype=torch.int32)


@functools.cache
def _lists(full: bool) -> tuple[Lists, Lists]:
    """One tile of queries beside one of keys."""
    start, count, entry = (torch.tensor(x, dtype=torch.int32) for x in ([0, 1], [int(full)], [0]))
    return Lists(start, count, entry), Lists(start, count, entry)


def _rows_together(x: Tensor) -> Tensor:
    """x (B, H, N, D) with the N rows of a head one after the other; a slice of a longer buffer is left where it is."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def _describe(q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, scale: float) -> _Attention:
    (b, h, n, d), m = q.shape, k.shape[2]
    strides = ((Long * 2)(x.stride(0), x.stride(1)) for x in (q, k, v))
    lists = (_Lists(*_pointers((x.start, x.full, x.entry))) for x in (pairs.by_query, pairs.by_key))
    return _Attention(
        b, h, n, m, d, *strides, scale, len(pairs.query_start) - 1, len(pairs.key_start) - 1, pairs.groups,
        *_pointers((pairs.query_start, pairs.key_start)), *lists, *_pointers((pairs.query_rank, pairs.key_rank)),
        1 if pairs.key_rank is None else len(pairs.key_rank), torch.get_num_threads(),
    )  # fmt: skip


def _pointers(tensors: Iterable[Tensor | None]) -> list[int | None]:
    return [None if x is None else x.data_ptr() for x in tensors]


class _CompiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, scale: float, library: Library
    ) -> tuple[Tensor, Tensor]:
        q, k, v = (_rows_together(x) for x in (q, k, v))
        out, level = q.new_empty(q.shape), torch.empty(q.shape[:3])
        call, half = _describe(q, k, v, pairs, scale), int(q.dtype == torch.bfloat16)
        library.attention(ctypes.addressof(call), half, *_pointers((q, k, v, out, level)))
        ctx.save_for_backward(q, k, v, out, level)
        ctx.pairs, ctx.scale, ctx.library = pairs, scale, library
        ctx.mark_non_differentiable(level)
        return out, level

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, out, level = ctx.saved_tensors
        grads = [x.new_empty(x.shape) for x in (q, k, v)]
        call, half = _describe(q, k, v, ctx.pairs, ctx.scale), int(q.dtype == torch.bfloat16)
        tensors = (q, k, v, out, level, grad.contiguous(), *grads)
        ctx.library.attention_backward(ctypes.addressof(call), half, *_pointers(tensors))
        return *grads, None, None, None
