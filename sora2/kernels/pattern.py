"""Which query may attend to which key: lists of key tiles per query tile, and one comparison inside a tile.

This is the only form in which kernels meet a pattern. The definition, for a query token q in tile i and a key token
k in tile j of list group g:

    allowed(q, k)  =  j is listed for i in group g  and  key_rank[k] <= query_rank[q]

Ranks are the number of a token's chunk in time (causality), and `PADDING` for keys that nobody may see. Without
ranks the second half is always true. A pair of tiles is FULL when the comparison holds for all its tokens and the
key tile has exactly `keys.size` tokens, so that a kernel needs no mask at all; every other listed pair is PARTIAL
and takes the bound of the key tile and the comparison. Pairs in which nothing is allowed are not listed.

Lists cost 8 bytes per pair of tiles (both directions), never anything per pair of tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sora2.kernels.tiles import PatternError, Tiles

#: Rank of a key that no query may see. Query ranks are smaller.
PADDING = 2**31 - 1


@dataclass(frozen=True)
class Lists:
    """For each row tile the column tiles it is paired with: FULL ones first, then PARTIAL, both rising.

    Row r = group * rows + tile owns entries start[r] .. start[r + 1] - 1 of `entry`; the first `full[r]` of them
    are FULL. A row may own none.
    """

    start: Tensor  # (groups * rows + 1,) int32
    full: Tensor  # (groups * rows,) int32
    entry: Tensor  # (pairs,) int32 column tiles

    def to(self, device: torch.device | str) -> Lists:
        return Lists(self.start.to(device), self.full.to(device), self.entry.to(device))


@dataclass(frozen=True, eq=False)
class TilePattern:
    """A pattern over q (B, H, N, D) and k, v (B, H, M, D), N = queries.tokens, M = keys.tokens.

    The list group of sample b and head h is 0 when groups == 1 (one pattern for all), b when groups == B, and
    b * H + h when groups == B * H. Ranks have one row for all samples, or B rows.
    """

    queries: Tiles
    keys: Tiles
    groups: int
    by_query: Lists  # key tiles of each query tile: forward, dQ
    by_key: Lists  # query tiles of each key tile: dK, dV. The same pairs, transposed
    query_rank: Tensor | None  # (1 or B, N) int32, below PADDING; both are None when no comparison is needed
    key_rank: Tensor | None  # (1 or B, M) int32

    @classmethod
    def of_matrix(
        cls,
        queries: Tiles,
        keys: Tiles,
        kept: Tensor,
        query_rank: Tensor | None = None,
        key_rank: Tensor | None = None,
    ) -> TilePattern:
        """From a matrix over tiles.

        Args:
            kept: (groups, query tiles, key tiles) bool, the pairs of tiles that the rules keep.
            query_rank, key_rank: (1 or B, N), (1 or B, M), or both None.
        """
        if kept.ndim != 3 or kept.shape[1:] != (queries.count, keys.count):
            raise PatternError(
                f"kept is {tuple(kept.shape)}; expected (groups, {queries.count}, {keys.count}) for these tiles"
            )
        if (query_rank is None) != (key_rank is None):
            raise PatternError("query_rank and key_rank come together or not at all")
        full = (keys.length == keys.size).expand_as(kept)  # (G, n, m)
        if query_rank is not None and key_rank is not None:
            query_rank, key_rank = query_rank.int(), key_rank.int()
            seen, open_ = _compare(queries, keys, query_rank, key_rank, kept.shape[0])
            kept, full = kept & seen, full & open_
            if bool((open_ | ~kept).all()):
                query_rank = key_rank = None
        full = full & kept
        return cls(
            queries,
            keys,
            kept.shape[0],
            _lists(kept, full),
            _lists(kept.transpose(1, 2), full.transpose(1, 2)),
            query_rank,
            key_rank,
        )

    def matrix(self) -> Tensor:
        """(groups, query tiles, key tiles) bool: the listed pairs."""
        n, m = self.queries.count, self.keys.count
        kept = torch.zeros(self.groups * n, m, dtype=torch.bool, device=self.by_query.start.device)
        rows = torch.arange(self.groups * n, device=kept.device).repeat_interleave(
            self.by_query.start.diff().long()
        )
        kept[rows, self.by_query.entry.long()] = True
        return kept.view(self.groups, n, m)

    def allowed(self, batch: int = 1, heads: int = 1) -> Tensor:
        """The definition over tokens, (1 or B, 1 or H, N, M) bool. N * M bytes: for the reference and for tests."""
        self.check_groups(batch, heads)
        tiles = self.matrix()
        tokens = tiles[:, self.queries.of_token()][:, :, self.keys.of_token()]  # (groups, N, M)
        tokens = tokens.view(-1, heads if self.groups == batch * heads else 1, *tokens.shape[1:])
        if self.query_rank is None or self.key_rank is None:
            return tokens
        return tokens & (self.key_rank[:, None, :] <= self.query_rank[:, :, None]).unsqueeze(1)

    def check_groups(self, batch: int, heads: int) -> None:
        """Raises PatternError unless the lists and ranks serve this many samples and heads."""
        if self.groups not in (1, batch, batch * heads):
            raise PatternError(
                f"the pattern has {self.groups} groups of lists; a batch of {batch} with {heads} heads takes "
                f"1, {batch} or {batch * heads}"
            )
        if self.key_rank is not None and self.key_rank.shape[0] not in (1, batch):
            raise PatternError(
                f"the pattern's ranks are of {self.key_rank.shape[0]} samples; the batch has {batch}"
            )

    def with_padding(self, key_mask: Tensor) -> TilePattern:
        """The same pattern in which keys where `key_mask` (B, M) is False are seen by nobody."""
        if key_mask.shape[-1] != self.keys.tokens:
            raise PatternError(
                f"key_mask is {tuple(key_mask.shape)}; the pattern has {self.keys.tokens} keys"
            )
        device = key_mask.device
        query = torch.zeros(1, self.queries.tokens, dtype=torch.int32, device=device)
        key = torch.zeros(1, self.keys.tokens, dtype=torch.int32, device=device)
        if self.query_rank is not None and self.key_rank is not None:
            query, key = self.query_rank, self.key_rank
        key = key.expand(max(key.shape[0], key_mask.shape[0]), -1).masked_fill(~key_mask, PADDING)
        return TilePattern.of_matrix(self.queries, self.keys, self.matrix(), query, key)

    @functools.cached_property
    def pairs(self) -> int:
        """Pairs of tokens in listed pairs of tiles, over all groups: what a backend without skipping computes."""
        return int((self.matrix() * self.queries.length[:, None] * self.keys.length).sum())

    @property
    def density(self) -> float:
        """Share of all pairs of tokens that lie in listed pairs of tiles."""
        return self.pairs / (self.groups * self.queries.tokens * self.keys.tokens)

    @property
    def list_bytes(self) -> int:
        lists = (self.by_query, self.by_key)
        return sum(t.numel() * t.element_size() for x in lists for t in (x.start, x.full, x.entry))

    def to(self, device: torch.device | str) -> TilePattern:
        return replace(
            self,
            queries=self.queries.to(device),
            keys=self.keys.to(device),
            by_query=self.by_query.to(device),
            by_key=self.by_key.to(device),
            query_rank=None if self.query_rank is None else self.query_rank.to(device),
            key_rank=None if self.key_rank is None else self.key_rank.to(device),
        )


def dense_pattern(queries: Tiles, keys: Tiles | None = None) -> TilePattern:
    """Everything sees everything."""
    keys = queries if keys is None else keys
    return TilePattern.of_matrix(queries, keys, torch.ones(1, queries.count, keys.count, dtype=torch.bool))


def concatenate(patterns: Sequence[TilePattern]) -> TilePattern:
    """Several samples packed into one sequence, one behind the other: nothing is seen across samples.

    Each pattern must have one group of lists and at most one row of ranks.
    """
    if any(p.groups != 1 or (p.key_rank is not None and p.key_rank.shape[0] != 1) for p in patterns):
        raise PatternError("only patterns of a single sample can be packed behind each other")
    kept = torch.block_diag(*(p.matrix()[0].int() for p in patterns)).bool().unsqueeze(0)
    query_rank = key_rank = None
    if any(p.key_rank is not None for p in patterns):
        query_rank = torch.cat([_rank(p.query_rank, p.queries) for p in patterns], dim=1)
        key_rank = torch.cat([_rank(p.key_rank, p.keys) for p in patterns], dim=1)
    queries, keys = _join([p.queries for p in patterns]), _join([p.keys for p in patterns])
    return TilePattern.of_matrix(queries, keys, kept, query_rank, key_rank)


def _rank(rank: Tensor | None, tiles: Tiles) -> Tensor:
    return torch.zeros(1, tiles.tokens, dtype=torch.int32) if rank is None else rank


def _join(parts: Sequence[Tiles]) -> Tiles:
    joined = Tiles.of_lengths(torch.cat([t.length for t in parts]), torch.cat([t.kind for t in parts]))
    sample = torch.cat([t.sample * 0 + i for i, t in enumerate(parts)])
    return replace(joined, sample=sample)


def _compare(
    queries: Tiles, keys: Tiles, query_rank: Tensor, key_rank: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """(groups, n, m) bool each: the comparison holds for some pair of tokens, and for all."""
    q_low, q_high = _extremes(query_rank, queries)  # (1 or B, n)
    k_low, k_high = _extremes(key_rank, keys)  # (1 or B, m)
    seen = k_low[:, None] <= q_high[:, :, None]  # (1 or B, n, m)
    open_ = k_high[:, None] <= q_low[:, :, None]
    if groups == 1:
        return seen.any(0, keepdim=True), open_.all(0, keepdim=True)
    if groups % seen.shape[0]:
        raise PatternError(f"{groups} groups of lists do not go with ranks of {seen.shape[0]} samples")
    repeats = groups // seen.shape[0]
    return seen.repeat_interleave(repeats, 0), open_.repeat_interleave(repeats, 0)


def _extremes(rank: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """Smallest and largest rank of each tile, (rows, n) each."""
    owner = tiles.of_token().expand_as(rank)
    empty = rank.new_zeros(rank.shape[0], tiles.count)
    low, high = (empty.scatter_reduce(1, owner, rank, how, include_self=False) for how in ("amin", "amax"))
    return low, high


def _lists(kept: Tensor, full: Tensor) -> Lists:
    groups, n, m = kept.shape
    kept, full = kept.reshape(groups * n, m), full.reshape(groups * n, m)
    row, column = kept.nonzero(as_tuple=True)  # by row, columns rising
    order = (row * 2 + (~full[row, column])).argsort(stable=True)
    start = torch.zeros(groups * n + 1, dtype=torch.int64, device=kept.device)
    start[1:] = kept.sum(1).cumsum(0)
    return Lists(start.int(), full.sum(1).int(), column[order].int())
