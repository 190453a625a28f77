"""The one door to attention: checks the inputs, picks a backend by a stated rule, and says which and why."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor

from sora2.kernels import dense as dense_kernels
from sora2.kernels import flex, matmul, reference, sdpa, tiled, xformers
from sora2.kernels.bf16 import has_fast_bf16
from sora2.kernels.call import AttentionError, Call, check
from sora2.kernels.cpu import attention as compiled
from sora2.kernels.pattern import TilePattern
from sora2.kernels.triton import KernelPattern, triton_attention, unavailable
from sora2.kernels.triton import why_not as triton_why_not
from sora2.kernels.triton.lists import dense


class SlowAttentionWarning(UserWarning):
    """Attention is correct, and runs on a backend that is far from the best this pattern allows."""


@dataclass(frozen=True)
class Choice:
    """Which backend will run, and why; `slow` says what it wastes, None when nothing."""

    backend: str
    reason: str
    slow: str | None = None

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}" + (f" (SLOW: {self.slow})" if self.slow else "")


@dataclass(frozen=True)
class Backend:
    """`why_not` gives the reason why a call cannot be taken, None where it can; `run` returns output and log-sum-exp.

    Backends that do not know the log-sum-exp return None for it.
    """

    why_not: Callable[[Call], str | None]
    run: Callable[[Call], tuple[Tensor, Tensor | None]]


def _triton_why_not(call: Call) -> str | None:
    missing = unavailable(call.q.device)
    return missing or triton_why_not(call.q, call.k, call.v, call.pattern or _everything(call, None))


def _triton(call: Call) -> tuple[Tensor, Tensor]:
    pattern = call.pattern or _everything(call, call.key_mask)
    return triton_attention(call.q, call.k, call.v, pattern, call.scale)


def _everything(call: Call, key_mask: Tensor | None) -> KernelPattern:
    return dense(call.q.shape[2], call.k.shape[2], key_mask, call.q.device)


REGISTRY: dict[str, Backend] = {
    "reference": Backend(reference.why_not, reference.run),
    "tiled": Backend(tiled.why_not, tiled.run),
    "triton": Backend(_triton_why_not, _triton),
    "sdpa": Backend(sdpa.why_not, sdpa.run),
    "matmul": Backend(matmul.why_not, matmul.run),
    "compiled": Backend(compiled.why_not, compiled.run),
    "cudnn": Backend(dense_kernels.cudnn_why_not, dense_kernels.run_cudnn),
    "flash": Backend(dense_kernels.flash_why_not, dense_kernels.run_flash),
    "flex": Backend(flex.why_not, flex.run),
    "xformers": Backend(xformers.why_not, xformers.run),
}
BACKENDS = ("auto", *REGISTRY)

_record: dict[Choice, int] | None = None


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: TilePattern | None = None,
    *,
    key_mask: Tensor | None = None,
    backend: str = "auto",
    scale: float | None = None,
    return_lse: Literal[False] = False,
) -> Tensor: ...


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: TilePattern | None = None,
    *,
    key_mask: Tensor | None = None,
    backend: str = "auto",
    scale: float | None = None,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: TilePattern | None = None,
    *,
    key_mask: Tensor | None = None,
    backend: str = "auto",
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(q k^T * scale) v over the keys that `pattern` and `key_mask` allow.

    Args:
        q: (B, H, N, D) queries.
        k, v: (B, H, M, D) keys and values.
        pattern: who sees whom; None is everything. With padding, `pattern.with_padding` once per batch costs less
            than `key_mask` here.
        key_mask: (B, M) bool, False for padding.
        backend: one of `BACKENDS`; "auto" chooses, see `explain`.
        scale: 1 / sqrt(D) when None.
        return_lse: also the natural log-sum-exp (B, H, N) of the allowed scores, -inf where there is none;
            backends 'reference', 'compiled', 'tiled' and 'triton' know it, and on the CPU it carries no gradient
            but in the reference.

    Returns:
        (B, H, N, D). A query that may attend to no key gets zero, and so do its gradients.

    Raises:
        AttentionError, PatternError: shapes, dtype, device or pattern that the backend cannot take, before anything
            runs; the message says what it takes.
    """
    call = _call(q, k, v, pattern, key_mask, scale)
    choice = _choose(call, backend)
    if _record is not None:
        _record[choice] = _record.get(choice, 0) + 1
    if choice.slow is not None and not torch.compiler.is_compiling():
        warnings.warn(f"attention runs on {choice}", SlowAttentionWarning, stacklevel=2)
    out, lse = REGISTRY[choice.backend].run(call)
    if not return_lse:
        return out
    if lse is None:
        raise AttentionError(
            f"attention backend {choice.backend!r} does not give the log-sum-exp: use 'reference', "
            "or a pattern (`dense_pattern`) with 'compiled', 'tiled' or 'triton'"
        )
    return out, lse


