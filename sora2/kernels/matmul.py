"""Attention as two matrix products around a softmax, for CPUs whose bf16 matrix product outruns the flash kernel."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.cache
def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-bf16 or AMX); elsewhere bf16 is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def matmul_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, scale: float) -> Tensor:
    """q (B, H, N, D), k and v (B, H, M, D), key_mask (B, M) bool or None -> (B, H, N, D)."""
    if k.shape[2] == 0:
        return q * 0.0
    scores = (q * scale) @ k.transpose(-1, -2)  # (B, H, N, M)
    if key_mask is None:
        return scores.softmax(-1) @ v
    dead = ~key_mask[:, None, None, :]
    weights = scores.masked_fill(dead, torch.finfo(q.dtype).min).softmax(-1)
    return weights.masked_fill(dead, 0.0) @ v
