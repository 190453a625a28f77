"""Which query may attend to which key, said without an N x N mask.

A layout describes the pattern; the key mask (padding) is separate and combines with any layout. `None` is
full attention. Every layout can state itself twice: `allowed` is the dense definition, for the reference and
for tests; `parts` is the cheap execution plan, a list of dense rectangles that together are exactly the
pattern. Backends run parts, so a new pattern (local-in-time tiles) needs a new layout and no new backend.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: Chunk number of tokens that belong to no moment: text and references.
GLOBAL_CHUNK = -1


@dataclass(frozen=True)
class Part:
    """A dense rectangle of the pattern: these queries attend to all of these keys and to no other."""

    queries: Tensor  # (n,) int64 indices
    keys: Tensor  # (m,) int64 indices; m = 0 gives zero output


class Layout:
    """Base of the attention patterns."""

    name = "layout"

    def allowed(self) -> Tensor:
        """(N, M) or (B, N, M) bool, True where the query may attend to the key."""
        raise NotImplementedError

    def parts(self) -> list[Part] | None:
        """Dense rectangles in which every query occurs exactly once; None when samples differ in pattern."""
        raise NotImplementedError


@dataclass(frozen=True)
class BlockCausal(Layout):
    """Causal in time by chunk: a token sees its own chunk, all earlier ones, and the global tokens.

    Global tokens (`GLOBAL_CHUNK`) are seen by all and see only each other: were they to look at the film,
    they would carry the future into the past. The rule is `key_chunk <= query_chunk`. With keys of a cache,
    `key_chunk` is longer than `query_chunk`.
    """

    query_chunk: Tensor  # (N,), or (B, N) where samples differ, int64
    key_chunk: Tensor  # (M,), or (B, M)
    name: str = field(default="block_causal", init=False)

    def allowed(self) -> Tensor:
        return self.key_chunk.unsqueeze(-2) <= self.query_chunk.unsqueeze(-1)

    def parts(self) -> list[Part] | None:
        return self._parts

    @functools.cached_property
    def _parts(self) -> list[Part] | None:
        if self.query_chunk.ndim != 1 or self.key_chunk.ndim != 1:
            return None
        return [
            Part((self.query_chunk == chunk).nonzero()[:, 0], (self.key_chunk <= chunk).nonzero()[:, 0])
            for chunk in self.query_chunk.unique()
        ]


def block_causal(seconds: Tensor, is_global: Tensor, chunk_seconds: float) -> BlockCausal:
    """Layout of one packed sequence from its clock.

    `seconds` is (B, N), `is_global` (N,) bool marks text and references. Chunk k covers `[k * chunk_seconds,
    (k + 1) * chunk_seconds)`; a token at its centre's time belongs to the chunk it falls in.
    """
    chunk = torch.floor(seconds.double() / chunk_seconds).long().clamp_min(GLOBAL_CHUNK + 1)  # (B, N)
    chunk = chunk.masked_fill(is_global, GLOBAL_CHUNK)
    if bool((chunk == chunk[:1]).all()):
        chunk = chunk[0]
    return BlockCausal(chunk, chunk)
