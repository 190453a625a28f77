"""A linear layer without bias whose weight gradient, where there is AMX, is a kernel of ours.

PyTorch's bf16 product with a transposed left side, which that gradient is, runs at half the speed of the other two
products of a layer, and gives bf16, to be converted to the weight's float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.cpu.choice import library_for
from sora2.kernels.cpu.library import Library


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., I), weight (O, I) -> (..., O); bf16 under autocast to it, as `torch.nn.functional.linear`."""
    library = library_for(x)
    if library is None or library.products != "tiles" or not _takes(x, weight):
        return F.linear(x, weight)
    return _Linear.apply(library, x, weight)


def _takes(x: Tensor, weight: Tensor) -> bool:
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    half = half or (not torch.is_autocast_enabled("cpu") and x.dtype == weight.dtype == torch.bfloat16)
    return half and weight.requires_grad and weight.shape[0] % 32 == 0 and weight.shape[1] % 32 == 0


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, x: Tensor, weight: Tensor) -> Tensor:
        half, low = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        ctx.save_for_backward(half, low)
        ctx.library, ctx.dtypes = library, (x.dtype, weight.dtype)
        return F.linear(half, low)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, columns = grad.reshape(-1, grad.shape[-1]).contiguous(), x.reshape(-1, x.shape[-1]).contiguous()
        grad_x = torch.mm(rows, weight).view(x.shape).to(ctx.dtypes[0]) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[2]:
            return None, grad_x, None
        grad_weight = torch.empty(weight.shape) if len(rows) else torch.zeros(weight.shape)
        ctx.library.weight_gradient(
            rows.data_ptr(), columns.data_ptr(), len(rows), *weight.shape, grad_weight.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return None, grad_x, grad_weight.to(ctx.dtypes[1])
