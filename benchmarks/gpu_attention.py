"""One attention problem, ours and the peers: times, work, agreement."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from gpu_machine import Machine
from gpu_shapes import Shape, allowed_pairs, executed_pairs
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sora2.kernels.pattern import TilePattern
from sora2.kernels.triton import KernelPattern, triton_attention
from sora2.kernels.triton.blocks import blocks

#: Matrix products per pair of tokens, of 2 * D operations each.
FORWARD_PRODUCTS, BACKWARD_PRODUCTS, SPLIT_BACKWARD_PRODUCTS = 2, 5, 7
#: Tokens beyond which there is memory for one set of inputs and one graph, and time for one dense peer.
LONG = 100_000
#: Tokens of FlexAttention's blocks.
FLEX_BLOCK = 128


def flex_mask(pattern: TilePattern, device: torch.device) -> Any:
    """FlexAttention's block mask of a pattern with one group of lists, from the lists: exact, and without asking the
    rule for every pair of tokens, as PyTorch's builder does, which takes seconds or all memory at 60 s."""
    from torch.nn.attention.flex_attention import BlockMask

    matrix = pattern.matrix()[0].to(device)
    of_query, of_key = pattern.queries.of_token().to(device), pattern.keys.of_token().to(device)
    ranked = pattern.query_rank is not None and pattern.key_rank is not None
    query_rank, key_rank = (
        (rank[0] if ranked else torch.zeros_like(owner)).to(device)
        for rank, owner in ((pattern.query_rank, of_query), (pattern.key_rank, of_key))
    )

    def allowed(b: Any, h: Any, q: Any, k: Any) -> Tensor:
        return matrix[of_query[q], of_key[k]]

    def allowed_by_rank(b: Any, h: Any, q: Any, k: Any) -> Tensor:
        return matrix[of_query[q], of_key[k]] & (key_rank[k] <= query_rank[q])

    seen, full = _blocks(matrix, of_query, of_key, query_rank, key_rank)
    return BlockMask.from_kv_blocks(
        *_ordered(seen & ~full),
        *_ordered(full),
        BLOCK_SIZE=FLEX_BLOCK,
        mask_mod=allowed_by_rank if ranked else allowed,
        seq_lengths=(len(of_query), len(of_key)),
    )


def _blocks(
    matrix: Tensor, of_query: Tensor, of_key: Tensor, query_rank: Tensor, key_rank: Tensor
) -> tuple[Tensor, Tensor]:
    """(query blocks, key blocks) bool each: some pair of tokens is allowed; all are, in blocks that are whole."""
    (qt, qb, q_low, q_high), (kt, kb, k_low, k_high) = (
        _fragments(owner, rank) for owner, rank in ((of_query, query_rank), (of_key, key_rank))
    )
    listed = matrix[qt][:, kt]
    some, all_ = listed & (k_low <= q_high[:, None]), listed & (k_high <= q_low[:, None])
    n, m = int(qb[-1]) + 1, int(kb[-1]) + 1

    def within_blocks(found: Tensor) -> Tensor:
        rows = torch.zeros(n, len(kb), device=found.device).index_add_(0, qb, found.float())
        return torch.zeros(n, m, device=found.device).index_add_(1, kb, rows) > 0

    full = ~within_blocks(~all_)
    if len(of_query) % FLEX_BLOCK:
        full[-1] = False
    if len(of_key) % FLEX_BLOCK:
        full[:, -1] = False
    return within_blocks(some), full


