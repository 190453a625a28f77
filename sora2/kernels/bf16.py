"""Whether bf16 products are worth it on this CPU: the one notion of it, measured."""

from __future__ import annotations

import functools
import time

import torch

#: Below this bf16 gains less than its conversions cost.
WORTH_IT = 1.2


@functools.cache
def bf16_speedup(size: int = 768, rounds: int = 3) -> float:
    """Time of a float32 over that of a bf16 matrix product on this CPU: about 0.5, 2 or 8 where bf16 is in hardware.

    Flags do not tell: some CPUs with AVX512-bf16 multiply it at half the rate of float32. Without such instructions it
    is 0, unmeasured, for one product would take a second.
    """
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return 0.0

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(size, size, dtype=dtype)
        a @ a
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.float32) / seconds(torch.bfloat16)


def has_fast_bf16() -> bool:
    """Whether bf16 products run at least `WORTH_IT` times as fast as float32."""
    return bf16_speedup() > WORTH_IT
