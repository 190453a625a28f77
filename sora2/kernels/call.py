"""One attention call as every backend receives it, and the errors of calls that cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.errors import UserError
from sora2.kernels.pattern import TilePattern


class AttentionError(UserError):
    """Inputs that no backend, or not the named one, can take."""


@dataclass(frozen=True)
class Call:
    """softmax(q k^T * scale) v over what `pattern` and `key_mask` allow."""

    q: Tensor  # (B, H, N, D)
    k: Tensor  # (B, H, M, D)
    v: Tensor  # (B, H, M, D)
    pattern: TilePattern | None  # None = everything
    key_mask: Tensor | None  # (B, M) bool, False for padding; never beside a pattern, which holds its own
    scale: float

    def dense_mask(self) -> Tensor | None:
        """(1 or B, 1 or H, N or 1, M) bool of what is allowed, None when that is everything."""
        if self.pattern is not None:
            return self.pattern.allowed(*self.q.shape[:2])
        return None if self.key_mask is None else self.key_mask[:, None, None, :]


def check(call: Call) -> None:
    """Raises AttentionError for what no backend can take: shapes, dtypes, devices, a pattern of another sequence."""
    q, k, v, mask, pattern = call.q, call.k, call.v, call.key_mask, call.pattern
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
    others = [k.device, v.device, *([] if mask is None else [mask.device])]
    if pattern is not None:
        others.append(pattern.by_query.start.device)
    if any(device != q.device for device in others):
        raise AttentionError(
            f"q is on {q.device}, the rest on {', '.join(map(str, others))}: move all of it to one device"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (k.shape[0], k.shape[2])):
        raise AttentionError(
            f"key_mask must be bool {(k.shape[0], k.shape[2])}; got {mask.dtype} {tuple(mask.shape)}"
        )
    if pattern is not None:
        expected = (pattern.queries.tokens, pattern.keys.tokens)
        if (q.shape[2], k.shape[2]) != expected:
            raise AttentionError(
                f"the pattern is of {expected[0]} queries and {expected[1]} keys; q has {q.shape[2]} tokens and "
                f"k {k.shape[2]}"
            )
        pattern.check_groups(q.shape[0], q.shape[1])


def unaligned(call: Call) -> str | None:
    """Why kernels that read rows of channels cannot read these, None where they can."""
    for name, x in (("q", call.q), ("k", call.k), ("v", call.v)):
        if x.stride(-1) != 1:
            return f"needs contiguous channels; {name} has strides {x.stride()}: pass {name}.contiguous()"
    return None
