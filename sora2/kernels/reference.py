"""The definition of attention: plain PyTorch in float32 (float64 for float64 inputs). All backends must equal it."""

from __future__ import annotations

import torch
from torch import Tensor

from sora2.kernels.call import Call


def why_not(call: Call) -> str | None:
    return None


def run(call: Call) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, D) in the dtype of q, and the natural log-sum-exp (B, H, N) of the allowed scores.

    A query without any allowed key gives zero, and a log-sum-exp of -inf.
    """
    q, k, v = call.q, call.k, call.v
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = q.to(dtype) @ k.to(dtype).transpose(-1, -2) * call.scale  # (B, H, N, M)
    allowed = call.dense_mask()
    if allowed is None:
        return (scores.softmax(-1) @ v.to(dtype)).to(q.dtype), scores.logsumexp(-1)
    allowed = allowed.expand_as(scores)
    alive = allowed.any(-1)  # (B, H, N)
    # Rows without any key see all, so that no gradient is NaN, and are emptied behind the softmax.
    scores = scores.masked_fill(~(allowed | ~alive.unsqueeze(-1)), float("-inf"))
    weights = scores.softmax(-1).masked_fill(~alive.unsqueeze(-1), 0.0)
    lse = scores.logsumexp(-1).masked_fill(~alive, float("-inf"))
    return (weights @ v.to(dtype)).to(q.dtype), lse
