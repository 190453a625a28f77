"""xFormers' memory-efficient attention: CUDA only, an optional dependency (`pip install 'sora2[cuda]'`)."""

from __future__ import annotations

from torch import Tensor

from sora2.errors import UserError


def xformers_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """q (B, H, N, D), k and v (B, H, M, D) -> (B, H, N, D).

    Raises:
        UserError: xFormers is not installed.
    """
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise UserError(
            "attention backend 'xformers' is not installed: pip install 'sora2[cuda]', or use backend 'auto'"
        ) from error
    out = memory_efficient_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), scale=scale)
    return out.transpose(1, 2)
