"""Clean latents -> a noised batch and its velocity targets: all that a training step needs from diffusion.

noised, target = make_training_example(batch, config, generator)
total, named = training_loss(model(noised), noised, target, config)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sora2.config import from_mapping
from sora2.diffusion.flow import add_noise, velocity_target
from sora2.diffusion.layout import STREAMS, Layout, NoiseMap
from sora2.diffusion.losses import LossConfig, flow_losses
from sora2.diffusion.noise_levels import (
    LevelConfig,
    LevelError,
    check_mixture,
    draw_paired_levels,
    token_levels,
)
from sora2.diffusion.tasks import TASKS, TaskError
from sora2.host import noise_generator, on_host, send
from sora2.types import Batch, Modality

DEFAULT_MIXTURE = {
    "text_to_av": 0.4,
    "video_to_audio": 0.12,
    "audio_to_video": 0.08,
    "image_to_av": 0.1,
    "extend_forward": 0.1,
    "extend_backward": 0.04,
    "inbetween": 0.05,
    "inpaint": 0.05,
    "staircase": 0.03,
    "diffusion_forcing": 0.03,
}


@dataclass(frozen=True)
class DiffusionConfig:
    """What a model is trained for: the `task` group of a training config, `diffusion` in a checkpoint."""

    # Weights of the tasks, drawn per clip.
    mixture: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_MIXTURE))
    text_dropout: float = 0.1  # per clip, for classifier-free guidance
    modality_dropout: dict[str, float] = field(default_factory=lambda: {"video": 0.05, "audio": 0.05})
    levels: LevelConfig = field(default_factory=LevelConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        check_mixture("task.mixture", self.mixture, tuple(TASKS))
        drop = self.modality_dropout
        if not 0 <= self.text_dropout <= 1:
            raise LevelError(f"task.text_dropout={self.text_dropout} must be in [0, 1]")
        if set(drop) != set(STREAMS) or min(drop.values()) < 0 or sum(drop.values()) > 1:
            raise LevelError(
                f"task.modality_dropout={drop} must give probabilities for {STREAMS}, at most 1 in all"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "task") -> DiffusionConfig:
        """From plain nested mappings, such as a YAML file; `where` is the dotted prefix of keys in messages.

        Raises:
            ConfigError: a key that is not a setting, or a value of the wrong type.
            LevelError: a value out of its range.
        """
        return from_mapping(cls, values, where)


def draw_tasks(
    layout: Layout, masks: dict[str, Tensor], config: DiffusionConfig, generator: torch.Generator
) -> list[str]:
    """One task per clip from the mixture, among those that the clip has the streams for.

    Raises:
        TaskError: the mixture has no task for some clip, for example only video_to_audio for a silent one.
    """
    names = tuple(config.mixture)
    rows = next(iter(masks.values())).shape[0]
    has = {
        s: on_host(masks[s]).any(dim=1) if s in masks else torch.zeros(rows, dtype=torch.bool)
        for s in STREAMS
    }
    still = layout.grid is not None and layout.grid[0] == 1
    weights = torch.zeros(rows, len(names))
    for k, name in enumerate(names):
        one = TASKS[name]
        able = has["video"] | has["audio"]
        for stream in one.needs:
            able = able & has[stream]
        if one.moving and still:
            able = torch.zeros_like(able)
        weights[:, k] = able * config.mixture[name]
    if (weights.sum(dim=1) <= 0).any():
        row = int((weights.sum(dim=1) <= 0).nonzero()[0])
        streams = [s for s in STREAMS if has[s][row]]
        raise TaskError(
            f"no task of task.mixture={config.mixture} can be trained on clip {row} of the batch, which has "
            f"{streams or 'neither stream'}{' and a single frame' if still else ''}; "
            "add one (text_to_av suits all), or leave such clips out of the data"
        )
    choice = torch.multinomial(weights.to(generator.device), 1, generator=generator)[:, 0]
    return [names[k] for k in choice.tolist()]


def draw_noise_map(tasks: list[str], layout: Layout, generator: torch.Generator) -> NoiseMap:
    """The maps of all clips, each task's arguments drawn for its own rows."""
    rows = len(tasks)
    result = layout.make(rows)
    for name in sorted(set(tasks)):
        index = torch.tensor([i for i, other in enumerate(tasks) if other == name])
        one = TASKS[name]
        part = one(layout, len(index), one.draw(layout, len(index), generator))
        for whole, piece in (
            (result.start, part.start),
            (result.delay, part.delay),
            (result.present, part.present),
        ):
            for stream in layout.names:
                whole[stream][index] = piece[stream]
    return result


