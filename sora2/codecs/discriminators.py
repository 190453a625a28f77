"""Small patch discriminators for the optional adversarial term of the codec recipes.

Each gives, per scale, a map of realness and its hidden features (for feature matching).
Sources: PatchGAN, Isola et al. 2017, https://arxiv.org/abs/1611.07004; the complex STFT discriminator follows
SoundStream, Zeghidour et al. 2021, https://arxiv.org/abs/2107.03312.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VideoDiscriminator(nn.Module):
    """Judges overlapping space-time patches of (B, 3, T, H, W)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv3d(3, width, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1)),
                nn.Conv3d(width, 2 * width, (3, 4, 4), stride=(1, 2, 2), padding=(1, 1, 1)),
                nn.Conv3d(2 * width, 4 * width, 3, padding=1),
            ]
        )
        self.head = nn.Conv3d(4 * width, 1, 1)

    def forward(self, video: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Realness maps (one) and features (one per layer)."""
        features, x = [], video
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)  # (B, width, T, H', W')
            features.append(x)
        return [self.head(x)], features


class AudioDiscriminator(nn.Module):
    """Judges the complex STFT of (B, channels, S) at several resolutions."""

    def __init__(self, channels: int = 2, width: int = 16, ffts: tuple[int, ...] = (256, 512, 1024)) -> None:
        super().__init__()
        self.ffts = ffts
        self.scales = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Conv2d(2 * channels, width, 5, padding=2),
                    nn.Conv2d(width, 2 * width, (4, 3), stride=(2, 1), padding=1),
                    nn.Conv2d(2 * width, 4 * width, (4, 3), stride=(2, 1), padding=1),
                    nn.Conv2d(4 * width, 1, 1),
                ]
            )
            for _ in ffts
        )

    def forward(self, audio: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Realness maps (one per resolution) and features."""
        maps, features = [], []
        for fft, layers in zip(self.ffts, self.scales, strict=True):
            window = torch.hann_window(fft, device=audio.device)
            spectrum = torch.stft(audio.flatten(0, 1), fft, fft // 4, window=window, return_complex=True)
            x = torch.view_as_real(spectrum / fft**0.5).unflatten(
                0, audio.shape[:2]
            )  # (B, ch, bins, frames, 2)
            x = x.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (B, 2 ch, bins, frames)
            for layer in layers[:-1]:
                x = F.leaky_relu(layer(x), 0.2)
                features.append(x)
            maps.append(layers[-1](x))
        return maps, features
