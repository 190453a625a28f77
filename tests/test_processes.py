"""Processes keep the memory that they free, and workers are what the parent expects."""

import sys

import pytest
import torch

from sora2.processes import keep_freed_memory, worker_pool

MEGABYTES_32 = 8 << 20  # float32 numbers


def page_faults_of_a_block() -> int:
    """Of making a tensor and freeing it, once the heap has settled."""
    import resource

    for _ in range(3):
        torch.zeros(MEGABYTES_32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(MEGABYTES_32)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4


def threads_and_faults() -> tuple[int, int]:
    return torch.get_num_threads(), page_faults_of_a_block()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told")
def test_freed_memory_is_used_again():
    keep_freed_memory()
    assert page_faults_of_a_block() < 100  # a fresh block of 32 MiB is 8192 pages


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told")
def test_workers_compute_on_one_thread_and_keep_their_memory():
    with worker_pool(1) as pool:
        threads, faults = pool.submit(threads_and_faults).result()
    assert threads == 1
    assert faults < 100
