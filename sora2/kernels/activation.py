"""Squared ReLU with the cheapest backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.cpu.choice import library_for
from sora2.kernels.cpu.pointwise import SquaredReLU
from sora2.kernels.triton import activation as on_gpu
from sora2.kernels.triton import takes


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = torch.relu(x)
        ctx.save_for_backward(positive)
        return torch.mul(positive, positive)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return torch.mul(grad, positive).mul_(2)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2, elementwise."""
    if torch.compiler.is_compiling():
        return torch.relu(x).square()
    library = library_for(x)
    if library is not None:
        return SquaredReLU.apply(library, x)
    return on_gpu.squared_relu(x) if takes(x) else _SquaredReLU.apply(x)
