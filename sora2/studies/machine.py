"""The machine that gave a number, in words."""

from __future__ import annotations

import os
import platform

import torch

from sora2.kernels.cpu.build import cpuinfo


def describe_machine() -> str:
    """Such as "2 cores of Intel(R) Xeon(R) ..." or the name of the card."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = [line for line in cpuinfo().splitlines() if line.startswith("model name")]
    names = [line.partition(":")[2].strip() for line in lines]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {names[0] if names else platform.processor() or platform.machine()}"
