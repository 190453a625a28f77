"""The token-wise kernels against eager PyTorch and torch.compile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from gpu_machine import Machine
from torch import Tensor

from sora2.kernels import modulate as eager
from sora2.kernels.heads import split_heads as split_heads_eager
from sora2.kernels.heads import split_heads_reference
from sora2.kernels.stream import Runs, Span
from sora2.kernels.triton import heads as ours_heads
from sora2.kernels.triton import modulate as ours
from sora2.kernels.triton import use_gpu_kernels

#: Calls by contender, the inputs that get a gradient, and the bytes of both phases at least.
Case = tuple[dict[str, Callable[[], Any]], list[Tensor], tuple[int, int]]


def cases_of(machine: Machine) -> dict[str, Case]:
    """The token-wise operations at the 5 s geometry, width 2048: ours, eager, torch.compile."""
    use_gpu_kernels("plain")  # of `eager`; ours are called by name
    parts, heads, head = ((256, 30720, 500), 16, 128) if not machine.dry else ((3, 20, 5), 2, 16)
    tokens, width = sum(parts), heads * head
    device, dtype = machine.device, machine.dtype
    spans, runs, at = [], [], 0
    for n in parts:
        spans.append(Span(slice(at, at + n), slice(at, at + n)))
        runs.append(Runs(slice(at, at + n), 1, 1))
        at += n
    spans_, runs_ = tuple(spans), tuple(runs)
    qkv = torch.randn(tokens, 3 * width, device=device).to(dtype).requires_grad_()
    gain = torch.ones(2, head, device=device, requires_grad=True)
    angle = torch.rand(1, tokens, head // 2, device=device) * 6
    cosine, sine = angle.cos(), angle.sin()
    x, update = (torch.randn(tokens, width, device=device).to(dtype).requires_grad_() for _ in range(2))
    tables = [torch.randn(1, width, device=device).to(dtype).requires_grad_() for _ in range(9)]

    def split(function: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: function(qkv, gain, cosine, sine, spans_, 1, 1e-6)

    def modulate(function: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: function(x, update, runs_, tables[:3], tables[3:6], tables[6:], 1e-6)

    def plain(x: Tensor, u: Tensor, r: Any, gates: Any, shifts: Any, gains: Any, eps: float) -> Any:
        x = eager.gated_add_reference(x, u, r, gates)
        return x, eager.norm_modulate_reference(x, r, shifts, gains, eps)

    compiler = "aot_eager" if machine.dry else "inductor"
    compiled = functools.partial(torch.compile, backend=compiler)
    element = x.element_size()
    return {
        # Bytes at least: forward reads and writes 3 streams; backward reads 6 and writes 3.
        "split + norm + rotation": (
            {
                "ours": split(ours_heads.split_heads),
                "eager": split(split_heads_eager),
                "compiled": split(compiled(split_heads_reference)),
            },
            [qkv, gain],
            (6 * tokens * width * element, 9 * tokens * width * element),
        ),
        # Forward reads x and update and writes both results; backward reads 4 streams and writes 2.
        "gate + residual + norm + modulate": (
            {
                "ours": modulate(ours.gated_add_norm_modulate),
                "eager": modulate(eager.gated_add_norm_modulate),
                "compiled": modulate(compiled(plain)),
            },
            [x, update, *tables],
            (4 * tokens * width * element, 6 * tokens * width * element),
        ),
    }


def warm() -> None:
    """Compile every contender into the caches on disk."""
    for calls, inputs, _ in cases_of(Machine(dry=False)).values():
        for call in calls.values():
            outputs = call()
            torch.autograd.grad(outputs, inputs, [torch.ones_like(o) for o in outputs], retain_graph=True)
    torch.cuda.synchronize()


def bench_tokens(machine: Machine, copy_gbytes: float) -> list[dict[str, Any]]:
    """Forward and backward of every contender, beside the speed of a copy."""
    rows = []
    for name, (calls, inputs, bytes_) in cases_of(machine).items():
        forward = machine.measure({c: lambda i, f=f: f() for c, f in calls.items()})
        host = {"forward": machine.host}
        back: dict[str, Callable[[int], Any]] = {}
        for contender, call in calls.items():
            if isinstance(forward[contender], str):
                continue
            outputs = call()
            grads = [torch.randn_like(o) for o in outputs]
            back[contender] = lambda i, o=outputs, g=grads, w=inputs: torch.autograd.grad(
                o, w, g, retain_graph=True
            )
        backward = forward | machine.measure(back)
        host["backward"] = machine.host
        for contender in calls:
            row: dict[str, Any] = {"operation": name, "name": contender}
            for phase, ms, size in (
                ("forward", forward[contender], bytes_[0]),
                ("backward", backward[contender], bytes_[1]),
            ):
                if isinstance(ms, str):
                    row[phase] = {"error": ms}
                else:
                    gbytes = size / ms / 1e6
                    row[phase] = {
                        "ms": ms,
                        "host_ms": host[phase][contender],
                        "gbytes_per_second": gbytes,
                        "share_of_copy": gbytes / copy_gbytes,
                    }
            rows.append(row)
    return rows
