"""The flow-matching loss, reported per modality and per bucket of noise level."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sora2.diffusion.layout import STREAMS
from sora2.errors import UserError


class LossError(UserError):
    """A loss setting out of its range."""


@dataclass(frozen=True)
class LossConfig:
    weight: dict[str, float] = field(default_factory=lambda: {"video": 1.0, "audio": 1.0})
    buckets: int = 4  # equal ranges of the noise level that are reported apart

    def __post_init__(self) -> None:
        if (
            set(self.weight) != set(STREAMS)
            or min(self.weight.values()) < 0
            or sum(self.weight.values()) <= 0
        ):
            raise LossError(
                f"task.loss.weight={self.weight} must give a non-negative number for each of {STREAMS}"
            )
        if self.buckets < 1:
            raise LossError(f"task.loss.buckets={self.buckets} must be at least 1")

    def bucket_names(self, stream: str) -> list[str]:
        edges = [i / self.buckets for i in range(self.buckets + 1)]
        return [f"{stream}/{low:.2f}-{high:.2f}" for low, high in itertools.pairwise(edges)]


# L = sum_m w_m E || v_theta(x_t, t) - (eps - x_0) ||^2, over the tokens of modality m with t > 0
def flow_losses(
    velocity: dict[str, Tensor],
    target: dict[str, Tensor],
    levels: dict[str, Tensor],
    masks: dict[str, Tensor],
    config: LossConfig,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error of the velocity over the tokens that are there (mask) and noised (level > 0).

    Args:
        velocity, target: per stream (B, N, C). levels, masks: per stream (B, N).

    Returns:
        The weighted sum of the modalities' means, with a graph, and detached scalars named "video", "audio"
        and by bucket, such as "video/0.00-0.25". A modality or bucket that is not in the batch weighs nothing
        and is NaN.
    """
    total = torch.stack([v.sum() * 0.0 for v in velocity.values()]).sum()
    named: dict[str, Tensor] = {}
    for name in STREAMS:
        bucket_names = config.bucket_names(name)
        if name not in target:
            named.update(dict.fromkeys([name, *bucket_names], torch.tensor(float("nan"))))
            continue
        counted = masks[name] & (levels[name] > 0)  # (B, N)
        error = (velocity[name].float() - target[name].float()).square().mean(dim=-1)  # (B, N)
        error = torch.where(counted, error, 0.0)  # (B, N)
        total = total + config.weight[name] * error.sum() / counted.sum().clamp_min(1)
        named[name] = error.detach().sum() / counted.sum()  # 0 / 0 is NaN: none in this batch
        index = (levels[name] * config.buckets).long().clamp(0, config.buckets - 1)  # (B, N)
        for k, bucket in enumerate(bucket_names):
            here = counted & (index == k)
            named[bucket] = torch.where(here, error.detach(), 0.0).sum() / here.sum()
    return total, named
