"""Transformers for tests."""

from __future__ import annotations

from typing import TypeVar

import torch

M = TypeVar("M", bound=torch.nn.Module)


@torch.no_grad()
def awake(model: M, generator: torch.Generator) -> M:
    """The model off its zero initialisation, so that every path carries a signal."""
    for p in model.parameters():
        p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return model
