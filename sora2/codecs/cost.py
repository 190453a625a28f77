"""What the codecs cost: seconds for a clip, bytes on disk."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import torch

from sora2.codecs.bundle import Codecs
from sora2.codecs.evaluate import reconstruct
from sora2.types import Clip


def round_trip_seconds(codecs: Codecs, clip: Clip, threads: int, repeats: int = 5) -> dict[str, float]:
    """Encode and decode of one clip on `threads` CPU threads: the best of `repeats`, in seconds of wall clock and of
    CPU time of all threads.

    On a busy machine the wall clock counts the waiting too, and so does the CPU time of more than one thread, for
    threads wait for each other by spinning: the CPU time of one thread is what a free core needs.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        reconstruct(codecs, clip)
        walls, cpus = [], []
        for _ in range(repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            reconstruct(codecs, clip)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    finally:
        torch.set_num_threads(before)
    return {"wall": min(walls), "cpu": min(cpus)}


def bytes_on_disk(folders: Iterable[Path]) -> int:
    """Of all files in the folders."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
