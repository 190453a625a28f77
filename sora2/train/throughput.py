"""Samples/s, tokens/s, MFU, data-wait share, memory and ETA, measured over the time since the last report."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil
import torch


def measure_peak_flops(
    device: torch.device, dtype: torch.dtype, size: int | None = None, seconds: float = 0.5
) -> float:
    """FLOP/s of a square matrix product in `dtype` on this device: the denominator of MFU.

    size: 1024, or 8192 on a GPU, which a smaller one does not fill.
    """
    size = size or (8192 if device.type == "cuda" else 1024)
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best = 0.0
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - start))
    return best


@dataclass(frozen=True)
class Report:
    samples_per_second: float
    tokens_per_second: float
    mfu: float
    data_wait_share: float
    peak_memory_gib: float
    eta_seconds: float

    def line(self) -> str:
        return (
            f"{self.samples_per_second:.1f} samples/s  {self.tokens_per_second:,.0f} tokens/s  "
            f"MFU {100 * self.mfu:.0f}%  wait {100 * self.data_wait_share:.0f}%  "
            f"mem {self.peak_memory_gib:.1f} GiB  ETA {format_seconds(self.eta_seconds)}"
        )

    def metrics(self) -> dict[str, float]:
        return {
            "speed/samples_per_second": self.samples_per_second,
            "speed/tokens_per_second": self.tokens_per_second,
            "speed/mfu": self.mfu,
            "speed/data_wait_share": self.data_wait_share,
            "speed/peak_memory_gib": self.peak_memory_gib,
        }


class ThroughputMeter:
    """MFU = 3 x forward FLOPs of the samples trained / (seconds x peak FLOP/s of all devices).

    The factor 3 counts a backward pass as twice the forward; recomputation under activation checkpointing is not
    counted, so MFU speaks of useful work.
    """

    def __init__(self, peak_flops: float) -> None:
        self.peak_flops = peak_flops
        self.reset(0.0)

    def reset(self, wait_seconds: float) -> None:
        self.start = time.perf_counter()
        self.samples = self.tokens = 0
        self.flops = 0.0
        self.wait_at_start = wait_seconds

    def add(self, samples: int, tokens: int, forward_flops: float) -> None:
        self.samples += samples
        self.tokens += tokens
        self.flops += 3 * forward_flops

    def report(self, wait_seconds: float, samples_left: int) -> Report:
        elapsed = max(time.perf_counter() - self.start, 1e-9)
        rate = self.samples / elapsed
        return Report(
            samples_per_second=rate,
            tokens_per_second=self.tokens / elapsed,
            mfu=self.flops / elapsed / self.peak_flops,
            data_wait_share=min(1.0, (wait_seconds - self.wait_at_start) / elapsed),
            peak_memory_gib=peak_memory_gib(),
            eta_seconds=samples_left / rate if rate > 0 else float("inf"),
        )


def peak_memory_gib() -> float:
    """Peak device memory on CUDA, the process's resident memory on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return psutil.Process().memory_info().rss / 2**30


def format_seconds(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}"
