"""Where a kernel is launched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_device_of(x: Tensor) -> AbstractContextManager:
    """Inside, launches go to the GPU that holds `x`; on the CPU, for the interpreter, it changes nothing."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
