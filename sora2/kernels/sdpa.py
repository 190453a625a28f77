"""PyTorch's scaled dot product attention: the backend for everything that has no faster one. Patterns become masks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sora2.kernels.bf16 import has_fast_bf16
from sora2.kernels.call import Call

#: On Hopper and later cuDNN is the fastest dense kernel, and PyTorch's own order has changed between versions.
HOPPER = (9, 0)
HOPPER_ORDER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
#: cuDNN's backward gives NaN under an explicit mask for some lengths (pytorch issue 196678), and flash takes none.
MASKED = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def why_not(call: Call) -> str | None:
    return None


def run(call: Call) -> tuple[Tensor, None]:
    return sdpa_attention(call.q, call.k, call.v, call.dense_mask(), call.scale), None


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """q (B, H, N, D), k and v (B, H, M, D), mask bool broadcastable to (B, H, N, M) or None -> (B, H, N, D)."""
    if k.shape[2] == 0:
        return q * 0.0
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not has_fast_bf16():
        # Without bf16 in hardware the kernel's backward is five times slower than in float32.
        return sdpa_attention(q.float(), k.float(), v.float(), mask, scale).to(q.dtype)
    with _kernels(q, masked=mask is not None):
        if mask is None:
            return F.scaled_dot_product_attention(q, k, v, scale=scale)
        # A row without any key is NaN in some of PyTorch's kernels: let it see all keys, then drop its output.
        alive = mask.any(-1, keepdim=True)  # (B, 1, 1 or N, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~alive, scale=scale)
    return out.masked_fill(~alive, 0.0)


def _kernels(q: Tensor, masked: bool) -> AbstractContextManager:
    if not q.is_cuda:
        return nullcontext()
    if masked:
        return sdpa_kernel(MASKED)
    if torch.cuda.get_device_capability(q.device) >= HOPPER and q.dtype in (torch.bfloat16, torch.float16):
        return sdpa_kernel(HOPPER_ORDER, set_priority=True)
    return nullcontext()
