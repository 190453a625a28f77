"""Whether bf16 products are worth it: the one notion of it, measured on CPUs."""

from __future__ import annotations

import functools
import time
import warnings

import torch

#: Below this bf16 gains less than its conversions cost.
WORTH_IT = 1.2
#: What a network's products may run in, by the names of flags.
PRODUCTS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class SlowProductsWarning(UserWarning):
    """bf16 where float32 is faster."""


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

    # The first to ask is often a network under autocast, which would make one product of both.
    with torch.autocast("cpu", enabled=False):
        return seconds(torch.float32) / seconds(torch.bfloat16)


def has_fast_bf16() -> bool:
    """Whether bf16 products run at least `WORTH_IT` times as fast as float32 on this CPU."""
    return bf16_speedup() > WORTH_IT


def choose_dtype(device: str | torch.device, asked: str = "auto") -> torch.dtype:
    """Of a network's products: a name of `PRODUCTS`, or "auto": bf16 on CUDA and on CPUs that multiply it faster.

    Warns when bf16 is asked for by name where float32 is faster.
    """
    kind = torch.device(device).type
    if asked == "bf16" and kind == "cpu" and bf16_speedup() < 1:
        warnings.warn(
            "bf16 was asked for, and this CPU multiplies it more slowly than float32: auto takes the faster one",
            SlowProductsWarning,
            stacklevel=2,
        )
    if asked != "auto":
        return PRODUCTS[asked]
    fast = kind == "cuda" or (kind == "cpu" and has_fast_bf16())
    return torch.bfloat16 if fast else torch.float32
