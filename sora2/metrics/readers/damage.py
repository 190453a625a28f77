"""What training does to clips, so that the reader judges attributes and not texture: the softness, grain and coding
errors of codecs and generators, and views that leave every attribute as it is."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sora2.errors import UserError
from sora2.host import noise_generator


@dataclass(frozen=True)
class DamageConfig:
    """Largest amounts, and the shares of clips that get them. Pictures are in [-1, 1]: 1 is 127.5 levels."""

    soft: float = 0.35  # share of batches scaled down and up again
    smallest: int = 36  # shorter side, pixels, of the softest
    noise: float = 0.4  # share of clips
    noise_levels: float = 10.0
    blocks: float = 0.25  # share of batches with 8 x 8 blocks quantised as JPEG does
    block_levels: float = 24.0  # quantiser step of the finest frequency
    tone: float = 0.06  # brightness and contrast
    gain_db: float = 1.0
    hiss: float = 0.4  # share of clips with white noise in their sound
    hiss_db: tuple[float, float] = (-70.0, -48.0)
    mirror: float = 0.5  # share of batches with left and right exchanged
    cut_frames: int = 2  # at most so many are cut off at the start

    def __post_init__(self) -> None:
        for name in ("soft", "noise", "blocks", "hiss", "mirror"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"task.{name}={getattr(self, name)} must be in [0, 1]")


def cut_start(
    video: Tensor,
    audio: Tensor,
    config: DamageConfig,
    generator: torch.Generator,
    fps: float,
    sample_rate: int,
) -> tuple[Tensor, Tensor]:
    """The clips (B, 3, T, H, W) and (B, channels, S) without the first few frames, and their sound."""
    cut = int(torch.randint(config.cut_frames + 1, (1,), generator=generator))
    return video[:, :, cut:], audio[..., round(cut / fps * sample_rate) :]


def damage_picture(
    stills: Tensor, grey: Tensor, config: DamageConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Both views (B, 3, K, H, W) and (B, T, h, w) of the same clips, in [-1, 1]."""
    generator = noise_generator(generator, stills.device)
    draw = functools.partial(torch.rand, generator=generator, device=stills.device)
    B = len(stills)
    if draw(1) < config.soft:
        side = min(stills.shape[-2:])
        stills = soften(stills, config.smallest + int(draw(1) * (side - config.smallest)))
    if draw(1) < config.blocks:
        stills = block_code(stills, float(draw(1)) * config.block_levels / 127.5)
    contrast = 1 + config.tone * (2 * draw(B) - 1)
    brightness = config.tone * (2 * draw(B) - 1)
    grain = (draw(B) < config.noise) * draw(B) * config.noise_levels / 127.5
    damaged = []
    for x, share in ((stills, 1.0), (grey, 0.3)):  # 2 x 2 pixels of three colours average out
        contrast_x, brightness_x, grain_x = (
            v.view(-1, *[1] * (x.ndim - 1)) for v in (contrast, brightness, share * grain)
        )
        # one grain for the whole batch, each clip by its own amount: as good, and far cheaper
        damaged.append((x * contrast_x + brightness_x + grain_x * _normal(x[:1], generator)).clamp(-1, 1))
    return damaged[0], damaged[1]


def damage_sound(audio: Tensor, config: DamageConfig, generator: torch.Generator) -> Tensor:
    """(B, channels, S)."""
    generator = noise_generator(generator, audio.device)
    draw = functools.partial(torch.rand, generator=generator, device=audio.device)
    B = len(audio)
    gain = 10 ** (config.gain_db / 20 * (2 * draw(B, 1, 1) - 1))
    low, high = config.hiss_db
    level = 10 ** ((low + (high - low) * draw(B, 1, 1)) / 20) * (draw(B, 1, 1) < config.hiss)
    return audio * gain + level * _normal(audio[:1], generator)


def turned(x: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """The samples of `chosen` (B,) bool with one axis (left and right, or the channels) the other way round."""
    return torch.where(chosen.view(-1, *[1] * (x.ndim - 1)), x.flip(axis), x)


def mirrored_truth(truth: dict[str, Any]) -> dict[str, Any]:
    """What the mirrored clip shows, as far as attributes say it."""
    other = {"left": "right", "right": "left"}
    changed = dict(truth)
    if "gaze" in truth:
        changed["gaze"] = other.get(truth["gaze"], truth["gaze"])
    if "vehicles" in truth:
        changed["vehicles"] = [v | {"direction": other[v["direction"]]} for v in truth["vehicles"]]
    return changed


def soften(video: Tensor, side: int) -> Tensor:
    """(B, 3, T, H, W) scaled to a shorter side of `side` pixels, and back."""
    B, _, T, H, W = video.shape
    size = (round(side * H / min(H, W)), round(side * W / min(H, W)))
    frames = video.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W)
    small = F.interpolate(frames, size, mode="bilinear", align_corners=False)
    back = F.interpolate(small, (H, W), mode="bilinear", align_corners=False)
    return back.unflatten(0, (B, T)).transpose(1, 2)


def block_code(video: Tensor, step: float) -> Tensor:
    """Discrete cosine transform of 8 x 8 blocks, rounded to steps that grow with frequency from a quarter of `step`.

    Sides that are no multiple of 8 are left as they are.
    """
    H, W = video.shape[-2:]
    if H % 8 or W % 8 or step <= 0:
        return video
    basis = _cosines().to(video)
    blocks = video.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)  # (..., h, w, 8, 8)
    frequency = torch.arange(8, device=video.device)
    steps = step * (0.25 + 0.75 * (frequency[:, None] + frequency) / 14)
    coded = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ coded @ basis).transpose(-3, -2).flatten(-2).flatten(-3, -2)


@functools.cache
def _cosines() -> Tensor:
    """(8, 8) orthonormal DCT-II."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
    basis = torch.cos(torch.pi / 8 * (n + 0.5) * k) / 2
    basis[0] /= 2**0.5
    return basis


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)
