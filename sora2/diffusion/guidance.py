"""Guidance: how strongly a sample follows its text, and its other modality.

For each stream m, with the network's velocity c given everything, u without the text (or with the negative
prompt) and o without the other stream:

    v_m = c_m + (text_m - 1) (c_m - u_m) + (modality_m - 1) (c_m - o_m)

Text: Ho & Salimans 2022 (arXiv:2207.12598). Scale 1 is the plain conditional velocity, and costs no
evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sora2.diffusion.layout import STREAMS
from sora2.diffusion.samplers import Levels, State, VelocityFn
from sora2.errors import UserError
from sora2.types import Batch, Modality

Model = Callable[[Batch], State]
#: Named versions of a batch (everything, without the text, without the other stream) -> velocities of each.
Evaluate = Callable[[dict[str, Batch]], dict[str, State]]


class GuidanceError(UserError):
    """A guidance setting out of its range."""


@dataclass(frozen=True)
class GuidanceConfig:
    text: dict[str, float] = field(default_factory=lambda: {"video": 3.0, "audio": 3.0})
    modality: dict[str, float] = field(default_factory=lambda: {"video": 1.0, "audio": 1.0})
    interval: tuple[float, float] = (0.0, 1.0)  # noise levels at which guidance acts (arXiv:2404.07724)
    rescale: float = 0.0  # 1 = the guided velocity has the standard deviation of the conditional one
    batched: bool = True  # all evaluations in one forward; False = one after the other, for memory

    def __post_init__(self) -> None:
        for key in ("text", "modality"):
            value = getattr(self, key)
            if set(value) != set(STREAMS):
                raise GuidanceError(f"guidance.{key}={value} must give a number for each of {STREAMS}")
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise GuidanceError(
                f"guidance.interval={self.interval} must be two noise levels, 0 <= low < high <= 1"
            )
        if not 0 <= self.rescale <= 1:
            raise GuidanceError(f"guidance.rescale={self.rescale} must be in [0, 1]")


def without(modality: Modality) -> Modality:
    """The same tokens, but hidden from the network."""
    return modality.replace(mask=torch.zeros_like(modality.mask))


def concatenate(batches: list[Batch]) -> Batch:
    """One batch of the rows of several that have the same modalities and shapes."""
    merged = {}
    for name, first in batches[0].modalities().items():
        parts = [first] + [getattr(b, name) for b in batches[1:]]
        tensors = ("latent", "positions", "noise_level", "mask")
        merged[name] = Modality(*(torch.cat([getattr(p, key) for p in parts]) for key in tensors))
    return batches[0].replace(**merged, keys=(), captions=())


# v' = phi v std(c) / std(v) + (1 - phi) v
def rescale_velocity(guided: Tensor, conditional: Tensor, counted: Tensor, amount: float) -> Tensor:
    """Lin et al. 2023 (arXiv:2305.08891), eq. 15-16, over the tokens `counted` (B, N) of each clip."""

    def std(x: Tensor) -> Tensor:
        weight = counted.unsqueeze(-1).to(x.dtype)  # (B, N, 1)
        count = (weight.sum(dim=(1, 2)) * x.shape[-1]).clamp_min(1).view(-1, 1, 1)
        mean = (x * weight).sum(dim=(1, 2), keepdim=True) / count
        return (((x - mean) * weight).square().sum(dim=(1, 2), keepdim=True) / count).sqrt()  # (B, 1, 1)

    ratio = std(conditional) / std(guided).clamp_min(1e-8)
    return amount * guided * ratio + (1 - amount) * guided


def branches(
    everything: Batch, config: GuidanceConfig, negative_text: Modality | None, acts: dict[str, bool]
) -> dict[str, Batch]:
    """The versions of a batch that guidance compares, by name, for the streams on which it acts."""
    found = {"all": everything}
    if everything.text is not None and any(acts[n] and config.text[n] != 1 for n in acts):
        found["no text"] = everything.replace(
            text=without(everything.text) if negative_text is None else negative_text
        )
    if len(acts) == 2:
        for n, other in (("video", "audio"), ("audio", "video")):
            if acts[n] and config.modality[n] != 1:
                found[f"no {other}"] = everything.replace(**{other: without(getattr(everything, other))})
    return found


def guided_velocity(
    model: Model, batch: Batch, config: GuidanceConfig, negative_text: Modality | None = None
) -> VelocityFn:
    """A velocity function for the samplers.

    Args:
        model: the network: Batch -> velocity per stream (B, N, C). batch: positions, masks and conditions;
        its streams' latents and levels are replaced at every evaluation. negative_text: what the text
        guidance pushes away from, same shape as `batch.text`; None = no text at all.
    """
    return guide(evaluate_with(model, config.batched), batch, config, negative_text)


def guide(
    evaluate: Evaluate, batch: Batch, config: GuidanceConfig, negative_text: Modality | None = None
) -> VelocityFn:
    """`guided_velocity` for a network that computes the versions of a batch in its own way."""

    def velocity(state: State, levels: Levels) -> State:
        streams = {n: getattr(batch, n).replace(latent=x, noise_level=levels[n]) for n, x in state.items()}
        everything = batch.replace(**streams)
        low, high = config.interval
        active = {n: (levels[n] >= low) & (levels[n] <= high) & (levels[n] > 0) for n in state}  # (B, N)
        acts = {n: bool(active[n].any()) for n in state}

        versions = branches(everything, config, negative_text, acts)
        said = evaluate(versions)

        conditional = said["all"]
        if len(said) == 1:
            return conditional
        result = {}
        for n, c in conditional.items():
            other = "audio" if n == "video" else "video"
            push = torch.zeros_like(c)
            if "no text" in said:
                push = push + (config.text[n] - 1) * (c - said["no text"][n])
            if f"no {other}" in said:
                push = push + (config.modality[n] - 1) * (c - said[f"no {other}"][n])
            v = c + active[n].unsqueeze(-1) * push  # (B, N, C)
            if config.rescale > 0:
                v = rescale_velocity(v, c, active[n] & streams[n].mask, config.rescale)
            result[n] = v
        return result

    return velocity


def evaluate_with(model: Model, batched: bool) -> Evaluate:
    """All versions of a batch through one network: in one forward, or one after the other, for memory."""

    def evaluate(versions: dict[str, Batch]) -> dict[str, State]:
        if len(versions) == 1 or not batched:
            return {name: model(version) for name, version in versions.items()}
        together = model(concatenate(list(versions.values())))
        rows = next(iter(versions.values())).size
        return {
            name: {n: v[k * rows : (k + 1) * rows] for n, v in together.items()}
            for k, name in enumerate(versions)
        }

    return evaluate
