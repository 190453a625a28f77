"""Noise levels: their distribution in training, their course in sampling, and how video and audio are paired.

A *raw* level in [0, 1] says how far along the noising a clip is; a modality's *shift* bends it (Esser et al.
2024, arXiv:2403.03206, eq. 23), since redundant signals need more noise before they are gone. A `NoiseMap`
turns the raw level of a clip into the level of each of its tokens. Training draws raw levels; a sampler walks
them down from 1 to 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sora2.diffusion.layout import STREAMS, NoiseMap
from sora2.errors import UserError

PAIRINGS = ("shared", "paired", "independent")

#: Levels nearer than this to 0 or 1 are 0 or 1.
ROUNDING = 1e-6


class LevelError(UserError):
    """A noise-level setting out of its range."""


@dataclass(frozen=True)
class LevelConfig:
    """Distribution of the training levels.

    `pairing` is a mixture over clips: "shared" puts one raw draw through each modality's shift (the pairs a
    sampler visits), "paired" gives both modalities the same level, "independent" draws one for each.
    """

    mean: float = 0.0  # of the logit of the raw level
    std: float = 1.0
    uniform: float = 0.1  # share of clips whose raw level is uniform instead, so that both ends are learned
    shift: dict[str, float] = field(default_factory=lambda: {"video": 2.0, "audio": 1.0})
    pairing: dict[str, float] = field(
        default_factory=lambda: {"shared": 0.5, "paired": 0.1, "independent": 0.4}
    )

    def __post_init__(self) -> None:
        if self.std <= 0 or not 0 <= self.uniform <= 1:
            raise LevelError(f"task.levels.std={self.std} must be positive, uniform={self.uniform} in [0, 1]")
        if set(self.shift) != set(STREAMS) or min(self.shift.values()) <= 0:
            raise LevelError(f"task.levels.shift={self.shift} needs a positive number for each of {STREAMS}")
        check_mixture("task.levels.pairing", self.pairing, PAIRINGS)


def check_mixture(key: str, mixture: dict[str, float], names: tuple[str, ...]) -> None:
    """Raises LevelError unless `mixture` gives known names non-negative weights that are not all zero."""
    unknown = sorted(set(mixture) - set(names))
    if unknown:
        raise LevelError(f"{key} names {unknown}; known are: {', '.join(names)}")
    if not mixture or min(mixture.values()) < 0 or sum(mixture.values()) <= 0:
        raise LevelError(f"{key}={mixture} must be non-negative weights, at least one of them positive")


# t' = s t / (1 + (s - 1) t)
def shift_level(raw: Tensor, shift: Tensor | float) -> Tensor:
    """Bend levels towards noise (shift > 1) or data (shift < 1); 0 and 1 stay where they are."""
    return shift * raw / (1 + (shift - 1) * raw)


# logit(t) ~ Normal(mean, std)
def draw_raw_levels(rows: int, config: LevelConfig, generator: torch.Generator) -> Tensor:
    """(rows,) raw levels, on the CPU.

    Stratified: the clips of a batch take evenly spaced quantiles with one random offset, in random order,
    which leaves the distribution of each as it is and lowers the variance of the batch (Kingma et al. 2021,
    arXiv:2107.00630).
    """
    offset, choose = torch.rand(2, generator=generator, device=generator.device).cpu()
    order = torch.randperm(rows, generator=generator, device=generator.device).cpu()
    quantile = ((order + offset) / rows).clamp(1e-4, 1 - 1e-4)  # (R,)
    # The uniform share is stratified in the same way, along another random order.
    other = torch.randperm(rows, generator=generator, device=generator.device).cpu()
    is_uniform = (other + choose) / rows < config.uniform
    normal = torch.sigmoid(config.mean + config.std * torch.special.ndtri(quantile))
    return torch.where(is_uniform, quantile, normal)


def draw_paired_levels(
    rows: int, config: LevelConfig, generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Raw levels and shifts per modality, each (rows,), with the pairing of every clip drawn from the
    mixture.
    """
    first = draw_raw_levels(rows, config, generator)
    second = draw_raw_levels(rows, config, generator)
    weights = torch.tensor([config.pairing.get(name, 0.0) for name in PAIRINGS])
    pairing = torch.multinomial(
        weights.to(generator.device), rows, replacement=True, generator=generator
    ).cpu()
    paired, independent = pairing == PAIRINGS.index("paired"), pairing == PAIRINGS.index("independent")
    raw = {"video": first, "audio": torch.where(independent, second, first)}
    video_shift = torch.full((rows,), float(config.shift["video"]))
    audio_shift = torch.where(paired, video_shift, float(config.shift["audio"]))
    return raw, {"video": video_shift, "audio": audio_shift}


def token_levels(noise_map: NoiseMap, raw: dict[str, Tensor], shift: dict[str, Tensor]) -> dict[str, Tensor]:
    """Level of every token, per stream (R, N), when the clips are at raw levels `raw` (R,) with `shift` (R,).

    A token of delay d, in a clip whose largest delay is D, begins d full denoisings after the first token;
    the clip's raw level falls from 1 to 0 over all 1 + D of them. Without delays every token is at its clip's
    raw level.
    """
    largest = [delay.max(dim=1).values for delay in noise_map.delay.values() if delay.shape[1]]
    longest = torch.stack(largest).amax(dim=0).unsqueeze(1)  # (R, 1)
    levels = {}
    for name, start in noise_map.start.items():
        clip = raw[name].unsqueeze(1)  # (R, 1)
        local = (clip + noise_map.delay[name] - longest * (1 - clip)).clamp(0, 1)  # (R, N)
        # A token that rounding leaves a hair from its end would take a step of no length, by which multistep divides.
        local = torch.where(local < ROUNDING, 0.0, torch.where(local > 1 - ROUNDING, 1.0, local))
        levels[name] = start * shift_level(local, shift[name].unsqueeze(1))
    return levels


def delay_streams(noise_map: NoiseMap, delay: dict[str, float]) -> NoiseMap:
    """The map with each stream beginning `delay` full denoisings later.

    Streams wait for each other: where only one of them has tokens to make, it begins at once.
    """
    makes = {
        n: ((start > 0) & noise_map.present[n]).any(dim=1) for n, start in noise_map.start.items()
    }  # (R,)
    waits = {n: torch.where(made, float(delay[n]), torch.inf) for n, made in makes.items()}  # (R,)
    first = torch.stack(list(waits.values())).amin(dim=0)  # (R,)
    later = {n: torch.where(makes[n], wait - first, 0.0).unsqueeze(1) for n, wait in waits.items()}
    return replace(noise_map, delay={n: d + later[n] for n, d in noise_map.delay.items()})


@dataclass(frozen=True)
class Trajectory:
    """The levels that a sampler visits: step i of `steps` has `levels(i)`, from the map's start down to 0."""

    noise_map: NoiseMap
    steps: int
    shift: dict[str, float]
    delay: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(STREAMS, 0.0)
    )  # see `delay_streams`

    @cached_property
    def delayed(self) -> NoiseMap:
        return delay_streams(self.noise_map, self.delay)

    def levels(self, i: int) -> dict[str, Tensor]:
        """Per stream (R, N), i in 0 .. steps. A known token has level 0 at every step."""
        rows = next(iter(self.noise_map.start.values())).shape[0]
        raw = torch.full((rows,), 1 - i / self.steps)
        shift = {name: torch.full((rows,), float(self.shift[name])) for name in self.noise_map.start}
        return token_levels(self.delayed, dict.fromkeys(self.noise_map.start, raw), shift)
