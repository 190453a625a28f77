"""From the modalities of a packed sequence and a rule in words to a `TilePattern`.

A sequence is [text | references | video | audio]. Text and references are global: everybody sees them. What else a
token sees is said by a `Rule`, in units of tiles and seconds, so that a rule keeps its meaning at another
resolution, frame rate or length; and, over all rules of a model, by the length of its causal chunks.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.kernels.pattern import TilePattern
from sora2.kernels.tiles import KINDS, Boxes, PatternError, Tiles, cut_axis

#: Rank of text and references in a causal sequence: seen by all, seeing only each other. Were they to look at the
#: film, they would carry the future into the past.
TIMELESS = -1
VIDEO, AUDIO = KINDS.index("video"), KINDS.index("audio")


@dataclass(frozen=True)
class Rule:
    """What one layer's tokens see besides text, references and their own modality. The default is everything.

    `window` counts tiles, the token's own included. In space, and in time without causality, the window is centred
    and moved inwards at the borders, so that every token sees equally many tiles; under causality it looks back in
    time. Distances in seconds are between the nearest token centres of two tiles.
    """

    window: tuple[int, int, int] | None = None  # (t, y, x) video tiles that a video token sees; None = all
    video_hears_seconds: float | None = None  # video sees the audio within +- this; None = all of it
    audio_sees_seconds: float | None = None  # audio sees the video within +- this; None = all of it
    top_k: int | None = (
        None  # of those video tiles, the k that match best, chosen anew for every input and head
    )

    def __post_init__(self) -> None:
        if self.window is not None:
            object.__setattr__(self, "window", tuple(self.window))
            if len(self.window) != 3 or min(self.window) < 1 or any(n % 2 == 0 for n in self.window):
                raise PatternError(
                    f"attention window={list(self.window)} must be three odd numbers of tiles (t, y, x), at least 1"
                )
        for name in ("video_hears_seconds", "audio_sees_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds >= 0:
                raise PatternError(f"attention {name}={seconds} must be at least 0, or null for all")
        if self.top_k is not None and self.top_k < 1:
            raise PatternError(f"attention top_k={self.top_k} must be at least 1, or null for all")

    @property
    def is_dense(self) -> bool:
        return self == Rule()


@dataclass(frozen=True)
class Part:
    """One modality of the sequence, tokens in raster order."""

    kind: str  # one of KINDS
    seconds: Tensor  # (1 or B, n) of each token's centre; text and references: ignored
    grid: tuple[int, int, int] | None = None  # (t, y, x) of video tokens; None = tiles along the raster

    @property
    def tokens(self) -> int:
        return self.seconds.shape[1]

    @property
    def timeless(self) -> bool:
        return self.kind not in ("video", "audio")


@dataclass(frozen=True)
class Tiling:
    """A sequence in tile order, and what rules need to know of its tiles."""

    tiles: Tiles
    order: Tensor  # (N,) int64: the index in the raster sequence of each token in tile order
    rank: Tensor | None  # (1 or B, N) int32 chunk of each token; None without causality
    box: Tensor  # (n, 3) int64 (t, y, x) of a video tile; -1 elsewhere, and where the video has no grid
    box_grid: tuple[int, int, int] | None
    first: Tensor  # (n,) seconds of the earliest token centre of each tile
    last: Tensor  # (n,)

    @classmethod
    def of(
        cls,
        parts: list[Part],
        tile: tuple[int, int, int],
        flat_tile: int,
        chunk_seconds: float | None = None,
    ) -> Tiling:
        """Tiles of `tile` = (t, y, x) video tokens, and of `flat_tile` tokens of everything else.

        With causality no tile reaches over the end of a chunk on the first sample's clock.
        """
        lengths, kinds, orders, boxes, ranks, seconds = [], [], [], [], [], []
        grid, at = None, 0
        samples = max(p.seconds.shape[0] for p in parts)
        for part in parts:
            if part.grid is not None and part.tokens != part.grid[0] * part.grid[1] * part.grid[2]:
                raise PatternError(f"{part.tokens} tokens of {part.kind} do not fill the grid {part.grid}")
            chunk = chunk_of(part, chunk_seconds)  # (1 or B, n)
            if part.grid is not None:
                frame = chunk[0].view(part.grid[0], -1)[:, 0]
                cut = Boxes.of(part.grid, tile, changes(frame))
                sizes, order, box = cut.sizes().tolist(), cut.order(), cut.coordinates()
                grid = cut.grid
            else:
                sizes = cut_axis(part.tokens, flat_tile, changes(chunk[0]))
                order, box = torch.arange(part.tokens), torch.full((len(sizes), 3), -1)
            lengths += sizes
            kinds += [KINDS.index(part.kind)] * len(sizes)
            orders.append(order + at)
            boxes.append(box)
            ranks.append(chunk.expand(samples, -1)[:, order])
            seconds.append(part.seconds[0, order])
            at += part.tokens
        tiles = Tiles.of_lengths(lengths, kinds)
        clock, owner = torch.cat(seconds).double(), tiles.of_token()
        first, last = (
            torch.zeros(tiles.count, dtype=torch.float64).scatter_reduce(
                0, owner, clock, how, include_self=False
            )
            for how in ("amin", "amax")
        )
        rank = None if chunk_seconds is None else torch.cat(ranks, dim=1).int()
        if rank is not None and bool((rank == rank[:1]).all()):
            rank = rank[:1]
        return cls(tiles, torch.cat(orders), rank, torch.cat(boxes), grid, first, last)

    def pattern(self, rule: Rule) -> TilePattern:
        """The pattern of a rule; `rule.top_k` is for `select_tiles`, which needs the queries and keys.

        Raises PatternError when the rule has a window and the video no grid.
        """
        every = torch.arange(self.tiles.count)
        kept = self.kept(rule, every, every).unsqueeze(0)
        return TilePattern.of_matrix(self.tiles, self.tiles, kept, self.rank, self.rank)

    def kept(self, rule: Rule, queries: Tensor, keys: Tensor) -> Tensor:
        """(n, m) bool over the query and key tiles of these numbers: what a rule keeps. Causality is in the ranks."""
        kept = torch.ones(len(queries), len(keys), dtype=torch.bool)
        kind = self.tiles.kind
        if rule.window is not None and bool((kind == VIDEO).any()):
            if self.box_grid is None:
                raise PatternError(
                    f"attention window={list(rule.window)} needs the (t, y, x) grid of the video: give the batch its "
                    "video_shape"
                )
            near = torch.ones_like(kept)
            for axis, width in enumerate(rule.window):
                near &= self._near(axis, width, queries, keys)
            kept &= near | ~((kind[queries] == VIDEO)[:, None] & (kind[keys] == VIDEO))
        for seconds, query_kind, key_kind in (
            (rule.video_hears_seconds, VIDEO, AUDIO),
            (rule.audio_sees_seconds, AUDIO, VIDEO),
        ):
            if seconds is not None:
                here, there = queries[:, None], keys
                gap = torch.maximum(self.first[here] - self.last[there], self.first[there] - self.last[here])
                concerned = (kind[queries] == query_kind)[:, None] & (kind[keys] == key_kind)
                kept &= (gap <= seconds) | ~concerned
        return kept

    def _near(self, axis: int, width: int, queries: Tensor, keys: Tensor) -> Tensor:
        assert self.box_grid is not None
        own, other = self.box[queries, axis, None], self.box[keys, axis]
        if axis == 0 and self.rank is not None:
            return other > own - width  # causality ends it
        begin = (own - width // 2).clamp(0, max(0, self.box_grid[axis] - width))  # (n, 1)
        return (other >= begin) & (other < begin + width)


def chunk_of(part: Part, chunk_seconds: float | None) -> Tensor:
    """(1 or B, n) int64: chunk k covers [k, k + 1) * chunk_seconds; a token belongs where its centre falls."""
    if chunk_seconds is None or part.timeless:
        return torch.full((1, part.tokens), TIMELESS)
    return torch.floor(part.seconds.double() / chunk_seconds).long().clamp_min(TIMELESS + 1)


def changes(values: Tensor) -> list[int]:
    """Indices at which a (n,) tensor differs from the entry before."""
    return (values.diff().nonzero()[:, 0] + 1).tolist()


@functools.lru_cache(maxsize=64)
def cached_tiling(
    parts: tuple[tuple[str, int, tuple[int, int, int] | None], ...],
    clock: bytes,
    tile: tuple[int, int, int],
    flat_tile: int,
    chunk_seconds: float | None,
) -> tuple[Tiling, dict[tuple[Rule, torch.device], TilePattern]]:
    """`Tiling.of`, remembered, with an empty dict for the patterns of its rules on the devices that want them.

    `parts` are (kind, tokens, grid), `clock` the bytes of the float32 seconds (rows, N) of all of them.
    """
    total = sum(tokens for _, tokens, _ in parts)
    seconds = torch.frombuffer(bytearray(clock), dtype=torch.float32).view(-1, total)
    split = seconds.split([tokens for _, tokens, _ in parts], dim=1)
    found = [Part(kind, s, grid) for (kind, _, grid), s in zip(parts, split, strict=True)]
    return Tiling.of(found, tile, flat_tile, chunk_seconds), {}
