"""Guidance: how strongly a sample follows its text, its other modality, a person's face and voice, and the network
rather than a weaker one.

For each stream m, with the network's velocity c given everything, u without the text (or with the negative
prompt), o without the other stream, r without the references and s without some of its layers:

    v_m = c_m + (text_m - 1) (c_m - u_m) + (modality_m - 1) (c_m - o_m)
              + (reference_m - 1) (c_m - r_m) + (skip_m - 1) (c_m - s_m)

Text: Ho & Salimans 2022 (arXiv:2207.12598). Skipped layers: Hyung et al. 2024 (arXiv:2411.18664), after
Karras et al. 2024 (arXiv:2406.02507), who guide away from a weaker network. Scale 1 is the plain conditional
velocity, and costs no evaluation.
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

#: Batch -> velocity of each stream; takes `skip`, numbers of layers that are left out, where guidance asks for that.
Model = Callable[..., State]
#: Named versions of a batch (everything, without the text, without the other stream, ...) -> velocities of each.
Evaluate = Callable[[dict[str, Batch]], dict[str, State]]
#: The version whose network lacks layers. Its batch is that of everything.
FEWER_LAYERS = "fewer layers"
#: The modalities that show a person.
REFERENCES = ("reference_video", "reference_audio")


class GuidanceError(UserError):
    """A guidance setting out of its range."""


@dataclass(frozen=True)
class GuidanceConfig:
    text: dict[str, float] = field(default_factory=lambda: {"video": 3.0, "audio": 3.0})
    modality: dict[str, float] = field(default_factory=lambda: {"video": 1.0, "audio": 1.0})
    reference: dict[str, float] = field(default_factory=lambda: {"video": 1.0, "audio": 1.0})
    skip: dict[str, float] = field(default_factory=lambda: {"video": 1.0, "audio": 1.0})
    skip_layers: tuple[int, ...] = ()  # which layers the weaker network lacks, from 0
    interval: tuple[float, float] = (0.0, 1.0)  # noise levels at which guidance acts (arXiv:2404.07724)
    rescale: float = 0.0  # 1 = the guided velocity has the standard deviation of the conditional one
    batched: bool = True  # all evaluations in one forward; False = one after the other, for memory

    def __post_init__(self) -> None:
        for key in ("text", "modality", "reference", "skip"):
            value = getattr(self, key)
            if set(value) != set(STREAMS):
                raise GuidanceError(f"guidance.{key}={value} must give a number for each of {STREAMS}")
        object.__setattr__(self, "skip_layers", tuple(self.skip_layers))
        if any(scale != 1 for scale in self.skip.values()) and not self.skip_layers:
            raise GuidanceError(
                f"guidance.skip={self.skip} leads away from the network without some layers: name them in "
                "guidance.skip_layers (--skip-layers), for example the one in the middle"
            )
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
    """Lin et al. 2023 (arXiv:2305.08891), eq. 15-16; the deviations are those of the tokens `counted` (B, N) of each
    clip."""

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
    shown = {name: m for name, m in everything.modalities().items() if name in REFERENCES}
    if shown and any(acts[n] and config.reference[n] != 1 for n in acts):
        found["no references"] = everything.replace(**{name: without(m) for name, m in shown.items()})
    if any(acts[n] and config.skip[n] != 1 for n in acts):
        found[FEWER_LAYERS] = everything
    return found


def guided_velocity(
    model: Model, batch: Batch, config: GuidanceConfig, negative_text: Modality | None = None
) -> VelocityFn:
    """A velocity function for the samplers.

    Args:
        model: the network: Batch -> velocity per stream (B, N, C), with `skip` of layers where `config` skips any.
        batch: positions, masks and conditions;
        its streams' latents and levels are replaced at every evaluation. negative_text: what the text
        guidance pushes away from, same shape as `batch.text`; None = no text at all.
    """
    return guide(evaluate_with(model, config), batch, config, negative_text)


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
            if "no references" in said:
                push = push + (config.reference[n] - 1) * (c - said["no references"][n])
            if FEWER_LAYERS in said:
                push = push + (config.skip[n] - 1) * (c - said[FEWER_LAYERS][n])
            acting = active[n].unsqueeze(-1)  # (B, N, 1)
            v = c + acting * push  # (B, N, C)
            if config.rescale > 0:
                v = torch.where(
                    acting, rescale_velocity(v, c, active[n] & streams[n].mask, config.rescale), c
                )
            result[n] = v
        return result

    return velocity


def evaluate_with(model: Model, config: GuidanceConfig) -> Evaluate:
    """All versions of a batch through one network: in one forward, or one after the other, for memory. That of fewer
    layers has a forward of its own."""

    def evaluate(versions: dict[str, Batch]) -> dict[str, State]:
        found = {}
        if FEWER_LAYERS in versions:
            found[FEWER_LAYERS] = model(versions[FEWER_LAYERS], skip=config.skip_layers)
        whole = {name: version for name, version in versions.items() if name != FEWER_LAYERS}
        if len(whole) == 1 or not config.batched:
            return found | {name: model(version) for name, version in whole.items()}
        together = model(concatenate(list(whole.values())))
        rows = next(iter(whole.values())).size
        return found | {
            name: {n: v[k * rows : (k + 1) * rows] for n, v in together.items()}
            for k, name in enumerate(whole)
        }

    return evaluate
