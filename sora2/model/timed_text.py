"""Text that has a time, laid along the sound: a sound token is told, before any attention, the timed text around it.

Attention finds the letters of a second through the rotation, but it has to learn to look there. Here each sound token
is given, for each of a few moments before and after its own, what text lies about that moment: a convolution over
time, of tokens wherever they lie. So text-to-speech by flow matching learns its alignment, frame by frame (E2 TTS,
Eskimez et al. 2024, arXiv:2406.18009; F5-TTS, Chen et al. 2024, arXiv:2410.06885). It starts at zero: a model trained
without it goes on with it as what it was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sora2.model.config import TransformerConfig
from sora2.model.layers import Linear, ZeroLinear
from sora2.types import Modality

#: Seconds between moments, and how wide a moment is (standard deviation). A spoken letter lasts about 0.07.
SPACING, SPREAD = 0.04, 0.025
#: Numbers that a text token is known by.
RANK = 64


class TimedText(nn.Module):
    """What sound tokens get of text tokens with a time, (B, Na, D)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.moments = config.timed_text
        self.into = Linear(config.text_width, RANK, bias=False)
        self.out = ZeroLinear(RANK * self.moments, config.width, bias=False)

    def forward(self, text: Modality, positions: Tensor) -> Tensor:
        """Of text (B, L, C) and the positions (B, Na, 3) of sound; tokens at 0 s have no time and are not seen."""
        seconds = text.positions[..., 0].float()  # (B, L)
        timed = text.mask & (seconds != 0)  # (B, L)
        latent = text.latent.masked_fill(~timed.unsqueeze(-1), 0.0)  # (B, L, C)
        known = self.into(latent.to(self.into.weight.dtype))  # (B, L, RANK)
        shift = torch.arange(self.moments, device=seconds.device) - (self.moments - 1) / 2
        moments = positions[..., 0].float().unsqueeze(-1) + SPACING * shift  # (B, Na, M)
        gap = moments.flatten(1).unsqueeze(-1) - seconds.unsqueeze(1)  # (B, Na * M, L)
        near = torch.exp(-0.5 * (gap / SPREAD).square()).to(known.dtype)
        around = near @ known  # (B, Na * M, RANK)
        return self.out(around.view(*positions.shape[:2], self.moments * RANK))  # (B, Na, D)
