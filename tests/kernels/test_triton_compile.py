"""The kernels compile for sm_90 without a GPU: on the tensor cores' full-speed path, in registers, in shared memory."""

import importlib.util

import pytest
import torch

from sora2.kernels.triton.blocks import Blocks
from sora2.kernels.triton.offline import SHARED_LIMIT, compile_attention, compile_token_kernels

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

KERNELS = ("forward", "query_gradient", "key_gradient")
#: Spill instructions of heads of 128 at most. On an H200 two blocks a multiprocessor that spill a little outrun one
#: that does not: 3.23 ms for 3.61 forward, 5.67 for 7.35 dK and dV (`benchmarks/results/kernels_gpu_tuning.json`).
SPILLS = {("forward", 128): 128, ("key_gradient", 128): 32}


@pytest.mark.parametrize("head", [pytest.param(64, marks=pytest.mark.slow), 128])
@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_in_16_bits_uses_warpgroup_products_and_hardly_spills(kernel: str, head: int) -> None:
    report = compile_attention(kernel, torch.bfloat16, head)
    assert report.warpgroup_products > 0, report
    spills = SPILLS.get((kernel, head), 0)
    assert report.local_accesses <= spills, report
    assert spills or report.stack == 0, report
    assert report.shared <= SHARED_LIMIT, report


@pytest.mark.parametrize(
    "kernel", [*(pytest.param(k, marks=pytest.mark.slow) for k in KERNELS[:2]), KERNELS[2]]
)
def test_attention_in_float32_spills_nothing(kernel: str) -> None:
    report = compile_attention(kernel, torch.float32, 128)
    assert report.local_accesses == 0, report
    assert report.shared <= SHARED_LIMIT, report


def test_float16_tiles_of_64_and_bulk_copies_fit() -> None:
    report = compile_attention(
        "forward", torch.float16, 128, tile=64, cut=Blocks(64, 64, 4, 2, tensor_maps=True)
    )
    assert report.warpgroup_products > 0 and report.local_accesses == 0, report


def test_token_kernels_spill_nothing() -> None:
    for report in compile_token_kernels(width=2048, head=128):
        assert report.local_accesses == 0, report
