"""One sequence over several processes: each has some tokens of every modality, and attends for some of the heads.

Token-wise operations need nothing of other tokens. Before attention the processes trade: each gives all heads of its
tokens, and gets all tokens of its heads; after it they trade back (Ulysses, Jacobs et al. 2023, arXiv:2309.14509). So
any pattern and any kernel serves as it is, and activations are divided by the number of processes.

Every process is given the whole batch and returns all velocities. A parameter's gradient is then a part of the true
one, which is the sum over the processes.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sora2.errors import UserError
from sora2.host import tokens_of
from sora2.types import Modality


class SequenceError(UserError):
    """A sequence that cannot be divided among the processes."""


@dataclass(frozen=True)
class SequenceGroup:
    """The processes that share a sequence."""

    group: ProcessGroup
    rank: int
    processes: int

    @classmethod
    def of(cls, group: ProcessGroup) -> SequenceGroup:
        return cls(group, dist.get_rank(group), dist.get_world_size(group))

    def bounds(self, tokens: int) -> list[int]:
        """Process r has tokens [bounds[r], bounds[r + 1]): as equal as they can be."""
        return [tokens * r // self.processes for r in range(self.processes + 1)]

    def divide(self, present: dict[str, Modality]) -> TokenShare:
        """The tokens of this process, of those (B, N) that all have.

        Raises:
            SequenceError: a modality with fewer tokens than processes.
        """
        mine: dict[str, Modality] = {}
        for name, m in present.items():
            if m.tokens < self.processes:
                raise SequenceError(
                    f"{m.tokens} tokens of {name} cannot be shared by {self.processes} processes: take fewer "
                    "(trainer.sequence_devices)"
                )
            bounds = self.bounds(m.tokens)
            first, last = bounds[self.rank], bounds[self.rank + 1]
            parts = (tokens_of(x, first, last) for x in (m.latent, m.positions, m.noise_level, m.mask))
            mine[name] = Modality(*parts)
        device = next(iter(present.values())).latent.device
        lengths = {name: m.tokens for name, m in present.items()}
        counts, dealt, gathered = _deal(self, tuple(lengths.values()), device)
        return TokenShare(self, mine, lengths, counts, dealt, gathered)


@functools.lru_cache(maxsize=64)
def _deal(
    among: SequenceGroup, lengths: tuple[int, ...], device: torch.device
) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """`counts`, `dealt` and `gathered` of a `TokenShare` of segments of these lengths, remembered on the device."""
    starts = itertools.accumulate(lengths, initial=0)
    bounds = [torch.tensor(among.bounds(n)) + start for n, start in zip(lengths, starts, strict=False)]
    theirs = [
        torch.cat([torch.arange(int(b[r]), int(b[r + 1])) for b in bounds]) for r in range(among.processes)
    ]
    dealt = torch.cat(theirs)
    return tuple(len(t) for t in theirs), dealt.to(device), dealt.argsort().to(device)


def every_process() -> SequenceGroup:
    """All processes that were launched.

    Raises:
        SequenceError: there is but one.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise SequenceError(
            "there is one process, which has nobody to share with: start several (accelerate launch, torchrun)"
        )
    return SequenceGroup.of(dist.group.WORLD)


@dataclass(frozen=True)
class TokenShare:
    """A process's tokens of one batch, and the trades that attention needs."""

    among: SequenceGroup
    modalities: dict[str, Modality]  # (B, n) of each, this process's
    lengths: dict[str, int]  # N of each modality
    counts: tuple[int, ...]  # tokens of each process, all modalities
    dealt: Tensor  # (N,): tokens of process 0, then of process 1 ...: where each lies in the sequence
    gathered: Tensor  # (N,): where each token of the sequence lies in `dealt`

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All heads of this process's tokens, (B, H, n, Dh) each -> all tokens of its heads, (B, H / P, N, Dh).

        Raises:
            SequenceError: heads that the processes do not divide.
        """
        p = self.among.processes
        b, h, n, d = q.shape
        if h % p:
            raise SequenceError(
                f"{h} heads cannot be shared by {p} processes: take a divisor of {h} (trainer.sequence_devices)"
            )
        by_process = (
            torch.stack([q, k, v]).view(3, b, p, h // p, n, d).movedim(2, 0)
        )  # (P, 3, B, H / P, n, Dh)
        each = 3 * b * (h // p) * d  # numbers of a token in a message
        found = _Trade.apply(
            by_process.flatten(), [each * n] * p, [each * c for c in self.counts], self.among.group
        )
        parts = found.split([each * c for c in self.counts])
        whole = torch.cat(
            [x.view(3, b, h // p, -1, d) for x in parts], dim=3
        )  # (3, B, H / P, N, Dh), as dealt
        q, k, v = whole.index_select(3, self.gathered)
        return q, k, v

    def to_tokens(self, out: Tensor) -> Tensor:
        """All tokens of this process's heads, (B, H / P, N, Dh) -> all heads of its tokens, (B, H, n, Dh)."""
        p, n = self.among.processes, self.counts[self.among.rank]
        b, h, _, d = out.shape
        by_process = out.index_select(2, self.dealt).split(self.counts, dim=2)  # (B, H / P, n_r, Dh) each
        each = b * h * d
        packed = torch.cat([x.flatten() for x in by_process])
        found = _Trade.apply(packed, [each * c for c in self.counts], [each * n] * p, self.among.group)
        return found.view(p, b, h, n, d).movedim(0, 1).flatten(1, 2)  # (B, P, H / P, n, Dh) -> (B, H, n, Dh)

    def collect(self, name: str, velocity: Tensor) -> Tensor:
        """(B, n, C) of this process's tokens of a modality -> (B, N, C) of all."""
        bounds = self.among.bounds(self.lengths[name])
        return _Collect.apply(velocity, tuple(bounds), self.among.rank, self.among.group)


class _Trade(torch.autograd.Function):
    """Numbers to and from every process; gradients go the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> Tensor:
        ctx.back = received, sent, group
        found = x.new_empty(sum(received))
        dist.all_to_all_single(found, x.contiguous(), received, sent, group=group)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Trade.apply(grad, *ctx.back), None, None, None


class _Collect(torch.autograd.Function):
    """Everyone's tokens. Everyone computes the same of them, so the gradient of one's own is all there is to take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bounds: tuple[int, ...], rank: int, group: ProcessGroup) -> Tensor:
        ctx.mine = slice(bounds[rank], bounds[rank + 1])
        counts = [b - a for a, b in itertools.pairwise(bounds)]
        longest = max(counts)
        padded = x.new_zeros(x.shape[0], longest, x.shape[2])
        padded[:, : x.shape[1]] = x
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded, group=group)
        return torch.cat([part[:, :n] for part, n in zip(found, counts, strict=True)], dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad[:, ctx.mine], None, None, None
