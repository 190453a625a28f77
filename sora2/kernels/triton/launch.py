"""Launches of the attention kernels on tensors that were already checked (`attention.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sora2.kernels.triton.blocks import Blocks, blocks
from sora2.kernels.triton.device import on_device_of

#: Tensors of one `KernelLists`, see `KernelLists.tensors`.
LISTS = 7


@dataclass(frozen=True)
class Problem:
    """What a launch needs beside q, k and v; the flat form in which the operators carry a `KernelPattern`."""

    lists: Sequence[Tensor]
    query_rank: Tensor | None
    key_rank: Tensor | None
    query_size: int
    key_size: int
    groups: int
    scale: float


def forward(
    q: Tensor, k: Tensor, v: Tensor, problem: Problem, cut: Blocks | None = None
) -> tuple[Tensor, Tensor]:
    """(B, H, N, D) output, laid out as (B, N, H, D) in memory, and its (B, H, N) log2-sum-exp2 in float32."""
    from sora2.kernels.triton.forward import forward_kernel

    b, h, n, d = q.shape
    out, lse = empty_output(q)
    cut = (cut or blocks("forward", q.dtype, d)).fit(problem.query_size, problem.key_size)
    lists = problem.lists[:LISTS]
    row_parts = -(-problem.query_size // cut.queries)
    tiles = lists[0].shape[0] - 1
    with on_device_of(q):
        forward_kernel[(tiles * row_parts * h * b,)](
            *(q, k, v, *_tensor_maps(cut, cut.keys, k, v), out, lse),
            *_ranks(problem, q),
            *lists,
            *_strides(q, k, v, out),
            *(b, h, n, tiles, *_groups(problem, b, h), *_rank_strides(problem)),
            ROW_PARTS=row_parts,
            PARTS=-(-problem.key_size // cut.keys),
            EVEN=problem.key_size % cut.keys == 0,
            **_constants(problem, q, cut),
        )
    return out, lse


def query_gradient(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    delta: Tensor,
    problem: Problem,
    cut: Blocks | None = None,
) -> Tensor:
    """dQ like q; fills `delta` (B, H, N) for `key_gradient`. `grad_lse` is of the log2-sum-exp2, None for zero."""
    from sora2.kernels.triton.backward import query_gradient_kernel

    b, h, n, d = q.shape
    grad_q = torch.empty_like(q)
    cut = (cut or blocks("query_gradient", q.dtype, d)).fit(problem.query_size, problem.key_size)
    lists = problem.lists[:LISTS]
    row_parts = -(-problem.query_size // cut.queries)
    tiles = lists[0].shape[0] - 1
    with on_device_of(q):
        query_gradient_kernel[(tiles * row_parts * h * b,)](
            *(q, k, v, *_tensor_maps(cut, cut.keys, k, v), out, grad_out, lse, grad_lse, delta, grad_q),
            *_ranks(problem, q),
            *lists,
            *_strides(q, k, v, out, grad_out, grad_q),
            *(b, h, n, tiles, *_groups(problem, b, h), *_rank_strides(problem)),
            FACTOR=problem.scale,
            ROW_PARTS=row_parts,
            PARTS=-(-problem.key_size // cut.keys),
            EVEN=problem.key_size % cut.keys == 0,
            **_constants(problem, q, cut),
        )
    return grad_q


def key_gradient(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    delta: Tensor,
    problem: Problem,
    cut: Blocks | None = None,
) -> tuple[Tensor, Tensor]:
    """dK and dV like k and v."""
    from sora2.kernels.triton.backward import key_gradient_kernel

    b, h, n, d = q.shape
    grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
    cut = (cut or blocks("key_gradient", q.dtype, d)).fit(problem.query_size, problem.key_size)
    lists = problem.lists[LISTS:]
    row_parts = -(-problem.key_size // cut.keys)
    tiles = lists[0].shape[0] - 1
    with on_device_of(q):
        key_gradient_kernel[(tiles * row_parts * h * b,)](
            *(q, k, v, grad_out, *_tensor_maps(cut, cut.queries, q, grad_out), lse, delta, grad_k, grad_v),
            *_ranks(problem, q),
            *lists,
            *_strides(q, k, v, grad_out, grad_k, grad_v),
            *(b, h, n, tiles, *_groups(problem, b, h), *_rank_strides(problem)),
            FACTOR=problem.scale,
            ROW_PARTS=row_parts,
            PARTS=-(-problem.query_size // cut.queries),
            EVEN=problem.query_size % cut.queries == 0,
            **_constants(problem, q, cut),
        )
    return grad_k, grad_v


def backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    problem: Problem,
) -> tuple[Tensor, Tensor, Tensor]:
    """dQ, dK and dV."""
    delta = torch.empty_like(lse)
    grad_q = query_gradient(grad_out, grad_lse, q, k, v, out, lse, delta, problem)
    return grad_q, *key_gradient(grad_out, q, k, v, lse, delta, problem)


def empty_output(q: Tensor) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp, unset. Token-major, so that merging the heads afterwards copies nothing or in order."""
    b, h, n, d = q.shape
    total = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(b, n, h, d).transpose(1, 2), q.new_empty(b, h, n, dtype=total)


def _constants(problem: Problem, q: Tensor, cut: Blocks) -> dict:
    import triton.language as tl

    return {
        "SCALE": problem.scale * math.log2(math.e),
        "BLOCK_M": cut.queries,
        "BLOCK_N": cut.keys,
        "HEAD": q.shape[-1],
        "RANKED": problem.query_rank is not None,
        "ACC": tl.float64 if q.dtype == torch.float64 else tl.float32,
        # Three TF32 products carry float32's digits; plain TF32 would lose half of them.
        "PRECISION": "tf32x3" if q.dtype == torch.float32 and q.is_cuda else "ieee",
        "num_warps": cut.warps,
        "num_stages": cut.stages,
    }


def _tensor_maps(cut: Blocks, rows: int, *tensors: Tensor) -> list[Any]:
    """What the bulk copy engine needs to know of each tensor, where it is used."""
    if not cut.tensor_maps:
        return [None] * len(tensors)
    from triton.tools.tensor_descriptor import TensorDescriptor

    return [TensorDescriptor.from_tensor(t, [1, 1, rows, t.shape[-1]]) for t in tensors]


def _strides(*tensors: Tensor) -> list[int]:
    """Batch, head and token stride of each; the channel stride is 1."""
    return [s for t in tensors for s in t.stride()[:3]]


def _groups(problem: Problem, batch: int, heads: int) -> tuple[int, int]:
    """Strides, in groups of lists, of a sample and of a head."""
    if problem.groups == 1:
        return 0, 0
    return (heads, 1) if problem.groups == batch * heads else (1, 0)


def _ranks(problem: Problem, q: Tensor) -> tuple[Tensor, Tensor]:
    if problem.query_rank is None or problem.key_rank is None:
        return problem.lists[0], problem.lists[0]  # never read
    return problem.query_rank, problem.key_rank


def _rank_strides(problem: Problem) -> list[int]:
    ranks = (problem.query_rank, problem.key_rank)
    return [0 if r is None or r.shape[0] == 1 else r.stride(0) for r in ranks]
