"""Noise levels -> shift, gain and gate of every block, once per distinct level and modality.

A token is told its own noise level. Levels repeat (a whole clip at one level, a row of clean frames), so the
embedding network runs once per distinct level, and blocks look their parameters up by runs
(`packing.level_runs`).
Source: adaLN-Zero of Peebles & Xie 2022 (arXiv:2212.09748), with the shared head and per-block tables of
adaLN-single (Chen et al. 2023, arXiv:2310.00426), one head and table per modality.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.kernels import Levels
from sora2.model.config import GROUPS, TransformerConfig
from sora2.model.layers import Linear, ZeroLinear
from sora2.model.packing import Packing

#: Shift, gain, gate of attention, the same of the feed-forward; then shift and gain of the output layer.
BLOCK_PARAMETERS = 6
OUTPUT_PARAMETERS = 2


class Modulation(nn.Module):
    """The embedding of noise levels and the heads that turn it into modulation parameters."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.level_features = config.level_features
        self.width = config.width
        self.embed_in = Linear(config.level_features, config.level_width)
        self.embed_out = Linear(config.level_width, config.level_width)
        groups = ("all",) if config.shared_modulation else GROUPS
        rows = BLOCK_PARAMETERS + OUTPUT_PARAMETERS
        self.heads = nn.ModuleDict({g: ZeroLinear(config.level_width, rows * config.width) for g in groups})

    def head(self, group: str) -> nn.Module:
        return self.heads["all" if "all" in self.heads else group]

    def embed(self, level: Tensor) -> Tensor:
        """(U,) levels in [0, 1] -> (U, level_width)."""
        half = self.level_features // 2
        # From 1 to 1000 radians over [0, 1].
        frequency = torch.logspace(0, 3, half, dtype=torch.float32, device=level.device)
        angle = level.float()[:, None] * frequency  # (U, level_features / 2)
        features = torch.cat([angle.cos(), angle.sin()], dim=-1)  # (U, level_features)
        features = features.to(self.embed_in.weight.dtype)
        return F.silu(self.embed_out(F.silu(self.embed_in(features))))  # (U, level_width)

    def forward(self, packing: Packing, stream: Tensor) -> Levels:
        """Per segment rows (U, 8, D): six parameters of the blocks, two of the output layer, for a stream (T, D).

        Computed in float32: few rows, and every token depends on them.
        """
        with torch.autocast(packing.cosine.device.type, enabled=False):
            rows = [
                self.rows(self.head(s.group), self.embed(levels))
                for s, levels in zip(packing.segments, packing.levels, strict=True)
            ]
        return Levels.of(rows, packing.runs, packing.level_of_run, stream)

    def rows(self, head: nn.Linear, embedded: Tensor) -> Tensor:
        """(U, level_width) -> (U, 8, D). Gains are 1 + what the network says."""
        place = torch.arange(BLOCK_PARAMETERS + OUTPUT_PARAMETERS, device=embedded.device)
        unit = (place % 3 == 1).to(head.bias.dtype).repeat_interleave(self.width)  # (8 D,)
        return F.linear(embedded, head.weight, head.bias + unit).unflatten(-1, (-1, self.width))
