"""Noise levels -> shift, scale and gate of every block, once per distinct level and modality.

A token is told its own noise level. Levels repeat (a whole clip at one level, a row of clean frames), so the embedding
network runs once per distinct level, and a block looks its parameters up by runs: the longest stretch of consecutive
tokens that share a level in every sample. One level per clip is one run and broadcasts; one level per frame is one run
per frame; one level per token is the general case of runs of length one. All three give the same numbers.
Source: adaLN-Zero of Peebles & Xie 2022 (arXiv:2212.09748), with the shared head and per-block tables of adaLN-single
(Chen et al. 2023, arXiv:2310.00426), one head and table per modality.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.model.config import GROUPS, TransformerConfig
from sora2.model.layers import Linear, ZeroLinear
from sora2.model.packing import Packing
from sora2.types import Batch

#: Shift, scale, gate of attention, the same of the feed-forward; then shift and scale of the output layer.
BLOCK_PARAMETERS = 6
OUTPUT_PARAMETERS = 2


@dataclass(frozen=True)
class SegmentModulation:
    """The modulation of one modality's tokens, before a block adds its table."""

    base: Tensor  # (U, 8, D): one row per distinct level
    index: Tensor  # (B, R) row of each run of tokens


def level_runs(level: Tensor) -> Tensor:
    """(B, N) -> (B, R): the level of each run, with the fewest runs of equal length N / R that hold one level each."""
    n = level.shape[1]
    for runs in range(1, n):
        if n % runs == 0:
            grouped = level.view(-1, runs, n // runs)
            if bool((grouped == grouped[..., :1]).all()):
                return grouped[..., 0]
    return level


class Modulation(nn.Module):
    """The embedding of noise levels and the heads that turn it into modulation parameters."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.level_width = config.level_width
        self.width = config.width
        self.embed_in = Linear(config.level_width, config.width)
        self.embed_out = Linear(config.width, config.width)
        groups = ("all",) if config.shared_modulation else GROUPS
        rows = BLOCK_PARAMETERS + OUTPUT_PARAMETERS
        self.heads = nn.ModuleDict({g: ZeroLinear(config.width, rows * config.width) for g in groups})

    def head(self, group: str) -> nn.Module:
        return self.heads["all" if "all" in self.heads else group]

    def embed(self, level: Tensor) -> Tensor:
        """(U,) levels in [0, 1] -> (U, D)."""
        half = self.level_width // 2
        frequency = torch.logspace(
            0, 3, half, dtype=torch.float32, device=level.device
        )  # 1 to 1000 rad over [0, 1]
        angle = level.float()[:, None] * frequency  # (U, level_width / 2)
        features = torch.cat([angle.cos(), angle.sin()], dim=-1)  # (U, level_width)
        return F.silu(self.embed_out(F.silu(self.embed_in(features))))  # (U, D)

    def forward(self, batch: Batch, packing: Packing) -> list[SegmentModulation]:
        """One entry per segment. Runs in float32: these are few rows, and every token depends on them."""
        out = []
        with torch.autocast(packing.cosine.device.type, enabled=False):
            for segment in packing.segments:
                level = level_runs(getattr(batch, segment.name).noise_level.detach())  # (B, R)
                distinct, index = level.unique(return_inverse=True)  # (U,), (B, R)
                parameters = self.head(segment.group)(self.embed(distinct))  # (U, 8 * D)
                out.append(SegmentModulation(parameters.view(len(distinct), -1, self.width), index))
        return out
