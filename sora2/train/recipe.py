"""What the trainer needs to know about a thing that learns: its parameters, its losses, its export.

The diffusion transformer and both codecs are recipes; the trainer (resume, EMA, guards, logging) is one and the same
for all of them. No Lightning here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sora2.errors import UserError
from sora2.weights import unpack


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
        """Losses per optimizer group.

        All randomness comes from `generator`, on the CPU and keyed by (seed, rank, samples seen): decisions by itself,
        noise on another device by `sora2.host.noise_generator`.
        """
        raise NotImplementedError

    def batch_size(self, batch: Any) -> int:
        raise NotImplementedError

    def idle_parameters(self, batch: Any) -> set[str]:
        """Names of parameters that get no gradient from a batch, for it lacks what they are for."""
        return set()

    def forward_flops(self, batch: Any) -> float:
        """Multiply-adds counted as two, forward pass of the whole batch."""
        raise NotImplementedError

    def tokens(self, batch: Any) -> int:
        """Tokens (or pixels and samples) of the batch, for the throughput line."""
        raise NotImplementedError

    def export(self, folder: Path, averaged_state: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Write inference weights (safetensors) and config under `folder`."""
        raise NotImplementedError

    def freeze_all_but(self, parts: Collection[str]) -> None:
        """Only parameters whose names hold one of `parts` (`train_only`) go on learning.

        Raises `UserError` when a part is in no name.
        """
        names = [name for name, _ in self.named_parameters()]
        for part in parts:
            if not any(part in name for name in names):
                raise UserError(
                    f"train_only: no parameter has {part!r} in its name; there is, say, {names[0]}"
                )
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(part in name for part in parts))

    def read_weights(self, path: Path) -> dict[str, Tensor]:
        """The tensors of an export, in float32."""
        return unpack(load_file(path))

    def load_weights(self, folder: Path, fresh: Collection[str] = ()) -> None:
        """Start from exported weights instead of random ones (`init_from`).

        Tensors whose name begins with an entry of `fresh` (`init_fresh`) keep their first values, whatever the folder
        holds of them: the way in and out when only the latents or the depth changed.

        Raises `UserError` when the folder has none, when others are of another model, or an entry names no tensor.
        """
        path = folder / "model.safetensors"
        if not path.exists():
            raise UserError(
                f"init_from={folder}: there is no {path.name} in it; give the export/ folder of a run"
            )
        module = getattr(self, self.averaged[0])
        own, weights = module.state_dict(), self.read_weights(path)
        unknown = [entry for entry in fresh if not any(name.startswith(entry) for name in own)]
        if unknown:
            raise UserError(f"init_fresh: no tensor of the model has a name that begins with {unknown[0]!r}")
        own = {name: value for name, value in own.items() if not name.startswith(tuple(fresh))}
        weights = {name: value for name, value in weights.items() if not name.startswith(tuple(fresh))}
        wrong = sorted(own.keys() ^ weights.keys())
        wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
        if wrong:
            raise UserError(
                f"init_from={folder} holds another model: {wrong[0]} does not fit; use its `model=` or `codec=`, or "
                f"let it start anew with init_fresh=[{wrong[0]}]"
            )
        module.load_state_dict({n: v.to(own[n].dtype) for n, v in weights.items()}, strict=not fresh)
