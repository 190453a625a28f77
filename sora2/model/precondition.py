"""What is known of a velocity before any network: the best linear guess, which the network completes.

A latent channel of standard deviation s at level t is x_t = (1 - t) x_0 + t eps, of variance d = (1 - t)^2 s^2 + t^2.
Of its velocity v = eps - x_0 the best linear guess is (t - (1 - t) s^2) / d x_t, and what that leaves has variance
s^2 / d. So

    v = (t - (1 - t) s^2) / d x_t + s / sqrt(d) F(x_t / sqrt(d), t)

gives the network F inputs and targets of unit variance at every level and in every channel. Noise, which nothing can
compress, passes by the network and not through it: a token of as many numbers as the network is wide would else cost
it all of its width. This is the preconditioning of EDM (Karras et al. 2022, arXiv:2206.00364, table 1) for the velocity
of a straight path; the same trouble is why Li and He 2025 (arXiv:2511.13720) predict x_0.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Precondition:
    """Factors of a stream, (B, N, C) float32 each."""

    into: Tensor  # of x_t, on the way into the network
    skip: Tensor  # of x_t in the velocity
    out: Tensor  # of the network's answer in the velocity

    @classmethod
    def of(cls, level: Tensor, spread: tuple[float, ...], width: int) -> Precondition:
        """level (B, N) of tokens of `width` numbers, channel by channel of `spread` (C,)."""
        s = _spreads(spread, width, level.device)  # (W,)
        t = level.float().unsqueeze(-1)  # (B, N, 1)
        clean = (1 - t) * s.square()  # (B, N, W)
        variance = (1 - t) * clean + t.square()
        root = variance.rsqrt()
        return cls(root, (t - clean) / variance, s * root)


@functools.lru_cache(maxsize=64)
def _spreads(spread: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """(W,): a token has all numbers of a channel together. Sent once: the host would wait for each transfer."""
    s = torch.tensor(spread, dtype=torch.float32).repeat_interleave(width // len(spread))
    return s.to(device)
