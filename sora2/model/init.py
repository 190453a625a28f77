"""First values of every parameter, apart from construction: build on the meta device, place, then initialise."""

from __future__ import annotations

import torch
from torch import nn

from sora2.model.layers import Linear


@torch.no_grad()
def initialize(model: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Set all parameters in place, in the order of `named_parameters`, and return the model.

    Matrices are normal with variance 1 / fan-in; the heads of the modulation and the output layers are zero,
    so that every block starts as the identity (gates 0) and the first velocity is 0.
    """
    layers = [name for name, m in model.named_modules() if isinstance(m, Linear) and m.starts_at_zero]
    zero = ("kind.", *(f"{name}." for name in layers))
    for name, parameter in model.named_parameters():
        if name.endswith("_norm"):
            parameter.fill_(1.0)
        elif parameter.ndim == 1 or ".table." in name or name.startswith(zero):
            parameter.zero_()
        else:
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
    return model
