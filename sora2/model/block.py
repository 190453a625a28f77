"""One transformer block: joint attention over all modalities, then each modality's own feed-forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.kernels import attention
from sora2.model.config import GROUPS, TransformerConfig
from sora2.model.layers import Linear
from sora2.model.modulation import BLOCK_PARAMETERS, SegmentModulation
from sora2.model.packing import Packing


class FeedForward(nn.Module):
    """Two matrices around a GELU (tanh form), without biases: the modulation's shift is one."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(width, hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))  # (T, D)


class Attention(nn.Module):
    """Joint attention with RMS-normed, rotated queries and keys; one set of weights for all modalities."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.head_width, self.eps = config.heads, config.head_width, config.norm_eps
        self.backend = config.attention_backend
        self.qkv = Linear(config.width, 3 * config.width, bias=False)
        self.out = Linear(config.width, config.width, bias=False)
        self.query_norm = nn.Parameter(torch.empty(config.head_width))
        self.key_norm = nn.Parameter(torch.empty(config.head_width))

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """(T, D) -> (T, D)."""
        qkv = self.qkv(x)  # (T, 3 D)
        parts = [
            part.view(packing.batch, s.tokens, 3, self.heads, self.head_width)
            for part, s in zip(packing.split(qkv), packing.segments, strict=True)
        ]
        q, k, v = torch.cat(parts, dim=1).permute(2, 0, 3, 1, 4)  # 3 x (B, H, N, Dh)
        q = self._rotate(F.rms_norm(q, q.shape[-1:], self.query_norm.to(q.dtype), self.eps), packing)
        k = self._rotate(F.rms_norm(k, k.shape[-1:], self.key_norm.to(k.dtype), self.eps), packing)
        out = attention(
            q, k, v, packing.layout, key_mask=packing.key_mask, backend=self.backend
        )  # (B, H, N, Dh)
        out = out.transpose(1, 2).reshape(packing.batch, packing.tokens, -1)  # (B, N, D)
        flat = torch.cat([out[:, s.sequence].reshape(-1, out.shape[-1]) for s in packing.segments])  # (T, D)
        return self.out(flat)

    def _rotate(self, x: Tensor, packing: Packing) -> Tensor:
        cos, sin = (
            packing.cosine[:, None].to(x.dtype),
            packing.sine[:, None].to(x.dtype),
        )  # (B or 1, 1, N, Dh / 2)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Block(nn.Module):
    """norm -> modulate -> attention -> gate, and the same around the feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attention = Attention(config)
        if config.shared_ffn:
            self.ffn = nn.ModuleDict({"all": FeedForward(config.width, config.ffn_width("video"))})
        else:
            self.ffn = nn.ModuleDict({g: FeedForward(config.width, config.ffn_width(g)) for g in GROUPS})
        groups = ("all",) if config.shared_modulation else GROUPS
        self.table = nn.ParameterDict({g: torch.empty(BLOCK_PARAMETERS, config.width) for g in groups})

    def forward(self, x: Tensor, modulation: list[SegmentModulation], packing: Packing) -> Tensor:
        """x (T, D), modality-major rows -> (T, D)."""
        m = self._rows(modulation, packing, x.dtype)  # per segment: 6 x (B, R, 1, D)
        h = modulate(F.layer_norm(x, x.shape[-1:], eps=self.eps), [(p[0], p[1]) for p in m], packing)
        x = gated_add(x, self.attention(h, packing), [p[2] for p in m], packing)
        h = modulate(F.layer_norm(x, x.shape[-1:], eps=self.eps), [(p[3], p[4]) for p in m], packing)
        return gated_add(x, self._feed_forward(h, packing), [p[5] for p in m], packing)

    def _rows(
        self, modulation: list[SegmentModulation], packing: Packing, dtype: torch.dtype
    ) -> list[list[Tensor]]:
        found = []
        for segment, part in zip(packing.segments, modulation, strict=True):
            table = self.table["all" if "all" in self.table else segment.group]
            rows = (part.base[:, :BLOCK_PARAMETERS] + table).to(dtype)  # (U, 6, D)
            gathered = rows[part.index]  # (B, R, 6, D)
            found.append([p.unsqueeze(2) for p in gathered.unbind(2)])
        return found

    def _feed_forward(self, h: Tensor, packing: Packing) -> Tensor:
        if "all" in self.ffn:
            return self.ffn["all"](h)
        parts = zip(packing.split(h), packing.segments, strict=True)
        return torch.cat([self.ffn[s.group](part) for part, s in parts])  # (T, D)


def modulate(x: Tensor, parameters: list[tuple[Tensor, Tensor]], packing: Packing) -> Tensor:
    """x * (1 + scale) + shift, with shift and scale (B, R, 1, D) per segment; x (T, D)."""
    out = []
    for part, (shift, scale) in zip(packing.split(x), parameters, strict=True):
        runs = part.view(*shift.shape[:2], -1, part.shape[-1])  # (B, R, N / R, D)
        out.append(torch.addcmul(shift, runs, 1 + scale).view_as(part))
    return torch.cat(out)


def gated_add(x: Tensor, update: Tensor, gates: list[Tensor], packing: Packing) -> Tensor:
    """x + gate * update, with gates (B, R, 1, D) per segment; x and update (T, D)."""
    out = []
    for part, new, gate in zip(packing.split(x), packing.split(update), gates, strict=True):
        shape = (*gate.shape[:2], -1, part.shape[-1])
        out.append(torch.addcmul(part.view(shape), gate, new.view(shape)).view_as(part))
    return torch.cat(out)
