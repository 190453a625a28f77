"""Triton or plain: the one place that decides which kernels the token-wise operations run on a GPU in eager mode.

torch.compile is left the plain forms, which it fuses with their neighbours.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sora2.kernels.mode import KernelChoice, asked_mode
from sora2.kernels.triton.attention import KernelError, unavailable
from sora2.kernels.triton.interpreter import interpreted

#: auto: Triton where it runs, else plain.
MODES = ("auto", "triton", "plain")
VARIABLE = "SORA2_GPU_KERNELS"
DTYPES = (torch.bfloat16, torch.float16, torch.float32)

_asked: str | None = None


def use_gpu_kernels(mode: str | None = None) -> None:
    """Choose for this process; None means what the environment variable SORA2_GPU_KERNELS says, "auto" without it.

    Raises:
        KernelError: an unknown mode.
    """
    global _asked
    _asked = asked_mode(mode, VARIABLE, MODES, KernelError)
    gpu_kernels.cache_clear()


@functools.lru_cache(maxsize=16)
def gpu_kernels(device: torch.device) -> KernelChoice:
    """What runs on this device, and why.

    Raises:
        KernelError: an unknown mode, or "triton" where it cannot run.
    """
    asked = asked_mode(_asked, VARIABLE, MODES, KernelError)
    if asked == "plain":
        return KernelChoice("plain", "asked for")
    missing = unavailable(device)
    if missing is None and (device.type == "cuda" or asked == "triton"):
        return KernelChoice(
            "triton", "one pass over the stream each way; torch.compile fuses the plain forms"
        )
    if asked == "triton":
        raise KernelError(f"Triton kernels were asked for and cannot run: {missing}. Use {VARIABLE}=auto")
    return KernelChoice("plain", missing or "the interpreter is for tests")


def takes(x: Tensor) -> bool:
    """Whether a tensor like `x` goes through the Triton kernels."""
    if x.device.type != "cuda" and not interpreted():
        return False
    if x.dtype not in DTYPES or torch.compiler.is_compiling():
        return False
    return gpu_kernels(x.device).name == "triton"
