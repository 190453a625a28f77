"""The device of a benchmark: its clock, its ceilings, its name."""

from __future__ import annotations

import contextlib
import functools
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config

#: The (t, y, x) tile of 128 tokens.
TILE = (4, 4, 8)
#: Seconds of measuring per contender, phase and shape; rounds at least and at most.
BUDGET_SECONDS, ROUNDS = 0.5, (3, 50)
#: A call of more milliseconds gets one round of warm-up and two that count.
SLOW, SLOW_ROUNDS = 500.0, 2
#: Cycles, about a millisecond, that the GPU waits before a timed call: meanwhile the host prepares the launch.
HEAD_START = 2_000_000

# Backward passes are timed again and again on one graph, whose buffers a compiled backward would take for itself.
torch._functorch.config.donated_buffer = False


class Machine:
    """The device, its clock and its ceilings."""

    def __init__(self, dry: bool, budget: float = BUDGET_SECONDS, commit: str = "") -> None:
        self.dry = dry
        self.budget = budget
        self.commit = commit
        self.device = torch.device("cpu" if dry else "cuda")
        self.dtype = torch.float32 if dry else torch.bfloat16
        self.tile = (1, 4, 4) if dry else TILE
        self.host: dict[str, float] = {}  # of the last `measure`: median milliseconds until a call returned

    def measure(
        self, calls: dict[str, Callable[[int], Any]], head_start: bool = True
    ) -> dict[str, float | str]:
        """Median milliseconds of each call, run in turn; a call gets the number of its round. Errors as text.

        With a head start, the host's work before the first launch is not in the time, as in training, where the host
        runs ahead; without, it is.
        """
        found: dict[str, float | str] = {}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        rounds: dict[str, int] = {}

        def once(name: str, i: int) -> tuple[float, float] | None:
            try:
                return self._once(calls[name], i, head_start)
            except Exception as error:  # a peer that cannot run is a result, and the others go on
                text = str(error).splitlines()
                found[name] = f"{type(error).__name__}: {text[0] if text else ''}"[:300]
                self.free()
                return None

        for name in calls:
            times[name], rounds[name] = self._warm_up(functools.partial(once, name))
        for i in range(max(rounds.values(), default=0)):
            for name in calls:
                if name not in found and i < rounds[name]:
                    times[name] += [t for t in (once(name, i),) if t is not None]
        self.host = {n: statistics.median(t[1] for t in times[n]) for n in calls if n not in found}
        return {n: found[n] if n in found else statistics.median(t[0] for t in times[n]) for n in calls}

    def _warm_up(
        self, once: Callable[[int], tuple[float, float] | None]
    ) -> tuple[list[tuple[float, float]], int]:
        """Compilation, and clocks up; returns times that count already and how many rounds are to follow."""
        last = once(0)
        if last is not None and last[0] > SLOW and not self.dry:  # it was compiled, or is as slow as that
            last = once(1)
            if last is not None and last[0] > SLOW:
                return [last], SLOW_ROUNDS - 1
        for i in range(0 if self.dry else 2):
            last = last and once(i)
        if last is None:
            return [], 0
        most = 1 if self.dry else ROUNDS[1]
        return [], min(max(int(1000 * self.budget / max(last[0], 1e-3)), ROUNDS[0]), most)

    def _once(self, call: Callable[[int], Any], i: int, head_start: bool) -> tuple[float, float]:
        """Milliseconds of the device and of the host."""
        if self.dry:
            start = time.perf_counter()
            call(i)
            spent = 1000 * (time.perf_counter() - start)
            return spent, spent
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if head_start:
            torch.cuda._sleep(HEAD_START)
        begin.record()
        start = time.perf_counter()
        call(i)
        host = 1000 * (time.perf_counter() - start)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end), host

    def alive(self) -> bool:
        """False after an illegal access, say: nothing more can be run in this process."""
        try:
            if not self.dry:
                torch.cuda.synchronize()
        except Exception:
            return False
        return True

    def free(self) -> None:
        """Give unused memory back; silent where an error has ended all use of the GPU (`alive` tells)."""
        if not self.dry:
            with contextlib.suppress(RuntimeError):
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

        commit = self.commit or _output(["git", "rev-parse", "HEAD"])
        found = {
            "command": " ".join(["python", *sys.argv]),
            "commit": commit,
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
                "driver": _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
            }
        return found


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({error})"


def number(time_or_error: float | str) -> float:
    if isinstance(time_or_error, str):
        raise RuntimeError(time_or_error)
    return time_or_error
