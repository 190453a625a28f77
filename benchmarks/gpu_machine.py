"""The device of a benchmark: its clock, its ceilings, its name."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

#: The (t, y, x) tile of 128 tokens.
TILE = (4, 4, 8)
#: Seconds of measuring per contender and shape, and rounds at least and at most.
BUDGET_SECONDS, ROUNDS = 2.0, (3, 50)


class Machine:
    """The device, its clock and its ceilings."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.device = torch.device("cpu" if dry else "cuda")
        self.dtype = torch.float32 if dry else torch.bfloat16
        self.tile = (1, 4, 4) if dry else TILE

    def measure(self, calls: dict[str, Callable[[int], Any]]) -> dict[str, float | str]:
        """Median milliseconds of each call, run in turn; a call gets the number of its round. Errors as text."""
        times: dict[str, list[float]] = {}
        found: dict[str, float | str] = {}
        for name, call in calls.items():
            try:
                for i in range(1 if self.dry else 3):  # compilation, and clocks up
                    if self._once(call, i) > 1000 * BUDGET_SECONDS:
                        break
                times[name] = []
            except Exception as error:  # a peer that cannot run is a result, and the others go on
                found[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[
                    :300
                ]
                self.free()
        once = {name: self._once(calls[name], 0) for name in times}
        for i in range(ROUNDS[1]):
            for name in times:
                enough = i >= ROUNDS[0] and i * once[name] > 1000 * BUDGET_SECONDS
                if not enough and not (self.dry and i >= 1):
                    times[name].append(self._once(calls[name], i))
        return {n: statistics.median(times[n]) if n in times else found[n] for n in calls}

    def _once(self, call: Callable[[int], Any], i: int) -> float:
        if self.dry:
            start = time.perf_counter()
            call(i)
            return 1000 * (time.perf_counter() - start)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call(i)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def free(self) -> None:
        if not self.dry:
            torch.cuda.empty_cache()

    def ceilings(self) -> dict[str, float]:
        """TFLOP/s of a bf16 product of random matrices, and GB/s of a copy, counting bytes read and written."""
        n, size = (256, 2**20) if self.dry else (8192, 2**32)
        a, b = (torch.randn(n, n, device=self.device).to(self.dtype) for _ in range(2))
        source = torch.empty(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        times = self.measure({"product": lambda i: a @ b, "copy": lambda i: target.copy_(source)})
        return {
            "product_tflops": 2 * n**3 / number(times["product"]) / 1e9,
            "copy_gbytes": 2 * size / number(times["copy"]) / 1e6,
        }

    def describe(self) -> dict[str, Any]:
        import triton

        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        found = {
            "command": " ".join(["python", *sys.argv]),
            "commit": commit.stdout.strip(),
            "torch": torch.__version__,
            "triton": triton.__version__,
            "python": platform.python_version(),
            "card": "CPU interpreter: no speed means anything",
        }
        if not self.dry:
            properties = torch.cuda.get_device_properties(0)
            found |= {
                "card": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "multiprocessors": properties.multi_processor_count,
                "memory_gbytes": properties.total_memory / 1e9,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
                "driver": _driver(),
            }
        return found


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({error})"


def number(time_or_error: float | str) -> float:
    if isinstance(time_or_error, str):
        raise RuntimeError(time_or_error)
    return time_or_error
