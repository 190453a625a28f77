"""What the trainer needs to know about a thing that learns: its parameters, its losses, its export.

The diffusion transformer and both codecs are recipes; the trainer (resume, EMA, guards, logging) is one and the same
for all of them. No Lightning here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class LossOutput:
    """Losses of one optimizer group in one step."""

    total: Tensor  # scalar with a graph: what is minimised
    named: dict[str, Tensor] = field(
        default_factory=dict
    )  # detached scalars for the log; NaN = not in this batch


@dataclass(frozen=True)
class Progress:
    """Where training stands. Progress is counted in samples, so nothing changes with the batch size."""

    samples_seen: int
    max_samples: int

    @property
    def fraction(self) -> float:
        return min(1.0, self.samples_seen / max(1, self.max_samples))


class Recipe(nn.Module):
    """A trainable problem. Subclasses hold their networks as submodules."""

    #: Names of submodules whose weights are averaged (EMA) and exported.
    averaged: tuple[str, ...] = ("model",)
    #: Parts of the names of matrices that Muon leaves to AdamW: input and output layers, embeddings, tables.
    outer_layers: tuple[str, ...] = ()

    def optimizer_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters per optimizer. "main" is required; "discriminator" is stepped after it."""
        return {"main": [p for p in self.parameters() if p.requires_grad]}

    def losses(self, batch: Any, generator: torch.Generator, progress: Progress) -> dict[str, LossOutput]:
        """Losses per optimizer group. All randomness comes from `generator`, keyed by (seed, rank, samples seen)."""
        raise NotImplementedError

    def batch_size(self, batch: Any) -> int:
        raise NotImplementedError

    def forward_flops(self, batch: Any) -> float:
        """Multiply-adds counted as two, forward pass of the whole batch."""
        raise NotImplementedError

    def tokens(self, batch: Any) -> int:
        """Tokens (or pixels and samples) of the batch, for the throughput line."""
        raise NotImplementedError

    def export(self, folder: Path, averaged_state: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Write inference weights (safetensors) and config under `folder`."""
        raise NotImplementedError
