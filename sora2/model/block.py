"""One transformer block: joint attention over all modalities, then each modality's own feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sora2.kernels import (
    attention,
    gated_add,
    gated_add_norm_modulate,
    merge_heads,
    norm_modulate,
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
        out = self.attend(q, k, v, packing)  # (B, H, N, Dh)
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

    def forward(self, x: Tensor, modulation: list[Tensor], packing: Packing) -> Tensor:
        """x (T, D) modality-major; modulation per segment (U, 6, D), see `Modulation` -> (T, D)."""
        runs = packing.runs
        shift, gain, gate, shift2, gain2, gate2 = self._tables(modulation, packing, x.dtype)
        h = norm_modulate(x, runs, shift, gain, self.eps)  # (T, D)
        h = self.attention(h, packing)  # (T, D)
        x, h = gated_add_norm_modulate(x, h, runs, gate, shift2, gain2, self.eps)  # (T, D) each
        return gated_add(x, self._feed_forward(h, packing), runs, gate2)  # (T, D)

    def _tables(
        self, modulation: list[Tensor], packing: Packing, dtype: torch.dtype
    ) -> zip[tuple[Tensor, ...]]:
        """The six parameters of this block, each a tuple over segments of (U, D)."""
        found = []
        for segment, base in zip(packing.segments, modulation, strict=True):
            table = self.table["all" if "all" in self.table else segment.group]
            found.append((base + table).to(dtype).unbind(1))  # 6 x (U, D)
        return zip(*found, strict=True)

    def _feed_forward(self, h: Tensor, packing: Packing) -> Tensor:
        if "all" in self.ffn:
            return self.ffn["all"](h)
        parts = zip(packing.split(h), packing.segments, strict=True)
        return torch.cat([self.ffn[s.group](part) for part, s in parts])  # (T, D)
