"""PyTorch's own dense kernels by name: cuDNN and flash, for CUDA, without patterns or padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sora2.kernels.call import Call, unaligned

HALF = (torch.bfloat16, torch.float16)
#: Largest head size with a backward pass on every GPU that has the kernel.
CUDNN_MAX_HEAD, FLASH_MAX_HEAD = 128, 256


def _why_not(call: Call, largest: int) -> str | None:
    if call.q.device.type != "cuda":
        return f"takes cuda; the tensors are on {call.q.device.type}"
    if call.q.dtype not in HALF:
        return f"takes {HALF[0]} and {HALF[1]}; got {call.q.dtype}"
    if call.pattern is not None or call.key_mask is not None:
        return "takes neither a pattern nor a key_mask"
    width = call.q.shape[-1]
    if width % 8 or width > largest:
        return f"takes head sizes that are multiples of 8 up to {largest}; got {width}"
    return unaligned(call)


def cudnn_why_not(call: Call) -> str | None:
    return _why_not(call, CUDNN_MAX_HEAD)


def flash_why_not(call: Call) -> str | None:
    return _why_not(call, FLASH_MAX_HEAD)


def _run(call: Call, kernel: SDPBackend) -> tuple[Tensor, None]:
    with sdpa_kernel(kernel):
        return F.scaled_dot_product_attention(call.q, call.k, call.v, scale=call.scale), None


def run_cudnn(call: Call) -> tuple[Tensor, None]:
    return _run(call, SDPBackend.CUDNN_ATTENTION)


def run_flash(call: Call) -> tuple[Tensor, None]:
    return _run(call, SDPBackend.FLASH_ATTENTION)
