"""PyTorch's FlexAttention on our patterns: a peer to compare with. Its block mask is built once per pattern."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from sora2.kernels.call import Call, unaligned
from sora2.kernels.pattern import TilePattern

SMALLEST_HEAD = 16
BLOCK = 128


def why_not(call: Call) -> str | None:
    width = call.q.shape[-1]
    if width < SMALLEST_HEAD or width & (width - 1):
        return f"takes head sizes that are powers of two from {SMALLEST_HEAD}; got {width}"
    if call.q.device.type == "cpu" and any(x.requires_grad for x in (call.q, call.k, call.v)):
        return "has no backward on the CPU: use 'compiled' or 'tiled'"
    if call.q.dtype == torch.float64:
        return "does not take torch.float64"
    if call.key_mask is not None:
        return "takes padding inside a pattern only: dense_pattern(...).with_padding(key_mask)"
    return unaligned(call)


def run(call: Call) -> tuple[Tensor, None]:
    mask = None if call.pattern is None else block_mask(call.pattern, *call.q.shape[:2])
    return compiled()(call.q, call.k, call.v, block_mask=mask, scale=call.scale), None


@functools.cache
def compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False)


_MASKS: weakref.WeakKeyDictionary[TilePattern, dict[tuple[int, int], BlockMask]] = weakref.WeakKeyDictionary()


def block_mask(pattern: TilePattern, batch: int, heads: int) -> BlockMask:
    """FlexAttention's own form of a pattern. Its blocks are regular, so our ragged tiles become masks inside them."""
    known = _MASKS.setdefault(pattern, {})
    if (batch, heads) not in known:
        per_sample = pattern.groups > 1 or (pattern.key_rank is not None and pattern.key_rank.shape[0] > 1)
        known[batch, heads] = create_block_mask(
            _rule(pattern, batch, heads),
            batch if per_sample else None,
            heads if pattern.groups == batch * heads and heads > 1 else None,
            pattern.queries.tokens,
            pattern.keys.tokens,
            device=pattern.by_query.start.device,
            BLOCK_SIZE=BLOCK,
        )
    return known[batch, heads]


def _rule(pattern: TilePattern, batch: int, heads: int) -> Callable[..., Tensor]:
    matrix, query_tile, key_tile = pattern.matrix(), pattern.queries.of_token(), pattern.keys.of_token()
    by_sample = int(pattern.groups > 1)
    per_head = pattern.groups == batch * heads and heads > 1
    query_rank, key_rank = pattern.query_rank, pattern.key_rank

    def allowed(b: Any, h: Any, q: Any, k: Any) -> Tensor:
        group = b * heads + h if per_head else b * by_sample
        seen = matrix[group, query_tile[q], key_tile[k]]
        if query_rank is None or key_rank is None:
            return seen
        row = b * int(key_rank.shape[0] > 1)
        query_row = b * int(query_rank.shape[0] > 1)
        return seen & (key_rank[row, k] <= query_rank[query_row, q])

    return allowed
