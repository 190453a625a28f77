"""Building blocks of both codecs. Tensors are channels-last, so norms and linears need no transposition and the
convolutions run on a view of the same memory."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpatialConv(nn.Module):
    """3 x 3 convolution inside every frame. (B, t, h, w, C) -> (B, t, h, w, D)."""

    def __init__(self, width: int, out_width: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out_width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        y = self.conv(x.flatten(0, 1).permute(0, 3, 1, 2))  # (B t, D, h, w), channels-last in memory
        return y.permute(0, 2, 3, 1).unflatten(0, (b, t))  # (B, t, h, w, D)


class CausalTemporalConv(nn.Module):
    """Convolution over the present and earlier frames only. (B, t, h, w, C) -> (B, t, h, w, D)."""

    def __init__(self, width: int, out_width: int, kernel: int = 3, dilation: int = 1) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.conv = nn.Conv2d(width, out_width, (kernel, 1), dilation=(dilation, 1))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:4]
        x = F.pad(
            x.flatten(2, 3), (0, 0, 0, 0, self.past, 0)
        )  # (B, past + t, h w, C), silence before the start
        y = self.conv(x.permute(0, 3, 1, 2))  # (B, D, t, h w)
        return y.permute(0, 2, 3, 1).unflatten(2, (h, w))  # (B, t, h, w, D)


class VideoBlock(nn.Module):
    """Residual block: spatial convolution, then causal temporal convolution. Keeps (B, t, h, w, C)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.spatial = SpatialConv(width, width)
        self.temporal = CausalTemporalConv(width, width, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.spatial(F.silu(self.norm(x)))  # (B, t, h, w, C)
        return x + self.temporal(F.silu(y))  # (B, t, h, w, C)


class AudioBlock(nn.Module):
    """Residual block of two centred convolutions over time. Keeps (B, n, C)."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.pad = (reach // 2, reach - reach // 2)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv1d(width, width, kernel, dilation=dilation)
        self.second = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(x)).transpose(1, 2)  # (B, C, n)
        y = self.first(F.pad(y, self.pad))  # (B, C, n)
        return x + self.second(F.silu(y)).transpose(1, 2)  # (B, n, C)


def patchify(x: Tensor, time: int, space: int) -> Tensor:
    """(B, t*p, H, W, C) -> (B, t, h, w, p*q*r*C): a space-time patch becomes one vector."""
    b, frames, height, width, c = x.shape
    x = x.reshape(b, frames // time, time, height // space, space, width // space, space, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def unpatchify(x: Tensor, time: int, space: int) -> Tensor:
    """The inverse of `patchify`."""
    b, t, h, w, d = x.shape
    x = x.reshape(b, t, h, w, time, space, space, d // (time * space * space))
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, t * time, h * space, w * space, -1)


def mid_side(x: Tensor, dim: int) -> Tensor:
    """Left and right along `dim` <-> mid and side: orthonormal and its own inverse. Mono passes."""
    if x.shape[dim] == 1:
        return x
    left, right = x.unbind(dim)
    return torch.stack([left + right, left - right], dim=dim) * math.sqrt(0.5)


def overlapping(hops: Tensor, parts: int) -> Tensor:
    """(..., n + parts - 1, hop) -> (..., n, parts * hop): each frame is `parts` hops in a row."""
    count = hops.shape[-2] - parts + 1
    return torch.cat([hops[..., i : i + count, :] for i in range(parts)], -1)


def silence_output(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
    """Zero a layer that ends a residual branch, so that training starts from the branch beside it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def principal_directions(samples: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of (n, D) samples: mean (D,), directions (count, D), standard deviations (count,)."""
    mean = samples.mean(0)
    centred = (samples - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(samples) - 1))
    order = torch.arange(samples.shape[1] - 1, samples.shape[1] - 1 - count, -1)
    deviation = values[order].clamp_min(1e-8).sqrt()
    return mean, vectors[:, order].T.float(), deviation.float()
