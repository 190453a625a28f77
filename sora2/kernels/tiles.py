"""A sequence cut into tiles: contiguous runs of tokens that attention patterns speak of as one.

Video tokens are kept in tile order inside the transformer: all tokens of the first (t, y, x) box, then those of
the next, so that a box is a contiguous run. Every operation but attention is token-wise and the rotary positions
are a table, so this order costs nothing between the projection in and the projection out.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.errors import UserError

#: What a tile may hold; `Tiles.kind` indexes this.
KINDS = ("text", "reference_video", "reference_audio", "video", "audio")


class PatternError(UserError):
    """A pattern that cannot be built, or that does not fit the sequence it is used on."""


@dataclass(frozen=True)
class Tiles:
    """Tile i holds the tokens start[i] .. start[i + 1] - 1, between 1 and `size` of them. No tile is empty, and none
    holds tokens of two samples or of two kinds."""

    start: Tensor  # (n + 1,) int32, rising from 0 to the number of tokens
    size: int  # tokens of the largest tile: the block that a kernel allots
    kind: Tensor  # (n,) int32, index into KINDS; for pictures and rules, no kernel reads it
    sample: Tensor  # (n,) int32, which packed sample the tile belongs to; likewise

    @classmethod
    def of_lengths(cls, lengths: Sequence[int] | Tensor, kind: Sequence[int] | Tensor | None = None) -> Tiles:
        """Tiles of these many tokens each, in order, of one sample; of kind "video" where none is given."""
        length = torch.as_tensor(lengths, dtype=torch.int64)
        if length.numel() == 0 or int(length.min()) < 1:
            raise PatternError(f"tiles must hold at least one token each; got lengths {length.tolist()}")
        start = torch.zeros(len(length) + 1, dtype=torch.int64)
        start[1:] = length.cumsum(0)
        kinds = torch.full((len(length),), KINDS.index("video")) if kind is None else torch.as_tensor(kind)
        return cls(start.int(), int(length.max()), kinds.int(), torch.zeros(len(length), dtype=torch.int32))

    @classmethod
    def regular(cls, tokens: int, size: int) -> Tiles:
        """`tokens` in tiles of `size`; the last one holds the rest."""
        return cls.of_lengths(split_evenly(tokens, size))

    @property
    def count(self) -> int:
        return self.start.shape[0] - 1

    @functools.cached_property
    def tokens(self) -> int:
        return int(self.start[-1])  # read once: from a GPU it waits for all work in flight

    @property
    def length(self) -> Tensor:
        """(n,) int64 tokens of each tile."""
        return self.start.diff().long()

    def of_token(self) -> Tensor:
        """(N,) int64: the tile of every token."""
        return torch.arange(self.count, device=self.start.device).repeat_interleave(self.length)

    def to(self, device: torch.device | str) -> Tiles:
        return Tiles(self.start.to(device), self.size, self.kind.to(device), self.sample.to(device))


def split_evenly(tokens: int, size: int) -> list[int]:
    """Lengths of consecutive tiles of `size` that hold `tokens`; the last may be shorter."""
    if size < 1:
        raise PatternError(f"a tile of {size} tokens is too small: use at least 1")
    return [min(size, tokens - i) for i in range(0, tokens, size)]


def cut_axis(cells: int, step: int, edges: Sequence[int] = ()) -> list[int]:
    """Lengths of the pieces of an axis of `cells` cells: cut every `step`, starting anew at each of `edges`."""
    inner = sorted({e for e in edges if 0 < e < cells})
    bounds = [0, *inner, cells]
    return [n for a, b in itertools.pairwise(bounds) for n in split_evenly(b - a, step)]


@dataclass(frozen=True)
class Boxes:
    """A (t, y, x) grid of tokens cut into boxes, and the order that makes each box a contiguous run."""

    lengths: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # of the pieces of each axis

    @classmethod
    def of(
        cls, grid: tuple[int, int, int], tile: tuple[int, int, int], time_edges: Sequence[int] = ()
    ) -> Boxes:
        """Boxes of `tile` tokens; smaller ones at the far edges and before each frame of `time_edges`."""
        t, y, x = (
            tuple(cut_axis(cells, step, time_edges if axis == 0 else ()))
            for axis, (cells, step) in enumerate(zip(grid, tile, strict=True))
        )
        return cls((t, y, x))

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, y, x) boxes."""
        t, y, x = (len(n) for n in self.lengths)
        return t, y, x

    def sizes(self) -> Tensor:
        """(boxes,) int64 tokens of each box, x fastest."""
        t, y, x = (torch.tensor(n) for n in self.lengths)
        return (t[:, None, None] * y[:, None] * x).flatten()

    def coordinates(self) -> Tensor:
        """(boxes, 3) int64 (t, y, x) index of each box."""
        return torch.cartesian_prod(*(torch.arange(n) for n in self.grid)).view(-1, 3)

    def order(self) -> Tensor:
        """(tokens,) int64: the raster index (x fastest) of each token in tile order.

        `x[..., order, :]` brings raster tokens into tile order; `order.argsort()` brings them back.
        """
        owner = [torch.arange(len(n)).repeat_interleave(torch.tensor(n)) for n in self.lengths]
        _, ny, nx = self.grid
        box = (owner[0][:, None, None] * ny + owner[1][:, None]) * nx + owner[2]  # (t, y, x)
        return box.flatten().argsort(stable=True)
