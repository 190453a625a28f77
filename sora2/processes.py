"""What every process of the project begins with, and pools of worker processes."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the system.

    Networks free and take the same sizes at every step, and fetching fresh pages costs a CPU a tenth to a half of its
    speed. Every command and worker process begins with this; other systems are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from C libraries other than glibc
    if mallopt is not None:
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: blocks up to 1 GiB come from the heap
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: the heap's free end stays
        mallopt(-2, 1 << 26)  # M_TOP_PAD: and it grows by 64 MiB at a time


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that compute on one thread each: on a busy machine, threads that wait for each other cost tenfold."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)


def _start_worker() -> None:
    import torch  # not above, for every command imports this file, and `sora2 --help` answers at once

    # Ctrl-C reaches the whole process group: the parent decides, the workers only finish or are terminated
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()
