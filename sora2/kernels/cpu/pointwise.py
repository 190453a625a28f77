"""Squared ReLU and the softmax of attention by compiled kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.cpu.library import Library


class SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, x: Tensor) -> Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        library.squared_relu(
            x.dtype == torch.bfloat16, x.data_ptr(), out.data_ptr(), x.numel(), torch.get_num_threads()
        )
        ctx.save_for_backward(x)
        ctx.library = library
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        grad, out = grad.contiguous(), torch.empty_like(x)
        ctx.library.squared_relu_backward(
            x.dtype == torch.bfloat16, x.data_ptr(), grad.data_ptr(), out.data_ptr(), x.numel(),
            torch.get_num_threads(),
        )  # fmt: skip
        return None, out


def softmax_(library: Library, scores: Tensor, key_mask: Tensor | None, scale: float) -> Tensor:
    """In place: softmax(scores * scale) of (B * H, n, M), contiguous; key_mask (B, M) bool hides keys.

    A row that may see no key becomes 0.
    """
    assert scores.is_contiguous()
    samples = 1 if key_mask is None else key_mask.shape[0]
    mask = None if key_mask is None else key_mask.contiguous()
    library.softmax(
        scores.dtype == torch.bfloat16, scores.data_ptr(), None if mask is None else mask.data_ptr(), scale, samples,
        scores.numel() // scores.shape[-1], scores.shape[-1], torch.get_num_threads(),
    )  # fmt: skip
    return scores


def softmax_backward_(library: Library, grad: Tensor, weights: Tensor, scale: float) -> Tensor:
    """In place: the gradient of the weights becomes that of the unscaled scores, both contiguous."""
    assert grad.is_contiguous() and weights.is_contiguous()
    library.softmax_backward(
        grad.dtype == torch.bfloat16, grad.data_ptr(), weights.data_ptr(), scale, grad.numel() // grad.shape[-1],
        grad.shape[-1], torch.get_num_threads(),
    )  # fmt: skip
    return grad
