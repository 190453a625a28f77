"""Tile-sparse attention on the CPU, exact, with a backward: time falls with the density of the pattern.

Query tiles with the same list of key tiles are one step: their keys are gathered (into a buffer as long as
the list) and PyTorch's flash kernel does the rest, over samples and heads. The backward runs the same steps through
the kernel's own backward and adds each step's key gradients into place. Nothing of the size of the gathered keys is
kept between forward and backward.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.call import Call
from sora2.kernels.pattern import TilePattern
from sora2.kernels.tiles import Tiles

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

#: Tokens of a sequence, as the ranges in which they lie together: copied whole, twice as fast as row by row.
Runs = tuple[slice, ...]


@dataclass(frozen=True)
class Step:
    """Dense attention of some queries to some keys, for some samples and heads."""

    samples: slice
    heads: slice
    queries: Runs
    keys: Runs
    hidden: Tensor | None  # (1 or B, 1, n, m) bool: pairs that are not seen; None = all are
    dead: Tensor | None  # (1 or B, 1, n, 1) bool: queries that see nothing; None = all see something

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """Added to the scores. Dead rows see all keys, and their output is dropped."""
        if self.hidden is None:
            return None
        hidden = self.hidden if self.dead is None else self.hidden & ~self.dead
        return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))


def why_not(call: Call) -> str | None:
    if call.q.device.type != "cpu":
        return f"runs on the CPU; the tensors are on {call.q.device.type}"
    if call.pattern is None:
        return "runs patterns; without one use 'sdpa'"
    return None


def run(call: Call) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, D) and log-sum-exp (B, H, N), the latter without gradient.

    bf16 and fp16 are computed in float32: the kernel is no slower there, and sums over many tiles keep their digits.
    """
    assert call.pattern is not None
    dtype = torch.float64 if call.q.dtype == torch.float64 else torch.float32
    q, k, v = (x.to(dtype) for x in (call.q, call.k, call.v))
    out, lse = _tiled(q, k, v, call.pattern, call.scale)
    return out.to(call.q.dtype), lse


def _tiled(q: Tensor, k: Tensor, v: Tensor, pattern: TilePattern, scale: float) -> tuple[Tensor, Tensor]:
    steps = steps_of(pattern, q.shape[0], q.shape[1])
    return _Tiled.apply(q, k, v, steps, scale)  # type: ignore[no-any-return]


# What `torch.compiler.disable` would mark it with; that decorator itself loads the compiler, half a second for commands
# that compile nothing. Steps are Python over lists found once: there is nothing in them to compile.
_tiled._torchdynamo_disable = True  # type: ignore[attr-defined]
_tiled._torchdynamo_disable_msg = "tile-sparse attention runs step by step"  # type: ignore[attr-defined]


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, steps: list[Step], scale: float
    ) -> tuple[Tensor, Tensor]:
        out = blank(q, steps)  # (B, H, N, D)
        raw = torch.zeros(q.shape[:3], dtype=q.dtype)  # log-sum-exp as the kernel gives it
        lse = torch.full(q.shape[:3], float("-inf"), dtype=q.dtype)
        for s in steps:
            sq, sk, sv = take(q, s, s.queries), take(k, s, s.keys), take(v, s, s.keys)
            so, sl = _forward(sq, sk, sv, 0.0, False, attn_mask=s.bias(q.dtype), scale=scale)
            put(raw, s, sl)
            if s.dead is not None:
                so = so.masked_fill(s.dead, 0.0)
                sl = sl.masked_fill(s.dead.squeeze(-1), float("-inf"))
            put(out, s, so)
            put(lse, s, sl)
        ctx.save_for_backward(q, k, v, out, raw)
        ctx.steps, ctx.scale = steps, scale
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, out, raw = ctx.saved_tensors
        gq, gk, gv = (
            blank(q, ctx.steps),
            torch.zeros(k.shape, dtype=k.dtype),
            torch.zeros(v.shape, dtype=v.dtype),
        )
        for s in ctx.steps:
            so, sg, sl = (take(x, s, s.queries) for x in (out, grad, raw))
            if s.dead is not None:
                sg = sg.masked_fill(s.dead, 0.0)
            sq, sk, sv = take(q, s, s.queries), take(k, s, s.keys), take(v, s, s.keys)
            dq, dk, dv = _backward(
                sg, sq, sk, sv, so, sl, 0.0, False, attn_mask=s.bias(q.dtype), scale=ctx.scale
            )
            put(gq, s, dq)
            for total, part in ((gk, dk), (gv, dv)):
                for run, values in pieces(total, s, s.keys, part):
                    run += values
        return gq, gk, gv, None, None


def blank(q: Tensor, steps: list[Step]) -> Tensor:
    """(B, H, N, D) for the steps to fill, contiguous; zero where they leave queries out."""
    written = sum(
        len(range(*s.samples.indices(q.shape[0])))
        * len(range(*s.heads.indices(q.shape[1])))
        * sum(run.stop - run.start for run in s.queries)
        for s in steps
    )
    return (torch.empty if written == q[..., 0].numel() else torch.zeros)(q.shape, dtype=q.dtype)


