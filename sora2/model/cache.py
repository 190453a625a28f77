"""Keys and values of what a causal transformer has seen: one buffer, allocated once, written in place.

A chunk of a film is written behind what is there, attended to, and overwritten at the next sampling step; when it is
finished, `commit` keeps it. Attention reads a view of the buffer: nothing is ever concatenated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sora2.kernels import Rule, TilePattern
from sora2.model.config import ModelError, TransformerConfig


class KVCache:
    """The cache of one batch. `length` tokens are kept; the tokens of the running forward lie behind them."""

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if config.attention.chunk_seconds is None:
            raise ModelError(
                "a key-value cache needs a causal model: this one has model.attention.chunk_seconds=null"
            )
        self.config = config
        shape = (config.depth, 2, batch, config.heads, capacity, config.head_width)
        self.buffer = torch.zeros(shape, device=device, dtype=dtype)
        self.mask = torch.ones(batch, capacity, dtype=torch.bool, device=device)  # (B, capacity)
        self.length = 0
        self.ahead = 0  # tokens of the running forward
        self.patterns: dict[Rule, TilePattern | None] = dict.fromkeys(config.attention.layers)

    @property
    def capacity(self) -> int:
        return self.mask.shape[1]

    def view(self, mask: Tensor) -> tuple[dict[Rule, TilePattern | None], Tensor | None]:
        """Make room for tokens with `mask` (B, n) behind those kept: the patterns and the key mask (B, length + n)."""
        self.ahead = mask.shape[1]
        end = self.length + self.ahead
        if mask.shape[0] != self.mask.shape[0] or end > self.capacity:
            raise ModelError(
                f"the cache holds {self.length} of {self.capacity} tokens of {self.mask.shape[0]} samples: "
                f"{self.ahead} tokens of {mask.shape[0]} samples do not fit"
            )
        self.mask[:, self.length : end] = mask
        seen = self.mask[:, :end]
        if bool(seen.all()):
            return self.patterns, None
        padded = {r: None if p is None else p.with_padding(seen) for r, p in self.patterns.items()}
        return padded, seen

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, n, Dh) of the running tokens -> (B, H, length + n, Dh) views of the buffer."""
        end = self.length + self.ahead
        for at, x in enumerate((k, v)):
            self.buffer[layer, at, :, :, self.length : end] = x
        keys, values = self.buffer[layer, :, :, :, :end].to(k.dtype)
        return keys, values

    def commit(self) -> None:
        """Keep the tokens of the last forward."""
        self.length, self.ahead = self.length + self.ahead, 0

    def drop(self, first: int, last: int) -> None:
        """Forget tokens first .. last - 1; later ones move up. One copy per chunk, not per step."""
        kept = self.length - last
        for x in (self.buffer, self.mask.unsqueeze(-1)):
            x[..., first : first + kept, :] = x[..., last : self.length, :].clone()
        self.length -= last - first