def explain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: TilePattern | None = None,
    *,
    key_mask: Tensor | None = None,
    backend: str = "auto",
) -> Choice:
    """The backend that `attention` would run for these inputs, with the reason; raises as `attention` does."""
    return _choose(_call(q, k, v, pattern, key_mask, None), backend)


@contextlib.contextmanager
def record_choices() -> Iterator[dict[Choice, int]]:
    """Inside, every attention call is counted under the backend that ran and its reason."""
    global _record
    before, _record = _record, {}
    try:
        yield _record
    finally:
        _record = before


def _call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: TilePattern | None,
    key_mask: Tensor | None,
    scale: float | None,
) -> Call:
    call = Call(q, k, v, pattern, key_mask, q.shape[-1] ** -0.5 if scale is None else scale)
    check(call)
    if pattern is None or key_mask is None:
        return call
    return Call(q, k, v, pattern.with_padding(key_mask), None, call.scale)


def _choose(call: Call, backend: str) -> Choice:
    if backend == "auto":
        return _automatic(call)
    if backend not in REGISTRY:
        raise AttentionError(f"attention backend {backend!r} is unknown: use one of {', '.join(BACKENDS)}")
    reason = REGISTRY[backend].why_not(call)
    if reason is not None:
        raise AttentionError(f"attention backend {backend!r} {reason}; backend 'auto' takes this call")
    return Choice(backend, "asked for by name", _waste(call, backend))


def _automatic(call: Call) -> Choice:
    device, dtype = call.q.device.type, call.q.dtype
    if call.pattern is not None:
        candidates = {"triton": REGISTRY["triton"].why_not}
        if device == "cpu":
            candidates = {"compiled": compiled.why_not_best, "tiled": tiled.why_not}
        reasons: list[str] = []
        for name, why_not in candidates.items():
            reason = why_not(call)
            if reason is None:
                skipped = "pairs of tiles that the pattern does not list are skipped"
                return Choice(name, "; ".join([skipped, *reasons]))
            reasons.append(f"{name} {reason}")
        return Choice("sdpa", "; ".join(reasons), _waste(call, "sdpa"))
    if device != "cpu" or dtype == torch.float16:
        # The compiler would trace how the lists are made.
        padded = call.key_mask is not None and not torch.compiler.is_compiling()
        if padded and dtype.itemsize == 2 and _triton_why_not(call) is None:
            return Choice(
                "triton", "padding is one number per key; given a mask, PyTorch leaves its fastest kernels"
            )
        return Choice("sdpa", f"PyTorch's fused kernels serve {dtype} on {device}")
    if compiled.outruns_flash(call):
        return Choice("compiled", "float32 in AVX-512, which MKL under the flash kernel leaves aside on AMD")
    if dtype != torch.bfloat16:
        return Choice("sdpa", f"in {dtype} the flash kernel equals plain products and keeps no scores")
    products = compiled.bf16_products(call)
    if products is not None:
        how = {"tiles": "in AMX tiles", "pairs": "of bf16 pairs (AVX512-bf16)"}[products]
        return Choice("compiled", f"products {how}, scores stay in the cache")
    if has_fast_bf16():  # the flash kernel gains nothing from bf16
        return Choice(
            "matmul", "bf16 products around a softmax run at two to three times the flash kernel here"
        )
    return Choice("sdpa", "bf16 products are not faster on this CPU: the flash kernel, in float32")


def _waste(call: Call, backend: str) -> str | None:
    """What a backend does needlessly for this call, None when nothing worth a warning. The reference is no kernel."""
    if call.pattern is None or backend != "sdpa":
        return None
    n, m = call.q.shape[2], call.k.shape[2]
    return f"a mask of {n} x {m} and all of its pairs, of which {call.pattern.density:.3f} count"
