"""What the transformer asks of those who give it a part of a sequence: other tokens are met in attention alone."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sora2.types import Modality


class Share(Protocol):
    """Some of a batch's tokens, and how they meet the others."""

    @property
    def modalities(self) -> dict[str, Modality]:
        """(B, n) tokens of each."""
        ...

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All heads of these tokens, (B, H, n, Dh) each -> all tokens of some heads, (B, H / P, N, Dh)."""
        ...

    def to_tokens(self, out: Tensor) -> Tensor:
        """All tokens of these heads, (B, H / P, N, Dh) -> all heads of these tokens, (B, H, n, Dh)."""
        ...

    def collect(self, name: str, velocity: Tensor) -> Tensor:
        """(B, n, C) of these tokens of a modality -> (B, N, C) of all."""
        ...


class Sharing(Protocol):
    """Divides the tokens of a batch. The implementation is `sora2.sequence`."""

    def divide(self, present: dict[str, Modality]) -> Share:
        """Of tokens (B, N), in the order of attention."""
        ...
