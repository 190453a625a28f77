"""One attention problem, ours and the peers: times, work, agreement."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from gpu_machine import Machine, number
from gpu_shapes import Shape, allowed_pairs, executed_pairs
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sora2.kernels.pattern import TilePattern
from sora2.kernels.triton import KernelPattern, triton_attention
from sora2.kernels.triton.blocks import blocks

#: Matrix products per pair of tokens, of 2 * D operations each.
FORWARD_PRODUCTS, BACKWARD_PRODUCTS, SPLIT_BACKWARD_PRODUCTS = 2, 5, 7
#: Tokens beyond which there is memory for one set of inputs and one graph.
LONG = 100_000


def flex_mask(pattern: TilePattern, device: torch.device) -> Any:
    """FlexAttention's block mask of a pattern with one group of lists, computed by its compiled builder."""
    from torch.nn.attention.flex_attention import create_block_mask

    matrix = pattern.matrix()[0].to(device)
    of_query, of_key = pattern.queries.of_token().to(device), pattern.keys.of_token().to(device)
    if pattern.query_rank is None or pattern.key_rank is None:

        def allowed(b: Any, h: Any, q: Any, k: Any) -> Tensor:
            return matrix[of_query[q], of_key[k]]

    else:
        query_rank, key_rank = pattern.query_rank[0].to(device), pattern.key_rank[0].to(device)

        def allowed(b: Any, h: Any, q: Any, k: Any) -> Tensor:
            return matrix[of_query[q], of_key[k]] & (key_rank[k] <= query_rank[q])

    n, m = pattern.queries.tokens, pattern.keys.tokens
    return create_block_mask(allowed, None, None, n, m, device=str(device), BLOCK_SIZE=128, _compile=True)


@functools.cache
def compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def dense_call(kernel: SDPBackend) -> Callable[..., Tensor]:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(kernel):
            return F.scaled_dot_product_attention(q, k, v)

    return call


