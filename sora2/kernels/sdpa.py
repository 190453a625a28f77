"""PyTorch's scaled dot product attention: the backend for everything that has no faster one."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sora2.kernels.matmul import has_fast_bf16


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """q (B, H, N, D), k and v (B, H, M, D), mask bool broadcastable to (B, H, N, M) or None -> (B, H, N, D)."""
    if k.shape[2] == 0:
        return q * 0.0
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not has_fast_bf16():
        # Without bf16 in hardware the kernel's backward is five times slower than in float32.
        return sdpa_attention(q.float(), k.float(), v.float(), mask, scale).to(q.dtype)
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    # A row without any key would be NaN in some of PyTorch's kernels: let it see all keys, then drop its
    # output.
    alive = mask.any(-1, keepdim=True)  # (B, 1, 1 or N, 1)
    # cuDNN's backward gives NaN under an explicit mask for some lengths (pytorch issue 196678): keep it out.
    kernels = sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]) if q.is_cuda else nullcontext()
    with kernels:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~alive, scale=scale)
    return out.masked_fill(~alive, 0.0)
