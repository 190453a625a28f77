"""Gates and compilation in parallel processes: on a card most of their time is Triton's compiler, on one core each.

What the processes compile lies in the caches on disk, which any number of them may fill at once; the timed pass that
follows finds it there. The processes are forked from a server that has imported everything and never touched the GPU.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from sora2.kernels.triton.gates import (
    GATES,
    Bench,
    Report,
    lengths_and_scales,
    low_log_sum_exp,
    ragged_and_empty_tiles,
    repeats_are_identical,
)
from sora2.kernels.triton.interpreter import interpreted, repair
from sora2.kernels.triton.operator_gates import OPERATOR_GATES, compiled_and_checkpointed
from sora2.kernels.triton.token_gates import TOKEN_GATES

EVERY_GATE = GATES + OPERATOR_GATES + TOKEN_GATES
#: Gates whose loop over dtypes is shared out, and those whose loop over head sizes is, too.
BY_DTYPE = (ragged_and_empty_tiles, low_log_sum_exp, *TOKEN_GATES)
BY_DTYPE_AND_HEAD = (lengths_and_scales,)
#: Those that take longest, begun first.
LONGEST = (compiled_and_checkpointed, repeats_are_identical)


@dataclass(frozen=True)
class Job:
    """Something that raises where it fails; importable by name, so that another process can be told of it."""

    name: str
    run: Callable[..., None]
    arguments: tuple = ()


def gate_jobs(bench: Bench, gates: Sequence[Callable[[Bench], None]] = EVERY_GATE) -> list[Job]:
    """Each gate, those with the longest loops in parts, each part on one dtype."""
    jobs = []
    for gate in sorted(gates, key=lambda gate: gate not in LONGEST):
        by_head = gate in BY_DTYPE_AND_HEAD
        if bench.device != "cuda" or not (by_head or gate in BY_DTYPE):
            jobs.append(Job(gate.__name__, gate, (bench,)))
            continue
        for dtype in bench.dtypes:
            for heads in [(h,) for h in bench.heads] if by_head else [bench.heads]:
                part = f"{str(dtype).removeprefix('torch.')}{f', D = {heads[0]}' if by_head else ''}"
                jobs.append(
                    Job(f"{gate.__name__} [{part}]", gate, (replace(bench, dtypes=(dtype,), heads=heads),))
                )
    return jobs


def run_jobs(
    jobs: Sequence[Job], processes: int, seconds: float, start: str = "forkserver"
) -> Iterator[Report]:
    """Every job in a process of its own, `processes` at a time; reports as they come. Who has no answer after
    `seconds` is ended and counts as failed."""
    context: Any = multiprocessing.get_context(start)
    if start == "forkserver":
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asks the driver nothing that a fork would break
        context.set_forkserver_preload(["gpu_jobs", "gpu_attention", "gpu_tokens", "triton"])
    waiting = list(jobs)
    running: dict[Connection, tuple[Job, BaseProcess, float]] = {}
    while waiting or running:
        while waiting and len(running) < processes:
            job = waiting.pop(0)
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(job, send, seconds))
            process.start()
            send.close()  # so that its end is heard
            running[receive] = (job, process, time.perf_counter())
        wait(list(running), timeout=0.2)
        for receive, (job, process, begun) in list(running.items()):
            report = _answer(receive, job, process, time.perf_counter() - begun, seconds)
            if report is not None:
                del running[receive]
                yield report


def _work(job: Job, send: Connection, seconds: float) -> None:
    faulthandler.dump_traceback_later(0.9 * seconds, file=sys.stderr)
    if interpreted():
        repair()
    start = time.perf_counter()
    try:
        job.run(*job.arguments)
        message = ""
    except BaseException:
        message = traceback.format_exc()
    send.send(Report(job.name, not message, time.perf_counter() - start, message))
    send.close()
    sys.stdout.flush()
    os._exit(0)  # a broken CUDA context may hang in its destructors


def _answer(
    receive: Connection, job: Job, process: BaseProcess, spent: float, seconds: float
) -> Report | None:
    if receive.poll():
        try:
            report = receive.recv()
        except EOFError:
            process.join(5)
            report = Report(job.name, False, spent, f"the process ended with exit code {process.exitcode}")
        process.join(1)
        return report
    if spent < seconds:
        return None
    process.kill()
    process.join(1)
    return Report(job.name, False, spent, f"no answer after {seconds:.0f} s (its stack is above)")