def xformers_call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def one_by_one(call: Callable[..., Tensor], lengths: list[int]) -> Callable[..., Tensor]:
    """The samples of a pack in separate calls."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
        return torch.cat([call(*part) for part in parts], dim=2)

    return run


def contenders(
    machine: Machine, shape: Shape, pattern: TilePattern
) -> tuple[dict[str, Callable[..., Tensor]], dict[str, Callable[[int], Any]]]:
    """What attends, and what prepares it: ours and FlexAttention's."""
    prepared = KernelPattern.of(pattern, machine.device)
    there = pattern.to(machine.device)
    calls: dict[str, Callable[..., Tensor]] = {"ours": lambda q, k, v: triton_attention(q, k, v, prepared)[0]}
    prepare: dict[str, Callable[[int], Any]] = {"ours": lambda i: KernelPattern._made(there, machine.device)}
    if machine.dry:
        return calls | {"sdpa": dense_call(SDPBackend.MATH)}, prepare
    calls |= {
        "cudnn, dense": dense_call(SDPBackend.CUDNN_ATTENTION),
        "flash, dense": dense_call(SDPBackend.FLASH_ATTENTION),
        "xformers, dense": xformers_call,
    }
    if len(shape.samples) > 1:
        for name in ("cudnn", "flash"):
            calls[f"{name}, sample by sample"] = one_by_one(calls[f"{name}, dense"], shape.lengths)
    prepare["flex"] = lambda i: flex_mask(there, machine.device)
    try:
        mask = flex_mask(there, machine.device)
        calls["flex"] = lambda q, k, v: compiled_flex()(q, k, v, block_mask=mask)
    except Exception as error:  # out of memory, say: the row will carry the reason
        reason = f"block mask: {type(error).__name__}: {error}"

        def fails(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            raise RuntimeError(reason)

        calls["flex"] = fails
        del prepare["flex"]
        machine.free()
    return calls, prepare


def bench_shape(machine: Machine, shape: Shape, ceiling: float) -> dict[str, Any]:
    """Times of every contender on one shape."""
    torch._dynamo.reset()
    start = time.perf_counter()
    pattern = shape.pattern(machine.tile)
    host = 1000 * (time.perf_counter() - start)
    n = pattern.queries.tokens
    sets = 1 if n > LONG else 3
    generator = torch.Generator(machine.device).manual_seed(0)
    size = (1, shape.heads, n, shape.head)

    def draw() -> Tensor:
        return torch.randn(size, generator=generator, device=machine.device).to(machine.dtype)

    inputs = [[draw().requires_grad_() for _ in range(3)] for _ in range(sets)]
    grads = [draw() for _ in range(sets)]
    calls, prepare = contenders(machine, shape, pattern)
    agreement = compare(calls, inputs[0], grads[0], [c for c in ("flex", "sdpa") if c in calls], shape)

    with torch.no_grad():
        forward = machine.measure({c: lambda i, f=f: f(*inputs[i % sets]) for c, f in calls.items()})
    kept: dict[str, Tensor] = {}

    def backward(name: str, i: int) -> None:
        torch.autograd.grad(kept[name], inputs[0], grads[i % sets], retain_graph=True)

    backward_times: dict[str, float | str] = {}
    runnable = [name for name in calls if not isinstance(forward[name], str)]
    backward_times |= {name: forward[name] for name in calls if name not in runnable}
    for group in (
        [runnable] if n <= LONG else [[name] for name in runnable]
    ):  # long: one graph at a time, for memory
        kept.update({name: calls[name](*inputs[0]) for name in group})
        backward_times |= machine.measure({name: functools.partial(backward, name) for name in group})
        kept.clear()
        machine.free()
    prepared = machine.measure(prepare)
    flops = 2.0 * shape.heads * shape.head
    useful = allowed_pairs(pattern)
    dense = pattern.queries.tokens * pattern.keys.tokens
    by_sample = sum(length**2 for length in shape.lengths)
    rows = []
    for name in calls:
        if name == "ours":
            computed = [
                executed_pairs(pattern, blocks(k, machine.dtype, shape.head))
                for k in ("forward", "query_gradient")
            ]
            products = SPLIT_BACKWARD_PRODUCTS
        else:
            pairs = dense if "dense" in name or name == "sdpa" else by_sample if "sample" in name else useful
            computed, products = [pairs, pairs], BACKWARD_PRODUCTS
        row: dict[str, Any] = {"name": name}
        for phase, ms, count, work in (
            ("forward", forward[name], FORWARD_PRODUCTS, computed[0] * FORWARD_PRODUCTS),
            ("backward", backward_times[name], BACKWARD_PRODUCTS, computed[1] * products),
        ):
            if isinstance(ms, str):
                row[phase] = {"error": ms}
                continue
            row[phase] = {
                "ms": ms,
                "all_in_ms": ms
                + (number(prepared[name]) if name in prepared and phase == "forward" else 0.0),
                "useful_tflops": flops * useful * count / ms / 1e9,
                "executed_tflops": flops * work / ms / 1e9,
                "useful_share": flops * useful * count / ms / 1e9 / ceiling,
                "executed_share": flops * work / ms / 1e9 / ceiling,
            }
        rows.append(row)
    return {
        "shape": shape.name,
        "tokens": n,
        "heads": shape.heads,
        "head": shape.head,
        "density": useful / dense,
        "list_bytes": pattern.list_bytes,
        "host_pattern_ms": host,
        "preparation_ms": prepared,
        "agreement": agreement,
        "rows": rows,
    }


def compare(
    calls: dict[str, Callable[..., Tensor]],
    inputs: list[Tensor],
    grad: Tensor,
    peers: list[str],
    shape: Shape,
) -> dict[str, Any]:
    """Relative difference of output and gradients between ours and the peers that compute the same pattern."""
    if not shape.samples:
        peers = [*peers, *(n for n in ("cudnn, dense",) if n in calls)]
    elif len(shape.samples) > 1 and shape.rule.is_dense and shape.chunk_seconds is None:
        peers = [*peers, *(n for n in ("cudnn, sample by sample",) if n in calls)]
    found: dict[str, Any] = {}
    ours = None
    for peer in peers:
        if peer == "sdpa" and shape.samples:
            continue  # dense: another problem
        try:
            if ours is None:
                out = calls["ours"](*inputs)
                ours = [out.detach(), *torch.autograd.grad(out, inputs, grad)]
                del out
            out = calls[peer](*inputs)
            theirs = [out.detach(), *torch.autograd.grad(out, inputs, grad)]
            del out
            found[peer] = {
                name: float((a.float() - b.float()).norm() / b.float().norm())
                for name, a, b in zip(("out", "dq", "dk", "dv"), ours, theirs, strict=True)
            }
        except Exception as error:
            found[peer] = f"{type(error).__name__}: {error}"[:300]
    return found


def show(result: dict[str, Any]) -> None:
    """One shape as a table, milliseconds first."""
    print(f"\n{result['shape']}: {result['tokens']} tokens, density {result['density']:.3f}")
    print(f"  preparation ms {result['preparation_ms']}; against peers {result['agreement']}")
    for row in result["rows"]:
        text = f"  {row['name']:26}"
        for phase in ("forward", "backward"):
            r = row[phase]
            if "error" in r:
                text += f" {phase}: {r['error'][:60]}"
                continue
            text += (
                f" {phase} {r['ms']:9.3f} ms (all-in {r['all_in_ms']:9.3f}), useful {r['useful_tflops']:7.1f}, "
                f"executed {r['executed_tflops']:6.1f} TFLOP/s = {r['executed_share']:4.0%}"
            )
        print(text, flush=True)
