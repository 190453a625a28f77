"""One transformer block: joint attention over all modalities, then each modality's own feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sora2.kernels import (
    Levels,
    attention,
    merge_heads,
    select_tiles,
    split_heads,
    squared_relu,
)
from sora2.model.config import GROUPS, TransformerConfig
from sora2.model.layers import Linear
from sora2.model.modulation import BLOCK_PARAMETERS
from sora2.model.packing import Packing


class FeedForward(nn.Module):
    """Two matrices around a squared ReLU, without biases: the modulation's shift is one.

    Squared ReLU (So et al. 2021, arXiv:2109.08668) matches or beats GELU at equal steps and costs a third of
    its time.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(width, hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(squared_relu(self.up(x)))  # (T, D)


class Attention(nn.Module):
    """Joint attention with RMS-normed, rotated queries and keys; one set of weights for all modalities."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.eps, self.layer, self.rule = config.norm_eps, layer, config.attention.rule(layer)
        self.backends = config.attention.backend, config.attention.dense_backend
        self.qkv = Linear(config.width, 3 * config.width, bias=False)
        self.out = Linear(config.width, config.width, bias=False)
        self.qk_norm = nn.Parameter(torch.empty(2, config.head_width))

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """(T, D) -> (T, D)."""
        qkv = self.qkv(x)  # (T, 3 D)
        q, k, v = split_heads(
            qkv, self.qk_norm, packing.cosine, packing.sine, packing.spans, packing.batch, self.eps
        )  # each (B, H, N, Dh)
        if packing.cache is not None:
            k, v = packing.cache.write(self.layer, k, v)  # (B, H, M, Dh): with all that came before
        if packing.share is not None:
            q, k, v = packing.share.to_heads(q, k, v)  # (B, H / P, all N, Dh)
        out = self.attend(q, k, v, packing)  # (B, H, N, Dh)
        if packing.share is not None:
            out = packing.share.to_tokens(out)  # (B, H, N, Dh)
        return self.out(merge_heads(out, packing.spans))  # (T, D)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        """q (B, H, N, Dh), k and v (B, H, M, Dh) -> (B, H, N, Dh), by the rule of this layer."""
        pattern, (sparse, dense) = packing.patterns[self.rule], self.backends
        if pattern is None:
            return attention(q, k, v, key_mask=packing.key_mask, backend=dense)
        if self.rule.top_k is not None:
            pattern = select_tiles(q, k, pattern, self.rule.top_k)
        return attention(q, k, v, pattern, backend=sparse)


class Block(nn.Module):
    """norm -> modulate -> attention -> gate, and the same around the feed-forward."""

    def __init__(self, config: TransformerConfig, layer: int = 0) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attention = Attention(config, layer)
        ffn = {"all": "video"} if config.shared_ffn else {g: g for g in GROUPS}
        self.ffn = nn.ModuleDict(
            {name: FeedForward(config.width, config.ffn_width(g)) for name, g in ffn.items()}
        )
        groups = ("all",) if config.shared_modulation else GROUPS
        self.table = nn.ParameterDict({g: torch.empty(BLOCK_PARAMETERS, config.width) for g in groups})

    def forward(self, x: Tensor, levels: Levels, packing: Packing) -> Tensor:
        """x (T, D) modality-major, levels of its tokens -> (T, D)."""
        tables = [
            self.table["all" if "all" in self.table else s.group] for s in packing.segments
        ]  # (6, D) each
        modulation = levels.layer(tables, 0, BLOCK_PARAMETERS)
        x, h = modulation.norm_modulate(x, 0, self.eps)  # (T, D) each
        h = self.attention(h, packing)  # (T, D)
        x, h = modulation.gated_add_norm_modulate(x, h, 2, self.eps)  # (T, D) each
        return modulation.gated_add(x, self._feed_forward(h, packing), 5)  # (T, D)

    def _feed_forward(self, h: Tensor, packing: Packing) -> Tensor:
        if "all" in self.ffn:
            return self.ffn["all"](h)
        parts = zip(packing.split(h), packing.segments, strict=True)
        return torch.cat([self.ffn[s.group](part) for part, s in parts])  # (T, D)
