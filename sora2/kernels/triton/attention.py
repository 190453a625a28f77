"""Tile-sparse attention as PyTorch operators: autograd, autocast, torch.compile and checkpointing see two functions.

`sora2::tile_attention` returns the output and the log-sum-exp in units of log2 (one rounding less between forward and
backward); `sora2::tile_attention_backward` returns the three gradients. Both are deterministic to the bit.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sora2.errors import UserError
from sora2.kernels.pattern import TilePattern
from sora2.kernels.triton import launch
from sora2.kernels.triton.blocks import DTYPES, HEADS
from sora2.kernels.triton.interpreter import interpreted
from sora2.kernels.triton.lists import KernelPattern

#: Oldest GPU with bf16 matrix products and asynchronous copies.
OLDEST = (8, 0)
#: Bytes to which rows must be aligned for full-speed copies.
ALIGNMENT = 16


class KernelError(UserError):
    """Inputs that the Triton kernels do not take; the message says what they take."""


@torch.compiler.assume_constant_result  # Dynamo would break the graph at the question for the GPU's capability
def unavailable(device: torch.device | str) -> str | None:
    """Why the kernels cannot run on this device, or None where they can."""
    device = torch.device(device)
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton (Linux, comes with PyTorch for CUDA)"
    if interpreted():
        return None
    if device.type != "cuda":
        return f"Triton kernels need a CUDA device; the tensors are on {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        return f"Triton kernels need compute capability {OLDEST}; {torch.cuda.get_device_name(device)} has {capability}"
    return None


def triton_attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: TilePattern | KernelPattern, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T * scale) v over the pairs that `pattern` allows; differentiable in q, k and v.

    Args:
        q: (B, H, N, D), channels contiguous, rows aligned to 16 bytes; batch, heads and tokens in any order.
        k, v: (B, H, M, D).
        pattern: prepared for the kernels at its first use, which then serves all layers.
        scale: 1 / sqrt(D) when None; positive.

    Returns:
        (B, H, N, D) output and (B, H, N) natural log-sum-exp, float32, both differentiable. A query that may see no
        key gets zero, a log-sum-exp of -inf and zero gradients.

    Raises:
        KernelError: before any launch; `why_not` gives the reason.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    reason = why_not(q, k, v, pattern)
    if reason is None and not scale > 0:
        reason = f"scale must be positive; got {scale}"
    if reason is not None:
        raise KernelError(f"attention backend 'triton': {reason}")
    p = KernelPattern.of(pattern, q.device)
    sizes = [p.query_size, p.key_size, p.groups]
    out, lse = torch.ops.sora2.tile_attention(q, k, v, p.tensors(), p.query_rank, p.key_rank, sizes, scale)
    return out, lse * math.log(2)


def why_not(q: Tensor, k: Tensor, v: Tensor, pattern: TilePattern | KernelPattern) -> str | None:
    """The reason why these inputs cannot be taken, None where they can."""
    reason = unavailable(q.device)
    if reason is not None:
        return reason
    if (
        q.ndim != 4
        or k.ndim != 4
        or k.shape != v.shape
        or q.shape[:2] != k.shape[:2]
        or q.shape[3] != k.shape[3]
    ):
        return f"takes q (B, H, N, D) and k, v (B, H, M, D); got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
    if q.shape[3] not in HEADS:
        return f"takes head sizes {', '.join(map(str, HEADS))}; got {q.shape[3]}"
    if not q.dtype == k.dtype == v.dtype or q.dtype not in DTYPES:
        listed = ", ".join(map(str, DTYPES))
        return f"takes q, k and v of one dtype out of {listed}; got {q.dtype}, {k.dtype}, {v.dtype}"
    if not q.device == k.device == v.device:
        return f"takes q, k and v on one device; got {q.device}, {k.device}, {v.device}"
    # The prepared form knows its sizes without asking the GPU.
    reason = _pattern_mismatch(q, k, KernelPattern.of(pattern, q.device))
    if reason is not None or torch.compiler.is_compiling():  # addresses are unknown until the operator runs
        return reason
    return _misaligned(q, k, v)


def _pattern_mismatch(q: Tensor, k: Tensor, pattern: KernelPattern) -> str | None:
    batch, heads = q.shape[:2]
    if (q.shape[2], k.shape[2]) != (pattern.queries, pattern.keys):
        return (
            f"the pattern is of {pattern.queries} queries and {pattern.keys} keys; q has {q.shape[2]} tokens and k "
            f"{k.shape[2]}"
        )
    if pattern.groups not in (1, batch, batch * heads):
        return (
            f"the pattern has {pattern.groups} groups of lists; {batch} samples of {heads} heads take 1, {batch} or "
            f"{batch * heads}"
        )
    if pattern.key_rank is not None and pattern.key_rank.shape[0] not in (1, batch):
        return f"the pattern's ranks are of {pattern.key_rank.shape[0]} samples; the batch has {batch}"
    return None


def _misaligned(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.stride(3) != 1:
            return f"the channels of {name} must be contiguous; its strides are {x.stride()}"
        steps = [x.data_ptr(), *(s * x.element_size() for s in x.stride()[:3])]
        if x.is_cuda and any(s % ALIGNMENT for s in steps):
            return (
                f"rows of {name} must be aligned to {ALIGNMENT} bytes; its strides are {x.stride()} at address "
                f"{x.data_ptr()}: pass {name}.clone(memory_format=torch.contiguous_format)"
            )
    return None


_PATTERN = "Tensor[] lists, Tensor? query_rank, Tensor? key_rank, int[] sizes, float scale"


@torch.library.custom_op(
    "sora2::tile_attention",
    mutates_args=(),
    schema=f"(Tensor q, Tensor k, Tensor v, {_PATTERN}) -> (Tensor, Tensor)",
)
def _forward(q, k, v, lists, query_rank, key_rank, sizes, scale):  # type: ignore[no-untyped-def]
    reason = _misaligned(q, k, v)
    if reason is not None:
        raise KernelError(f"attention backend 'triton': {reason}")
    return launch.forward(q, k, v, launch.Problem(lists, query_rank, key_rank, *sizes, scale))


@_forward.register_fake
def _(q, k, v, lists, query_rank, key_rank, sizes, scale):  # type: ignore[no-untyped-def]
    return launch.empty_output(q)


@torch.library.custom_op(
    "sora2::tile_attention_backward",
    mutates_args=(),
    schema=f"(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, {_PATTERN})"
    " -> (Tensor, Tensor, Tensor)",
)
def _backward(grad_out, grad_lse, q, k, v, out, lse, lists, query_rank, key_rank, sizes, scale):  # type: ignore[no-untyped-def]
    problem = launch.Problem(lists, query_rank, key_rank, *sizes, scale)
    if _misaligned(grad_out, k, v) is not None:
        grad_out = grad_out.clone(memory_format=torch.contiguous_format)
    if grad_lse is not None:
        grad_lse = (grad_lse * math.log2(math.e)).contiguous()
    return launch.backward(grad_out, grad_lse, q, k, v, out, lse, problem)


@_backward.register_fake
def _(grad_out, grad_lse, q, k, v, out, lse, lists, query_rank, key_rank, sizes, scale):  # type: ignore[no-untyped-def]
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, lists, query_rank, key_rank, sizes, scale = inputs
    ctx.save_for_backward(q, k, v, *output, query_rank, key_rank, *lists)
    ctx.sizes, ctx.scale = sizes, scale
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, query_rank, key_rank, *lists = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    grads = torch.ops.sora2.tile_attention_backward(
        grad_out, grad_lse, q, k, v, out, lse, lists, query_rank, key_rank, ctx.sizes, ctx.scale
    )
    return (*grads, [None] * len(lists), None, None, None, None)


_forward.register_autograd(_gradients, setup_context=_save)


def _register_autocast() -> None:
    """q, k and v take the dtype of the autocast region, as in PyTorch's own attention."""
    library = torch.library.Library("sora2", "FRAGMENT")
    for device in ("cpu", "cuda"):

        def cast(q: Tensor, k: Tensor, v: Tensor, *rest: Any, device: str = device) -> tuple[Tensor, Tensor]:
            dtype = torch.get_autocast_dtype(device)
            q, k, v = (x.to(dtype) if x.dtype != torch.float64 else x for x in (q, k, v))
            with torch.autocast(device, enabled=False):
                return torch.ops.sora2.tile_attention(q, k, v, *rest)

        library.impl("tile_attention", cast, f"Autocast{device.upper()}")
    _LIBRARIES.append(library)


_LIBRARIES: list[torch.library.Library] = []  # registrations live as long as their library object
_register_autocast()
