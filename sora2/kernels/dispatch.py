"""The one door to attention: checks the inputs, picks a backend by a stated rule, runs the layout's parts."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.errors import UserError
from sora2.kernels.layout import Layout
from sora2.kernels.matmul import has_fast_bf16, matmul_attention
from sora2.kernels.reference import reference_attention
from sora2.kernels.sdpa import sdpa_attention
from sora2.kernels.xformers import xformers_attention

BACKENDS = ("auto", "reference", "sdpa", "matmul", "xformers")
#: dtypes each backend computes in, by device type ("*" any).
SUPPORTED: dict[str, dict[str, tuple[torch.dtype, ...]]] = {
    "reference": {"*": (torch.float64, torch.float32, torch.bfloat16, torch.float16)},
    "sdpa": {
        "cpu": (torch.float64, torch.float32, torch.bfloat16),
        "*": (torch.float64, torch.float32, torch.bfloat16, torch.float16),
    },
    "matmul": {"cpu": (torch.float64, torch.float32, torch.bfloat16)},
    "xformers": {"cuda": (torch.float32, torch.bfloat16, torch.float16)},
}
#: Largest head size of xFormers' kernels that have a backward pass.
XFORMERS_MAX_HEAD = 256


class AttentionError(UserError):
    """Inputs that no backend, or not the named one, can take."""


@dataclass(frozen=True)
class Choice:
    """Which backend will run, and why."""

    backend: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout | None = None,
    *,
    key_mask: Tensor | None = None,
    backend: str = "auto",
    scale: float | None = None,
) -> Tensor:
    """softmax(q k^T * scale) v over the keys that `layout` and `key_mask` allow.

    Args:
        q: (B, H, N, D) queries.
        k, v: (B, H, M, D) keys and values.
        layout: pattern; None is full attention.
        key_mask: (B, M) bool, False for padding.
        backend: one of `BACKENDS`; "auto" chooses, see `explain`.
        scale: 1 / sqrt(D) when None.

    Returns:
        (B, H, N, D). A query that may attend to no key gets zero, and so do its gradients.

    Raises:
        AttentionError: shapes, dtype or device that the backend cannot take; the message lists what it can.
    """
    choice = explain(q, k, v, layout, key_mask=key_mask, backend=backend)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if choice.backend == "reference":
        return reference_attention(q, k, v, layout, key_mask, scale)
    if layout is None:
        return _dense(choice.backend, q, k, v, key_mask, scale)
    parts = layout.parts()
    if parts is None:  # samples differ in pattern: the dense mask of sdpa
        allowed = layout.allowed().unsqueeze(1)  # (B, 1, N, M)
        mask = allowed if key_mask is None else allowed & key_mask[:, None, None, :]
        return sdpa_attention(q, k, v, mask, scale)
    outs = []
    for part in parts:
        mask = None if key_mask is None else key_mask.index_select(1, part.keys)
        pk, pv = k.index_select(2, part.keys), v.index_select(2, part.keys)
        outs.append(_dense(choice.backend, q.index_select(2, part.queries), pk, pv, mask, scale))
    order = torch.cat([part.queries for part in parts]).argsort()
    return torch.cat(outs, dim=2).index_select(2, order)


def explain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout | None = None,
    *,
    key_mask: Tensor | None = None,
    backend: str = "auto",
) -> Choice:
    """The backend that `attention` would run for these inputs, with the reason; raises as `attention` does."""
    _check_shapes(q, k, v, key_mask)
    mixed = layout is not None and layout.parts() is None
    if backend == "auto":
        if q.device.type != "cpu" or q.dtype == torch.float16:
            return Choice("sdpa", f"PyTorch's fused kernels serve {q.dtype} on {q.device.type}")
        if mixed:
            return Choice("sdpa", "samples of the batch differ in pattern, which needs a dense mask")
        return _measured_cpu_rule(q.dtype)
    if backend not in BACKENDS:
        raise AttentionError(f"attention backend {backend!r} is unknown: use one of {', '.join(BACKENDS)}")
    table = SUPPORTED[backend]
    dtypes = table.get(q.device.type, table.get("*", ()))
    if q.dtype not in dtypes:
        listed = "; ".join(f"{d}: {', '.join(str(t) for t in ts)}" for d, ts in table.items())
        raise AttentionError(
            f"attention backend {backend!r} does not take {q.dtype} on {q.device.type}; "
            f"it takes {listed} (* any device)"
        )
    if mixed and backend not in ("reference", "sdpa"):
        raise AttentionError(
            f"attention backend {backend!r} needs one pattern for all samples; use 'reference', 'sdpa' or 'auto'"
        )
    if backend == "xformers":
        _check_xformers(q, key_mask)
    return Choice(backend, "asked for by name")


def _measured_cpu_rule(dtype: torch.dtype) -> Choice:
    """On an AVX512-bf16 CPU products reach 316 to 504 GFLOP/s and flash 170; in float32 the two are level."""
    if dtype != torch.bfloat16:
        return Choice("sdpa", f"in {dtype} the flash kernel equals plain products and keeps no scores")
    if has_fast_bf16():
        return Choice(
            "matmul", "bf16 products around a softmax run at two to three times the flash kernel here"
        )
    return Choice("sdpa", "this CPU has no bf16 products: the flash kernel, in float32")


def _dense(backend: str, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, scale: float) -> Tensor:
    if backend == "matmul":
        return matmul_attention(q, k, v, key_mask, scale)
    if backend == "xformers":
        return xformers_attention(q, k, v, scale)
    return sdpa_attention(q, k, v, None if key_mask is None else key_mask[:, None, None, :], scale)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> None:
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise AttentionError(
            f"attention takes q (B, H, N, D) and k, v (B, H, M, D); got {tuple(q.shape)}, "
            f"{tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise AttentionError(
            f"q {tuple(q.shape)} and k {tuple(k.shape)} must agree in batch, heads and head size"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise AttentionError(f"q, k and v must share one floating dtype; got {q.dtype}, {k.dtype}, {v.dtype}")
    if key_mask is not None and (key_mask.dtype != torch.bool or key_mask.shape != (k.shape[0], k.shape[2])):
        raise AttentionError(
            f"key_mask must be bool {(k.shape[0], k.shape[2])}; got {key_mask.dtype} {tuple(key_mask.shape)}"
        )


def _check_xformers(q: Tensor, key_mask: Tensor | None) -> None:
    if importlib.util.find_spec("xformers") is None:
        raise AttentionError(
            "attention backend 'xformers' is not installed: pip install 'sora2[cuda]', or use backend 'auto'"
        )
    if key_mask is not None:
        raise AttentionError(
            "attention backend 'xformers' takes no key_mask here; use 'sdpa' or 'auto' for padding"
        )
    if q.shape[-1] % 8 or q.shape[-1] > XFORMERS_MAX_HEAD:
        raise AttentionError(
            f"attention backend 'xformers' takes head sizes that are multiples of 8 up to {XFORMERS_MAX_HEAD}; "
            f"got {q.shape[-1]}"
        )
