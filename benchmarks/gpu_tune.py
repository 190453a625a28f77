"""Block sizes, warps and stages of the attention kernels, measured: what `TABLE` of `triton/blocks.py` should say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from gpu_machine import Machine
from gpu_shapes import Shape

from sora2.kernels.triton import KernelPattern, launch
from sora2.kernels.triton.blocks import Blocks, blocks

#: Those that spill by the hundred when compiled for sm_90, 128 x 128 on 4 warps, are left out.
OPTIONS = tuple(
    Blocks(queries, keys, warps, stages, maps)
    for queries, keys in ((128, 128), (128, 64), (64, 128), (64, 64))
    for warps in (4, 8)
    for stages in (2, 3)
    for maps in (False, True)
    if queries * keys < 128 * 128 or warps == 8
)
KERNELS = ("forward", "query_gradient", "key_gradient")


def launches(machine: Machine, shape: Shape) -> dict[str, Callable[[Blocks], Any]]:
    """Each kernel alone on one shape, as a function of how it is cut."""
    pattern = KernelPattern.of(shape.pattern(machine.tile), machine.device)
    size = (1, shape.heads, pattern.queries, shape.head)
    q, k, v, grad = (torch.randn(size, device=machine.device).to(machine.dtype) for _ in range(4))
    problem = launch.Problem(
        pattern.tensors(),
        pattern.query_rank,
        pattern.key_rank,
        pattern.query_size,
        pattern.key_size,
        pattern.groups,
        shape.head**-0.5,
    )
    out, lse = launch.forward(q, k, v, problem)
    delta = torch.zeros_like(lse)
    return {
        "forward": lambda cut: launch.forward(q, k, v, problem, cut),
        "query_gradient": lambda cut: launch.query_gradient(
            grad, None, q, k, v, out, lse, delta, problem, cut
        ),
        "key_gradient": lambda cut: launch.key_gradient(grad, q, k, v, lse, delta, problem, cut),
    }


def warm(shape: Shape, kernel: str, options: tuple[Blocks, ...]) -> None:
    """Compile one kernel cut in these ways into the cache on disk; a way that is refused will be named by `tune`."""
    run = launches(Machine(dry=False), shape)[kernel]
    for cut in options:
        with contextlib.suppress(Exception):
            run(cut)
    torch.cuda.synchronize()


def tune(machine: Machine, shapes: tuple[Shape, ...]) -> list[dict[str, Any]]:
    """Milliseconds of each attention kernel under other blocks, warps and stages; fastest first."""
    options = OPTIONS[:2] if machine.dry else OPTIONS
    rows = []
    for shape in shapes:
        kernels = launches(machine, shape)
        for kernel, run in kernels.items():
            calls = {str(cut): lambda i, cut=cut, run=run: run(cut) for cut in options}
            times = machine.measure(calls)
            good = sorted((ms, cut) for cut, ms in times.items() if not isinstance(ms, str))
            chosen = blocks(kernel, machine.dtype, shape.head)
            rows.append(
                {
                    "shape": shape.name,
                    "kernel": kernel,
                    "chosen": str(chosen),
                    "fastest": [{"blocks": cut, "ms": ms} for ms, cut in good[:5]],
                    "chosen_ms": times.get(str(chosen)),
                    "failed": {cut: ms for cut, ms in times.items() if isinstance(ms, str)},
                }
            )
            best = good[0] if good else (float("nan"), "none")
            print(
                f"{shape.name:34} {kernel:16} {best[0]:8.3f} ms  {best[1]}   (in use: {chosen})", flush=True
            )
    return rows
