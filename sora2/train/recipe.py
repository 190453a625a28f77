"""What the trainer needs to know about a thing that learns: its parameters, its losses, its export.

The diffusion transformer and both codecs are recipes; the trainer (resume, EMA, guards, logging) is one and the same
for all of them. No Lightning here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sora2.errors import UserError


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

    def load_weights(self, folder: Path) -> None:
        """Start from exported weights instead of random ones (`init_from`).

        Raises `UserError` when the folder has none, or they are of another model.
        """
        path = folder / "model.safetensors"
        if not path.exists():
            raise UserError(
                f"init_from={folder}: there is no {path.name} in it; give the export/ folder of a run"
            )
        module = getattr(self, self.averaged[0])
        own = module.state_dict()
        weights = {
            name: value.to(own[name].dtype) if name in own else value
            for name, value in load_file(path).items()
        }
        wrong = [k for k in sorted(own.keys() | weights.keys()) if k not in own or k not in weights]
        wrong += [k for k in own if k in weights and own[k].shape != weights[k].shape]
        if wrong:
            raise UserError(
                f"init_from={folder} holds another model: {wrong[0]} does not fit; use its `model=` or `codec=`"
            )
        module.load_state_dict(weights)
