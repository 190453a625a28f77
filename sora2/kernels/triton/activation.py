"""`sora2.kernels.activation` on a GPU: one pass each way, where PyTorch takes two and keeps one tensor more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.triton.device import on_device_of

#: Numbers of one program.
BLOCK = 2048


def squared_relu(x: Tensor) -> Tensor:
    """As `sora2.kernels.activation.squared_relu`."""
    return _SquaredReLU.apply(x)


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        from sora2.kernels.triton.activation_kernel import squared_relu_kernel

        x = x.contiguous()
        out = torch.empty_like(x)
        ctx.save_for_backward(x)
        if x.numel():
            with on_device_of(x):
                squared_relu_kernel[_grid(x)](x, out, x.numel(), BLOCK=BLOCK, num_warps=4)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        from sora2.kernels.triton.activation_kernel import squared_relu_backward_kernel

        (x,) = ctx.saved_tensors
        grad, out = grad.contiguous(), torch.empty_like(x)
        if x.numel():
            with on_device_of(x):
                squared_relu_backward_kernel[_grid(x)](x, grad, out, x.numel(), BLOCK=BLOCK, num_warps=4)
        return out


def _grid(x: Tensor) -> tuple[int]:
    return (-(-x.numel() // BLOCK),)
