"""A small clip layout, and a Gaussian world whose velocity and sampling ODE are known in closed form."""

from __future__ import annotations

import torch

from sora2.types import AudioShape, Batch, VideoShape, clean_modality

VIDEO = VideoShape(17, 32, 32, fps=8.0, channels=2)  # 5 x 2 x 2 tokens of width 8
AUDIO = AudioShape.for_seconds(17 / 8, 8000, hop_samples=320, latent_channels=6)  # 54 tokens at 25 Hz


def make_batch(rows: int, *, video: bool = True, audio: bool = True, text: bool = True) -> Batch:
    draw = torch.Generator().manual_seed(7)

    def tokens(n: int, width: int) -> torch.Tensor:
        return torch.randn(rows, n, width, generator=draw)

    return Batch(
        video=clean_modality(tokens(VIDEO.tokens, VIDEO.token_width), VIDEO.positions()) if video else None,
        audio=clean_modality(tokens(AUDIO.tokens, AUDIO.token_width), AUDIO.positions()) if audio else None,
        text=clean_modality(tokens(4, 3), torch.zeros(4, 3)) if text else None,
        video_shape=VIDEO if video else None,
        audio_shape=AUDIO if audio else None,
    )


class GaussianWorld:
    """x_0 ~ N(mean, std^2) in every channel: E[eps - x_0 | x_t] in closed form.

    The sampling ODE keeps z = (x_t - (1 - t) mean) / sqrt((1 - t)^2 std^2 + t^2) constant, so noise z ends at
    mean + std z.
    """

    def __init__(self, mean: float = 1.5, std: float = 0.5):
        self.mean, self.std = mean, std
        self.evaluations = 0

    def __call__(self, state, levels):
        self.evaluations += 1
        result = {}
        for name, x in state.items():
            t = levels[name].unsqueeze(-1).to(x.dtype)
            variance = (1 - t) ** 2 * self.std**2 + t**2
            centred = x - (1 - t) * self.mean
            clean = self.mean + (1 - t) * self.std**2 / variance * centred
            noise = t / variance * centred
            result[name] = noise - clean
        return result

    def solution(self, noise):
        return {name: self.mean + self.std * z for name, z in noise.items()}
