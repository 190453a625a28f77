"""The tile lists of a pattern in the form that the kernels read, made once per batch and used by every layer."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sora2.kernels.pattern import PADDING, Lists, TilePattern, dense_pattern
from sora2.kernels.tiles import Tiles

#: Tokens of a tile where everything sees everything.
DENSE_TILE = 128
#: The attribute of a pattern under which its prepared form is kept.
_KEPT = "_kernel_pattern"
#: Lists longer than this many times the mean start before all others, in every head.
HEAVY = 2
#: Lengths are compared in steps of the mean divided by this: neighbours with almost equal lists stay neighbours.
SIZE_CLASSES = 4


@dataclass(frozen=True)
class KernelLists:
    """One direction of the pairs: for each row tile the token ranges of its column tiles.

    Row r = group * rows + tile owns pairs pointer[r] .. pointer[r + 1] - 1; the first `full[r]` need no mask: both
    tiles have all their tokens and everything is allowed.
    """

    starts: Tensor  # (rows + 1,) int32 first token of each row tile
    heavy: Tensor  # (1,) int32: how many tiles of a group, first in its order, have lists far longer than the mean
    order: Tensor  # (groups * rows,) int32 tiles by falling length of list; similar lengths stay in order
    pointer: Tensor  # (groups * rows + 1,) int32
    full: Tensor  # (groups * rows,) int32
    begin: Tensor  # (pairs,) int32 first token of the column tile
    count: Tensor  # (pairs,) int32 its tokens

    def tensors(self) -> list[Tensor]:
        return [self.starts, self.heavy, self.order, self.pointer, self.full, self.begin, self.count]


@dataclass(frozen=True)
class KernelPattern:
    """A `TilePattern` on its device, ready to launch."""

    by_query: KernelLists
    by_key: KernelLists
    query_size: int  # tokens of the largest tile
    key_size: int
    groups: int
    queries: int  # tokens
    keys: int
    query_rank: Tensor | None  # (1 or B, N) int32
    key_rank: Tensor | None  # (1 or B, M) int32

    @classmethod
    def of(cls, pattern: TilePattern | KernelPattern, device: torch.device) -> KernelPattern:
        """Made at the first use of a pattern on a device and kept with it; nothing of it is N x N."""
        if isinstance(pattern, KernelPattern):
            return pattern
        kept = getattr(pattern, _KEPT, None)
        if kept is None or kept.by_query.starts.device != device:
            kept = cls._made(pattern, device)
            object.__setattr__(pattern, _KEPT, kept)  # a cache; the pattern itself is frozen
        return kept

    @classmethod
    def _made(cls, pattern: TilePattern, device: torch.device) -> KernelPattern:
        p = pattern.to(device)
        return cls(
            _lists(p.by_query, p.queries, p.keys, p.groups),
            _lists(p.by_key, p.keys, p.queries, p.groups),
            p.queries.size,
            p.keys.size,
            p.groups,
            pattern.queries.tokens,
            pattern.keys.tokens,
            None if p.query_rank is None else p.query_rank.contiguous(),
            None if p.key_rank is None else p.key_rank.contiguous(),
        )

    def tensors(self) -> list[Tensor]:
        """All lists as one flat argument of the operators."""
        return self.by_query.tensors() + self.by_key.tensors()


def dense(queries: int, keys: int, key_mask: Tensor | None, device: torch.device) -> KernelPattern:
    """Everything sees everything, but for keys where `key_mask` (B, M), on the device, is False. No waiting."""
    if key_mask is None:
        return _dense(queries, keys, device)
    rank = (~key_mask).int().mul_(PADDING)  # (B, M)
    return replace(_masked(queries, keys, device), key_rank=rank)


@functools.lru_cache(maxsize=64)
def _dense(queries: int, keys: int, device: torch.device) -> KernelPattern:
    return KernelPattern.of(
        dense_pattern(Tiles.regular(queries, DENSE_TILE), Tiles.regular(keys, DENSE_TILE)), device
    )


@functools.lru_cache(maxsize=64)
def _masked(queries: int, keys: int, device: torch.device) -> KernelPattern:
    """The same with ranks to compare in every pair of tiles."""
    p = _dense(queries, keys, device)
    by_query, by_key = (replace(x, full=torch.zeros_like(x.full)) for x in (p.by_query, p.by_key))
    rank = torch.zeros(1, queries, dtype=torch.int32, device=device)
    return replace(p, by_query=by_query, by_key=by_key, query_rank=rank)


def _lists(lists: Lists, rows: Tiles, columns: Tiles, groups: int) -> KernelLists:
    length = lists.start.diff()  # (groups * rows,)
    column = lists.entry.long()
    count = columns.length[column]  # (pairs,)
    # FULL promises a whole key tile; the kernels also want a whole query tile before they leave masks away.
    line = torch.arange(len(length), device=column.device).repeat_interleave(
        length.long(), output_size=len(column)
    )
    rank = torch.arange(len(column), device=column.device) - lists.start[line]
    short = (count < columns.size) | (rows.length.repeat(groups)[line] < rows.size)
    masked = (rank >= lists.full[line]) | short
    order = (line * 2 + masked).argsort(stable=True)
    full = torch.zeros_like(length, dtype=torch.int64).index_add_(0, line, (~masked).long())
    by_group = length.view(groups, -1)  # (groups, rows)
    mean = max(1, len(column) // len(length))
    sizes = (by_group * SIZE_CLASSES).div(mean, rounding_mode="floor")
    order_of_rows = sizes.argsort(dim=1, descending=True, stable=True)
    heavy = (sizes > HEAVY * SIZE_CLASSES).sum(1).amax().view(1)
    return KernelLists(
        starts=rows.start.contiguous(),
        heavy=heavy.int(),
        order=order_of_rows.flatten().int(),
        pointer=lists.start.contiguous(),
        full=full.int(),
        begin=columns.start[column][order].contiguous(),
        count=count[order].int(),
    )
