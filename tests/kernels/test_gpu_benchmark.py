"""The GPU benchmark's own parts that need no GPU: its processes, and the block mask it gives to FlexAttention."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sora2.kernels.pattern import TilePattern, concatenate, dense_pattern
from sora2.kernels.rules import Part, Rule, Tiling
from sora2.kernels.tiles import Tiles

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield


def ragged(chunk_seconds: float | None) -> TilePattern:
    """Video tiles of 32 tokens, audio cut at the chunks: tiles and FlexAttention's blocks of 128 do not align."""
    grid, text, audio = (4, 4, 16), 21, 50
    frame = (torch.arange(grid[0]) + 0.5) / 4
    parts = [
        Part("text", torch.zeros(1, text)),
        Part("video", frame.repeat_interleave(grid[1] * grid[2]).view(1, -1), grid),
        Part("audio", ((torch.arange(audio) + 0.5) / 50).view(1, -1)),
    ]
    tiling = Tiling.of(parts, (2, 2, 8), 32, chunk_seconds)
    return tiling.pattern(Rule(window=(1, 1, 1), video_hears_seconds=0.2, audio_sees_seconds=0.2))


@pytest.mark.parametrize("name", ["window", "causal", "packed", "dense"])
def test_block_mask_from_lists_is_that_of_pytorch(name: str) -> None:
    from gpu_attention import flex_mask
    from torch.nn.attention.flex_attention import create_block_mask

    pattern = {
        "window": lambda: ragged(None),
        "causal": lambda: ragged(0.5),
        "packed": lambda: concatenate([ragged(0.5), ragged(None)]),
        "dense": lambda: dense_pattern(Tiles.regular(300, 128)),
    }[name]()
    mask = flex_mask(pattern, torch.device("cpu"))
    n = pattern.queries.tokens
    every = torch.arange(n)
    assert torch.equal(mask.mask_mod(0, 0, every[:, None], every), pattern.allowed()[0, 0])
    want = create_block_mask(mask.mask_mod, None, None, n, n, device="cpu", BLOCK_SIZE=128)
    assert want.shape == mask.shape
    for kind in ("kv", "full_kv", "q", "full_q"):
        count, indices = (getattr(mask, f"{kind}_{x}") for x in ("num_blocks", "indices"))
        assert torch.equal(count, getattr(want, f"{kind}_num_blocks"))
        for row, number in enumerate(count[0, 0].tolist()):
            assert torch.equal(
                indices[0, 0, row, :number], getattr(want, f"{kind}_indices")[0, 0, row, :number]
            )


def passes() -> None:
    pass


def fails() -> None:
    raise AssertionError("17 is above 3")


def hangs() -> None:
    time.sleep(60)


def dies() -> None:
    os._exit(9)


def test_a_process_that_fails_hangs_or_dies_is_a_report_and_the_others_go_on() -> None:
    from gpu_jobs import Job, run_jobs

    sys.stdout.flush()
    jobs = [Job(f.__name__, f) for f in (hangs, fails, dies, passes)]
    reports = {r.gate: r for r in run_jobs(jobs, 4, 2, "fork")}
    assert {name for name, r in reports.items() if r.passed} == {"passes"}
    assert "17 is above 3" in reports["fails"].message
    assert "no answer after 2 s" in reports["hangs"].message
    assert "exit code 9" in reports["dies"].message