def _draw_levels_and_map(
    batch: Batch, config: DiffusionConfig, generator: torch.Generator
) -> tuple[dict[str, Tensor], NoiseMap]:
    layout = Layout.of_batch(batch)
    masks = {name: on_host(getattr(batch, name).mask) for name in layout.names}
    tasks = draw_tasks(layout, masks, config, generator)
    noise_map = draw_noise_map(tasks, layout, generator)
    raw, shift = draw_paired_levels(len(tasks), config.levels, generator)
    return token_levels(noise_map, raw, shift), noise_map


def sample_training_levels(
    batch: Batch, config: DiffusionConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Noise level of every token, {"video": (B, Nv), "audio": (B, Na)}, on the CPU."""
    return _draw_levels_and_map(batch, config, generator)[0]


def drop_conditions(
    masks: dict[str, Tensor], learns: dict[str, Tensor], config: DiffusionConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Masks (B, N) of text, video and audio after dropout of whole clips' text or of one of their streams.

    A stream is dropped only where the other one has something to learn, `learns` (B,), so no clip is wasted.
    """
    rows = next(iter(learns.values())).shape[0]
    draw = torch.rand(2, rows, generator=generator, device=generator.device)
    draw = draw.to(next(iter(masks.values())).device)
    result = dict(masks)
    if "text" in masks:
        result["text"] = masks["text"] & (draw[0] >= config.text_dropout).unsqueeze(1)
    if all(stream in masks for stream in STREAMS):
        p = config.modality_dropout
        drop_video = (draw[1] < p["video"]) & learns["audio"]
        drop_audio = (draw[1] >= 1 - p["audio"]) & learns["video"]
        result["video"] = masks["video"] & ~drop_video.unsqueeze(1)
        result["audio"] = masks["audio"] & ~drop_audio.unsqueeze(1)
    return result


def make_training_example(
    batch: Batch, config: DiffusionConfig, generator: torch.Generator
) -> tuple[Batch, dict[str, Tensor]]:
    """Noise a batch of clean latents for tasks drawn from the mixture.

    Args:
        batch: clean latents (B, N, C) with `video_shape` / `audio_shape` of the streams it has.
        generator: the only source of randomness, best on the CPU: see `sora2.host.noise_generator`.

    Returns:
        The batch with noised latents, their levels (B, N) and masks, and the velocity targets per stream, (B,
        N, C) float32. Levels, masks and targets are all a loss needs. In a single process a stream that is absent
        from all clips, by their tasks or by dropout, is in neither.
    """
    levels, noise_map = _draw_levels_and_map(batch, config, generator)
    streams = {name: getattr(batch, name) for name in levels}
    device = next(iter(streams.values())).latent.device
    masks = {name: on_host(m.mask) & noise_map.present[name] for name, m in streams.items()}
    learns = {name: (masks[name] & (levels[name] > 0)).any(dim=1) for name in streams}  # (B,)
    if batch.text is not None:
        masks["text"] = on_host(batch.text.mask)
    masks = drop_conditions(masks, learns, config, generator)
    present = {name: bool(mask.any()) for name, mask in masks.items()}
    levels, masks = _send_all(levels, masks, device)
    of_noise = noise_generator(generator, device)

    changes: dict[str, Modality | None] = {}
    targets = {}
    for name, stream in streams.items():
        clean = stream.latent.float()  # (B, N, C)
        noise = torch.randn(clean.shape, generator=of_noise, device=of_noise.device)  # (B, N, C)
        # A stream that no clip is left with would cost its share and change nothing. Several ranks must compute alike.
        if not torch.distributed.is_initialized() and not present[name]:
            changes[name] = None
            continue
        noised = add_noise(clean, noise, levels[name])  # (B, N, C)
        targets[name] = velocity_target(clean, noise)  # (B, N, C)
        changes[name] = stream.replace(latent=noised, noise_level=levels[name], mask=masks[name])
    if batch.text is not None:
        changes["text"] = batch.text.replace(mask=masks["text"])
    return batch.replace(**changes), targets


def _send_all(
    levels: dict[str, Tensor], masks: dict[str, Tensor], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both on the device, in one transfer."""
    sent = send([*levels.values(), *masks.values()], device)
    return dict(zip(levels, sent, strict=False)), dict(zip(masks, sent[len(levels) :], strict=True))


def training_loss(
    velocity: dict[str, Tensor], noised: Batch, target: dict[str, Tensor], config: DiffusionConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """`flow_losses` of what the network said about `noised`."""
    levels = {name: getattr(noised, name).noise_level for name in target}
    masks = {name: getattr(noised, name).mask for name in target}
    return flow_losses(velocity, target, levels, masks, config.loss)
