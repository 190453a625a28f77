"""Three-axis rotary positions from physical coordinates (seconds, y, x).

Each pair of channels of a head turns with one wavelength along one axis. Wavelengths are log-spaced: in time
from two tokens of a 25 Hz soundtrack (0.08 s) to minutes; in space, in units of the picture's shorter side,
from two patches of a 128 x 128 grid to more than a wide picture. So nothing in the model knows fps,
resolution or codec strides.
Source: Su et al. 2021 (arXiv:2104.09864), split over axes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sora2.model.config import TransformerConfig

#: Share of a head's channel pairs that turn with y, and with x; time gets the rest.
SPACE_SHARE = 5 / 16


def axis_pairs(head_width: int) -> tuple[int, int, int]:
    """Channel pairs per axis (seconds, y, x); they sum to head_width / 2."""
    pairs = head_width // 2
    space = int(pairs * SPACE_SHARE)
    return pairs - 2 * space, space, space


def frequencies(pairs: int, finest: float, coarsest: float) -> Tensor:
    """(pairs,) angular frequencies in radians per unit, wavelengths log-spaced from finest to coarsest, float64."""
    wavelength = torch.logspace(math.log10(finest), math.log10(coarsest), pairs, dtype=torch.float64)
    return 2 * math.pi / wavelength


def rotation_angles(positions: Tensor, config: TransformerConfig) -> Tensor:
    """(B, N, 3) of (seconds, y, x) -> (B, N, head_width / 2) angles in radians, float32."""
    ranges = (config.rope_time, config.rope_space, config.rope_space)
    angles = []
    for axis, (pairs, (finest, coarsest)) in enumerate(
        zip(axis_pairs(config.head_width), ranges, strict=True)
    ):
        frequency = frequencies(pairs, finest, coarsest).to(positions.device)
        turn = positions[..., axis, None].double() * frequency  # (B, N, pairs)
        angles.append(
            turn.remainder(2 * math.pi)
        )  # float64 until here: minutes at 78 rad/s cost float32 digits
    return torch.cat(angles, dim=-1).float()