def take(x: Tensor, step: Step, runs: Runs) -> Tensor:
    """The step's samples, heads and tokens of (B, H, N, ...), rows contiguous; a view where they are one run."""
    x = x[step.samples, step.heads]
    if len(runs) == 1:
        x = x[:, :, runs[0]]
        return x if x.ndim == 3 or x.stride(-1) == 1 else x.contiguous()
    # Four times as fast as torch.cat, which copies row by row where its inputs are not contiguous.
    lengths = [run.stop - run.start for run in runs]
    gathered = torch.empty(*x.shape[:2], sum(lengths), *x.shape[3:], dtype=x.dtype)
    for part, run in zip(gathered.split(lengths, dim=2), runs, strict=True):
        part.copy_(x[:, :, run])
    return gathered


def put(x: Tensor, step: Step, values: Tensor) -> None:
    """Write the values of the step's queries into (B, H, N, ...)."""
    for run, part in pieces(x, step, step.queries, values):
        run.copy_(part)


def pieces(x: Tensor, step: Step, runs: Runs, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each run of (B, H, N, ...) as a view, beside its part of `values`."""
    lengths = [run.stop - run.start for run in runs]
    x = x[step.samples, step.heads]
    return zip([x[:, :, run] for run in runs], values.split(lengths, dim=2), strict=True)


_STEPS: weakref.WeakKeyDictionary[TilePattern, dict[tuple[int, int], list[Step]]] = (
    weakref.WeakKeyDictionary()
)


def steps_of(pattern: TilePattern, batch: int, heads: int) -> list[Step]:
    """The steps of a pattern, found once."""
    known = _STEPS.setdefault(pattern, {})
    if (batch, heads) not in known:
        known[batch, heads] = list(_steps(pattern, batch, heads))
    return known[batch, heads]


def _steps(pattern: TilePattern, batch: int, heads: int) -> Iterator[Step]:
    n = pattern.queries.count
    start, entry = pattern.by_query.start.tolist(), pattern.by_query.entry
    full = pattern.by_query.full.tolist()
    masked = pattern.key_rank is not None
    bounds = pattern.queries.start.tolist(), pattern.keys.start.tolist()
    for group in range(pattern.groups):
        samples, head = slice(0, batch), slice(0, heads)
        if pattern.groups > 1:
            b, h = (group, None) if pattern.groups == batch else divmod(group, heads)
            samples, head = slice(b, b + 1), head if h is None else slice(h, h + 1)
        same: dict[tuple[bytes, int], list[int]] = {}
        for tile in range(n):
            row = group * n + tile
            entries = entry[start[row] : start[row + 1]].sort().values
            if len(entries):
                key = (entries.numpy().tobytes(), full[row] if masked else 0)
                same.setdefault(key, []).append(tile)
        for tiles in same.values():
            row = group * n + tiles[0]
            keys = entry[start[row] : start[row + 1]].sort().values.tolist()
            yield _step(pattern, bounds, samples, head, tiles, keys)


def _step(
    pattern: TilePattern,
    bounds: tuple[list[int], list[int]],
    samples: slice,
    heads: slice,
    query_tiles: list[int],
    key_tiles: list[int],
) -> Step:
    if pattern.query_rank is None or pattern.key_rank is None:
        rows, columns = runs_of(bounds[0], query_tiles), runs_of(bounds[1], key_tiles)
        return Step(samples, heads, rows, columns, None, None)
    queries, keys = tokens_of(pattern.queries, query_tiles), tokens_of(pattern.keys, key_tiles)
    query, key = (
        (rank[samples] if rank.shape[0] > 1 else rank)[:, tokens]
        for rank, tokens in ((pattern.query_rank, queries), (pattern.key_rank, keys))
    )
    seen = (key.amin(0) <= query.amax()).nonzero()[:, 0]  # keys that some query of some sample may see
    if 0 < len(seen) < len(keys):
        keys, key = keys[seen], key[:, seen]
    hidden = (key[:, None] > query[:, :, None]).unsqueeze(1)  # (1 or B, 1, n, m)
    dead = hidden.all(-1, keepdim=True)
    dead = dead if bool(dead.any()) else None
    hidden = hidden if bool(hidden.any()) else None
    return Step(samples, heads, as_runs(queries), as_runs(keys), hidden, dead)


def runs_of(bounds: list[int], chosen: list[int]) -> Runs:
    """The tokens of these tiles, rising, as ranges; tile i lies between bounds i and i + 1."""
    found: list[slice] = []
    for i in chosen:
        first, last = bounds[i], bounds[i + 1]
        if found and found[-1].stop == first:
            first = found.pop().start
        found.append(slice(first, last))
    return tuple(found)


def tokens_of(tiles: Tiles, chosen: list[int]) -> Tensor:
    """(n,) int64: the tokens of these tiles, in their order."""
    start = tiles.start.tolist()
    return torch.cat([torch.arange(start[i], start[i + 1]) for i in chosen])


def as_runs(tokens: Tensor) -> Runs:
    """Rising tokens (n,) as ranges."""
    breaks = ((tokens.diff() != 1).nonzero()[:, 0] + 1).tolist()
    return tuple(
        slice(int(tokens[a]), int(tokens[b - 1]) + 1) for a, b in pairwise([0, *breaks, len(tokens)])
    )
