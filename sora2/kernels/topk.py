"""The video tiles that match a query tile best, chosen from the tokens themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from sora2.kernels.pattern import TilePattern
from sora2.kernels.rules import VIDEO
from sora2.kernels.tiles import PatternError, Tiles


def tile_means(x: Tensor, tiles: Tiles) -> Tensor:
    """(B, H, N, D) -> (B, H, n, D): the mean token of each tile, at least float32."""
    x = x if x.dtype == torch.float64 else x.float()
    sums = x.new_zeros(*x.shape[:2], tiles.count, x.shape[3]).index_add(2, tiles.of_token(), x)
    return sums / tiles.length[:, None].to(x.dtype)


@torch.no_grad()
def select_tiles(q: Tensor, k: Tensor, pattern: TilePattern, top_k: int) -> TilePattern:
    """Of the video key tiles that `pattern` lists for a query tile keep the `top_k` whose mean key has the largest
    product with the mean query, per sample and head; all other kinds of keys stay.

    The choice has no gradient: queries and keys learn through the tiles that were chosen. Source: the coarse stage
    of VSA (Zhang et al. 2025, arXiv:2505.13389), without its coarse output.
    """
    if pattern.groups != 1:
        raise PatternError("top_k chooses from one pattern for all samples and heads")
    batch, heads = q.shape[:2]
    pattern.check_groups(batch, heads)
    scores = tile_means(q, pattern.queries) @ tile_means(k, pattern.keys).transpose(2, 3)  # (B, H, n, m)
    listed = pattern.matrix()  # (1, n, m)
    video = (pattern.keys.kind == VIDEO).to(q.device)
    scores = scores.masked_fill(~(listed & video), float("-inf"))
    best = scores.topk(min(top_k, scores.shape[-1]), dim=-1).indices
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)
    kept = listed & (chosen | ~video)  # (B, H, n, m)
    return TilePattern.of_matrix(
        pattern.queries, pattern.keys, kept.flatten(0, 1), pattern.query_rank, pattern.key_rank
    )
