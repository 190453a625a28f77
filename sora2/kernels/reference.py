"""The definition of attention: plain PyTorch in float32 (float64 for float64 inputs). All backends must equal it."""

from __future__ import annotations

import torch
from torch import Tensor

from sora2.kernels.layout import Layout


def reference_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout | None, key_mask: Tensor | None, scale: float
) -> Tensor:
    """softmax(q k^T * scale) v over the allowed keys; a query without any allowed key gives zero.

    q (B, H, N, D), k and v (B, H, M, D), key_mask (B, M) bool -> (B, H, N, D) in the dtype of q.
    """
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = q.to(dtype) @ k.to(dtype).transpose(-1, -2) * scale  # (B, H, N, M)
    allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
    if layout is not None:
        allowed = layout.allowed()
    if allowed.ndim == 3:
        allowed = allowed.unsqueeze(1)  # (B, 1, N, M)
    if key_mask is not None:
        allowed = allowed & key_mask[:, None, None, :]
    scores = scores.masked_fill(~allowed, torch.finfo(dtype).min)
    weights = scores.softmax(-1).masked_fill(~allowed, 0.0)  # the second fill empties rows without any key
    return (weights @ v.to(dtype)).to(q.dtype)
