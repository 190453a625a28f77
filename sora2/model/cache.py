"""Keys and values of what a causal transformer has seen: one buffer, allocated once, written in place.

A chunk of a film is written behind what is there, attended to, and overwritten at the next sampling step; when it is
finished, `commit` keeps it. Attention reads a view of the buffer: nothing is ever concatenated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sora2.kernels import Rule, TilePattern
from sora2.model.config import ModelError, TransformerConfig
from sora2.model.rope import axis_pairs, frequencies
from sora2.types import Modality


class KVCache:
    """The cache of one batch. `length` tokens are kept; the tokens of the running forward lie behind them."""

    def __init__(
        self, config: TransformerConfig, batch: int, capacity: int, device: torch.device | str = "cpu"
    ) -> None:
        if config.attention.chunk_seconds is None:
            raise ModelError(
                "a key-value cache needs a causal model: this one has model.attention.chunk_seconds=null"
            )
        self.config = config
        #: Per layer (2, B, H, capacity, Dh), keys and values; of the device and dtype of the layer's first keys.
        self.buffers: dict[int, Tensor] = {}
        self.mask = torch.ones(batch, capacity, dtype=torch.bool, device=device)  # (B, capacity)
        self.length = 0
        self.ahead = 0  # tokens of the running forward
        self.patterns: dict[Rule, TilePattern | None] = dict.fromkeys(config.attention.layers)
        #: On the clock of the running tokens, for what reads it beside attention.
        self.text: Modality | None = None

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
        if layer not in self.buffers:
            batch, heads, _, width = k.shape
            self.buffers[layer] = k.new_zeros(2, batch, heads, self.capacity, width)
        buffer = self.buffers[layer]
        buffer[0, :, :, self.length : end] = k
        buffer[1, :, :, self.length : end] = v
        return buffer[0, :, :, :end], buffer[1, :, :, :end]

    def commit(self) -> None:
        """Keep the tokens of the last forward."""
        self.length, self.ahead = self.length + self.ahead, 0

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Tokens that run within are written over the first of those kept, see only themselves, and are kept."""
        kept, patterns = self.length, self.patterns
        self.length, self.patterns = 0, dict.fromkeys(self.config.attention.layers)
        yield
        self.length, self.ahead, self.patterns = max(kept, self.length + self.ahead), 0, patterns

    def drop(self, first: int, last: int) -> None:
        """Forget tokens first .. last - 1; later ones move up. One copy per chunk, not per step."""
        kept = self.length - last
        for x in (*self.buffers.values(), self.mask.unsqueeze(-1)):
            x[..., first : first + kept, :] = x[..., last : self.length, :].clone()
        self.length -= last - first

    def set_back(self, first: int, seconds: float) -> None:
        """Move the clock of the kept tokens from `first` on back by so many seconds: their keys turn with it."""
        pairs, half = axis_pairs(self.config.head_width)[0], self.config.head_width // 2
        angle = frequencies(pairs, *self.config.rope_time) * -seconds  # (pairs,)
        for buffer in self.buffers.values():
            keys = buffer[0, :, :, first : self.length].double()
            cos, sin = angle.cos().to(buffer.device), angle.sin().to(buffer.device)
            one, two = keys[..., :pairs].clone(), keys[..., half : half + pairs].clone()
            keys[..., :pairs] = one * cos - two * sin
            keys[..., half : half + pairs] = two * cos + one * sin
            buffer[0, :, :, first : self.length] = keys.to(buffer.dtype)
