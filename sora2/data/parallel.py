"""Work done side by side, by threads or processes, with results that do not depend on their number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

import torch

from sora2.processes import worker_pool


def run_tasks(function: Callable[[Any], Any], tasks: Sequence[Any], workers: int) -> Iterator[Any]:
    """Results of `function(task)` in order of completion; in this process when `workers` is 1 or there is one
    task.

    An error or Ctrl-C stops the workers at once; shards they had not finished leave no file behind but a
    temporary one, which the next run removes.
    """
    if workers <= 1 or len(tasks) <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker
        try:
            yield from map(function, tasks)
        finally:
            torch.set_num_threads(threads)
        return
    pool = worker_pool(min(workers, len(tasks)))
    try:
        for future in as_completed([pool.submit(function, task) for task in tasks]):
            yield future.result()
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def map_ahead(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """`map` by threads, in order, at most a few items ahead of the consumer."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[Any]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