def _fragments(owner: Tensor, rank: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tile, block, smallest and largest rank of each run of tokens that lies in one tile and one block."""
    token = torch.arange(len(owner), device=owner.device)
    block = token // FLEX_BLOCK
    first = torch.ones_like(token, dtype=torch.bool)
    first[1:] = (owner.diff() != 0) | (block.diff() != 0)
    of_token = first.cumsum(0) - 1
    at = first.nonzero().flatten()
    low, high = (
        rank.new_zeros(len(at)).scatter_reduce(0, of_token, rank, how, include_self=False)
        for how in ("amin", "amax")
    )
    return owner[at], block[at], low, high


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Count and indices of each row's blocks, (1, 1, n) and (1, 1, n, m) int32; those that are not meant follow."""
    order = (~blocks).to(torch.int8).argsort(dim=1, stable=True)
    return blocks.sum(1).int()[None, None], order.int()[None, None].contiguous()


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
    try:
        mask = flex_mask(there, machine.device)
        calls["flex"] = lambda q, k, v: compiled_flex()(q, k, v, block_mask=mask)
        prepare["flex"] = lambda i: flex_mask(there, machine.device)
    except Exception as error:  # out of memory, say: the row will carry the reason
        calls["flex"] = failing(f"block mask: {type(error).__name__}: {error}")
        machine.free()
    calls["cudnn, dense"] = dense_call(SDPBackend.CUDNN_ATTENTION)
    if sum(shape.lengths) <= LONG:
        calls |= {"flash, dense": dense_call(SDPBackend.FLASH_ATTENTION), "xformers, dense": xformers_call}
    if len(shape.samples) > 1:
        for name, kernel in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            calls[f"{name}, sample by sample"] = one_by_one(dense_call(kernel), shape.lengths)
    return calls, prepare


def failing(reason: str) -> Callable[..., Tensor]:
    """A contender that cannot run."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise RuntimeError(reason)

    return call


def draw_inputs(machine: Machine, shape: Shape, sets: int) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Sets of random q, k and v, and of gradients of the output."""
    generator = torch.Generator(machine.device).manual_seed(0)
    size = (1, shape.heads, sum(shape.lengths), shape.head)

    def draw() -> Tensor:
        return torch.randn(size, generator=generator, device=machine.device, dtype=machine.dtype)

    return [[draw().requires_grad_() for _ in range(3)] for _ in range(sets)], [draw() for _ in range(sets)]


def warm(shape: Shape) -> None:
    """Compile what a shape's contenders need into the caches on disk: ours and FlexAttention, both ways."""
    machine = Machine(dry=False)
    inputs, grads = draw_inputs(machine, shape, 1)
    calls, _ = contenders(machine, shape, shape.pattern(machine.tile))
    for name in ("ours", "flex"):
        torch.autograd.grad(calls[name](*inputs[0]), inputs[0], grads[0], retain_graph=True)
    torch.cuda.synchronize()


def bench_shape(machine: Machine, shape: Shape, ceiling: float) -> dict[str, Any]:
    """Times of every contender on one shape."""
    torch._dynamo.reset()
    begun = start = time.perf_counter()
    pattern = shape.pattern(machine.tile)
    host = 1000 * (time.perf_counter() - start)
    n = pattern.queries.tokens
    sets = 1 if n > LONG else 3
    inputs, grads = draw_inputs(machine, shape, sets)
    calls, prepare = contenders(machine, shape, pattern)
    agreement = compare(calls, inputs[0], grads[0], [c for c in ("flex", "sdpa") if c in calls], shape)
    # Long: one contender and one graph at a time, for memory, ours first, should a peer break the process.
    groups = [list(calls)] if n <= LONG else [[name] for name in calls]
    kept: dict[str, Tensor] = {}

    def backward(name: str, i: int) -> None:
        torch.autograd.grad(kept[name], inputs[0], grads[i % sets], retain_graph=True)

    times: dict[str, dict[str, float | str]] = {"forward": {}, "backward": {}}
    host: dict[str, dict[str, float]] = {"forward": {}, "backward": {}}
    for group in groups:
        # With gradients on, as in training: each contender stores its log-sum-exp, and Flex compiles one graph.
        times["forward"] |= machine.measure({c: lambda i, f=calls[c]: f(*inputs[i % sets]) for c in group})
        host["forward"] |= machine.host
        ran = [name for name in group if not isinstance(times["forward"][name], str)]
        try:
            kept.update({name: calls[name](*inputs[0]) for name in ran})
            times["backward"] |= machine.measure({name: functools.partial(backward, name) for name in ran})
            host["backward"] |= machine.host
        except Exception as error:
            times["backward"] |= dict.fromkeys(ran, f"{type(error).__name__}: {error}"[:300])
        times["backward"] |= {name: times["forward"][name] for name in group if name not in ran}
        kept.clear()
        machine.free()
    prepared = machine.measure(prepare, head_start=False)
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
        preparation = prepared.get(name, 0.0)
        preparation = float("nan") if isinstance(preparation, str) else preparation
        for phase, count, work in (
            ("forward", FORWARD_PRODUCTS, computed[0] * FORWARD_PRODUCTS),
            ("backward", BACKWARD_PRODUCTS, computed[1] * products),
        ):
            ms = times[phase][name]
            if isinstance(ms, str):
                row[phase] = {"error": ms}
                continue
            row[phase] = {
                "ms": ms,
                "host_ms": host[phase][name],
                "all_in_ms": ms + (preparation if phase == "forward" else 0.0),
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
        "seconds": time.perf_counter() - begun,
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
                name: float((a - b).norm(dtype=torch.float32) / b.norm(dtype=torch.float32))
                for name, a, b in zip(("out", "dq", "dk", "dv"), ours, theirs, strict=True)
            }
        except Exception as error:
            found[peer] = f"{type(error).__name__}: {error}"[:300]
    return found


def show(result: dict[str, Any]) -> None:
    """One shape as a table, milliseconds first."""
    print(
        f"\n{result['shape']}: {result['tokens']} tokens, density {result['density']:.3f} "
        f"(measured in {result['seconds']:.0f} s)"
    )
    print(f"  preparation ms {result['preparation_ms']}; against peers {result['agreement']}")
    for row in result["rows"]:
        text = f"  {row['name']:26}"
        for phase in ("forward", "backward"):
            r = row[phase]
            if "error" in r:
                text += f" {phase}: {r['error'][:90]}"
                continue
            text += (
                f" {phase} {r['ms']:9.3f} ms (all-in {r['all_in_ms']:9.3f}, host {r['host_ms']:.2f}), useful "
                f"{r['useful_tflops']:7.1f}, "
                f"executed {r['executed_tflops']:6.1f} TFLOP/s = {r['executed_share']:4.0%}"
            )
        print(text, flush=True)
