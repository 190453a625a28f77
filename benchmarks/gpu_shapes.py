"""The attention problems of the GPU benchmark, and how much work each one is."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from sora2.kernels.pattern import TilePattern, concatenate, dense_pattern
from sora2.kernels.rules import Part, Rule, Tiling
from sora2.kernels.tiles import Tiles
from sora2.kernels.triton.blocks import Blocks

#: Latent frames and audio tokens per second.
FRAME_RATE, AUDIO_RATE = 4.0, 100.0


@dataclass(frozen=True)
class Shape:
    """A problem. `samples` are packed behind each other: (t, y, x) of the video, audio tokens, text tokens."""

    name: str
    heads: int
    head: int
    samples: tuple[tuple[tuple[int, int, int], int, int], ...] = ()
    rule: Rule = field(default_factory=Rule)
    chunk_seconds: float | None = None
    tokens: int = 0  # without samples: a plain dense sequence

    def pattern(self, tile: tuple[int, int, int]) -> TilePattern:
        flat = tile[0] * tile[1] * tile[2]
        if not self.samples:
            return dense_pattern(Tiles.regular(self.tokens, flat))
        packed = []
        for grid, audio, text in self.samples:
            frame = (torch.arange(grid[0]) + 0.5) / FRAME_RATE
            parts = [
                Part("text", torch.zeros(1, text)),
                Part("video", frame.repeat_interleave(grid[1] * grid[2]).view(1, -1), grid),
                Part("audio", ((torch.arange(audio) + 0.5) / AUDIO_RATE).view(1, -1)),
            ]
            packed.append(Tiling.of(parts, tile, flat, self.chunk_seconds).pattern(self.rule))
        return packed[0] if len(packed) == 1 else concatenate(packed)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        if not self.samples:
            return [self.tokens]
        return [t * y * x + audio + text for (t, y, x), audio, text in self.samples]


LOCAL = Rule(window=(3, 5, 3), video_hears_seconds=0.5, audio_sees_seconds=0.5)
GLOBAL_AUDIO = Rule(window=(3, 5, 3))
FIVE, SIXTY = (((20, 32, 48), 500, 256),), (((240, 32, 48), 6000, 256),)
MIXED = (
    ((20, 32, 48), 500, 256),
    ((8, 32, 48), 200, 128),
    ((20, 16, 24), 500, 77),
    ((4, 32, 48), 100, 256),
)
#: In the order in which they are measured, should the time run out.
SHAPES = (
    Shape("5 s", 16, 128, FIVE, LOCAL),
    Shape("60 s", 16, 128, SIXTY, LOCAL),
    Shape("5 s, causal chunks of 1 s", 16, 128, FIVE, Rule(), 1.0),
    Shape("pack of 4 lengths", 16, 128, MIXED, Rule()),
    Shape("pack of 4 lengths, window", 16, 128, MIXED, LOCAL),
    Shape("5 s, D = 64", 32, 64, FIVE, LOCAL),
    Shape("5 s, causal chunks of 1 s, window", 16, 128, FIVE, LOCAL, 1.0),
    Shape("5 s, audio global", 16, 128, FIVE, GLOBAL_AUDIO),
    *(Shape(f"dense {n}", 32, 128, tokens=n) for n in (30240, 6144, 13376, 17556)),
)
TINY = (
    Shape("tiny", 1, 16, (((4, 4, 8), 10, 7),), Rule(window=(1, 1, 1), video_hears_seconds=0.1)),
    Shape("tiny pack", 1, 16, (((2, 4, 4), 9, 7), ((1, 4, 4), 5, 3)), Rule(), 0.5),
    Shape("tiny dense", 1, 16, tokens=40),
)


def allowed_pairs(pattern: TilePattern) -> int:
    """Pairs of tokens that the pattern allows, over one group of lists; ranks are compared tile by tile."""
    if pattern.query_rank is None or pattern.key_rank is None:
        return pattern.pairs // pattern.groups
    lists, total = pattern.by_query, 0
    row = torch.arange(len(lists.full)).repeat_interleave(lists.start.diff().long())
    start = (pattern.queries.start, pattern.keys.start)
    compared = torch.arange(len(row)) - lists.start[row] >= lists.full[row]  # the others are allowed in full
    open_ = pattern.queries.length[row] * pattern.keys.length[lists.entry.long()]
    total += int(open_[~compared].sum())
    for i, j in zip(row[compared].tolist(), lists.entry[compared].tolist(), strict=True):
        q = pattern.query_rank[0, start[0][i] : start[0][i + 1]]
        k = pattern.key_rank[0, start[1][j] : start[1][j + 1]]
        total += int(torch.searchsorted(k.sort().values, q, right=True).sum())
    return total


def executed_pairs(pattern: TilePattern, cut: Blocks) -> int:
    """Pairs of tokens that blocks of this size compute, walking the lists of the queries."""
    cut = cut.fit(pattern.queries.size, pattern.keys.size)
    rows = -(-pattern.queries.length // cut.queries) * cut.queries
    column = -(-pattern.keys.size // cut.keys) * cut.keys
    return int((pattern.by_query.start.diff() * rows.repeat(pattern.groups)).sum()) * column // pattern.groups
