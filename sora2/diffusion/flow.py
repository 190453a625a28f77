"""Rectified flow: the straight line between data and noise, and what a velocity says about both ends.

Liu et al. 2022, "Flow Straight and Fast" (arXiv:2209.03003); Lipman et al. 2022, "Flow Matching for
Generative Modeling" (arXiv:2210.02747); in the orientation of Esser et al. 2024 (arXiv:2403.03206): t = 0 is
data, t = 1 noise.

Every level is per token: `level` is (B, N) beside tensors of (B, N, C).
"""

from __future__ import annotations

import torch
from torch import Tensor


# x_t = (1 - t) x_0 + t eps
def add_noise(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Tokens (B, N, C) at their levels (B, N). A token at level 0 is returned bit for bit, whatever the
    noise.
    """
    t = level.unsqueeze(-1).to(clean.dtype)  # (B, N, 1)
    return torch.where(t > 0, (1 - t) * clean + t * noise, clean)  # (B, N, C)


# v = d x_t / d t = eps - x_0
def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """What the network learns to predict, (B, N, C); it does not depend on the level."""
    return noise - clean


# x_0 = x_t - t v
def clean_from_velocity(noised: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """The data end of the line through `noised` (B, N, C) with slope `velocity`."""
    return noised - level.unsqueeze(-1) * velocity


# eps = x_t + (1 - t) v
def noise_from_velocity(noised: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """The noise end of the line through `noised` (B, N, C) with slope `velocity`."""
    return noised + (1 - level.unsqueeze(-1)) * velocity


# v = (x_t - x_0) / t
def velocity_from_clean(noised: Tensor, clean: Tensor, level: Tensor) -> Tensor:
    """The velocity that leads from `noised` to `clean` in the time `level`; 0 for tokens that are clean
    already.
    """
    t = level.unsqueeze(-1)  # (B, N, 1)
    return torch.where(t > 0, (noised - clean) / t.clamp_min(torch.finfo(noised.dtype).tiny), 0.0)
