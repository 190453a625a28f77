"""Compiled or plain: the one place that decides which CPU kernels the token-wise operations run on."""

from __future__ import annotations

import os
import warnings

import torch
from torch import Tensor

from sora2.errors import UserError
from sora2.kernels.cpu.build import BuildError, build
from sora2.kernels.cpu.library import Library
from sora2.kernels.mode import KernelChoice, asked_mode

#: auto: compiled where a compiler is found, else plain with a warning.
MODES = ("auto", "compiled", "plain")
VARIABLE = "SORA2_CPU_KERNELS"
DTYPES = (torch.bfloat16, torch.float32)


class CpuKernelError(UserError):
    """The compiled CPU kernels were asked for and cannot be had."""


class PlainKernelsWarning(UserWarning):
    """Everything is computed, by PyTorch's own operations, which are slower."""


_choice: KernelChoice | None = None
_library: Library | None = None


def use_cpu_kernels(mode: str | None = None) -> KernelChoice:
    """Choose for this process; None means what the environment variable SORA2_CPU_KERNELS says, "auto" without it.

    Raises:
        CpuKernelError: an unknown mode, or "compiled" where the library cannot be built.
    """
    global _choice, _library
    asked = asked_mode(mode, VARIABLE, MODES, CpuKernelError)
    source = f"{VARIABLE}={asked}" if mode is None and VARIABLE in os.environ else "asked for"
    _library = None
    if asked == "plain":
        _choice = KernelChoice("plain", source)
        return _choice
    try:
        _library = Library(build())
    except (BuildError, OSError) as error:
        if asked == "compiled":
            raise CpuKernelError(
                f"the compiled CPU kernels cannot be had: {error}. Repair that, or use plain ones "
                f"(trainer.cpu_kernels=plain or {VARIABLE}=plain)"
            ) from error
        _choice = KernelChoice("plain", str(error))
        warnings.warn(
            f"CPU kernels are {_choice}; install a compiler for faster ones", PlainKernelsWarning, 2
        )
        return _choice
    threads = (
        "on torch's threads" if _library.threaded else "on one thread: torch's OpenMP runtime was not found"
    )
    _choice = KernelChoice("compiled", f"{_library.path.name}, {threads}")
    return _choice


def cpu_kernels() -> KernelChoice:
    """The choice in force, made on first use."""
    return use_cpu_kernels() if _choice is None else _choice


def library_for(x: Tensor) -> Library | None:
    """The compiled kernels where they take a tensor like `x`, else None. torch.compile is left the plain forms."""
    if x.device.type != "cpu" or x.dtype not in DTYPES or torch.compiler.is_compiling():
        return None
    if _choice is None:
        use_cpu_kernels()
    return _library
