"""The rotary axes resolve what they must and span what they must."""

import math

import torch

from sora2.model import TransformerConfig
from sora2.model.rope import axis_pairs, frequencies, rotation_angles


def test_axes_fill_the_head():
    for head in (8, 16, 40, 64, 128):
        pairs = axis_pairs(head)
        assert sum(pairs) == head // 2 and min(pairs) >= 1


def test_wavelengths_span_the_range():
    config = TransformerConfig()
    for finest, coarsest in (config.rope_time, config.rope_space):
        wavelength = 2 * math.pi / frequencies(10, finest, coarsest)
        torch.testing.assert_close(wavelength[[0, -1]], torch.tensor([finest, coarsest], dtype=torch.float64))
        assert bool((wavelength.diff() > 0).all())


def test_long_films_keep_their_phase():
    """An hour into a film, neighbouring tokens of a 25 Hz soundtrack are as far apart as at its start."""
    config = TransformerConfig()
    start = torch.tensor([[[0.0, 0.0, 0.0], [0.0625, 0.0, 0.0]]])  # exact in float32 at any hour
    angles = rotation_angles(start, config)
    late = rotation_angles(start + torch.tensor([3600.0, 0.0, 0.0]), config)

    def step(a):
        return torch.polar(torch.ones(()), a[0, 1] - a[0, 0])

    torch.testing.assert_close(step(late), step(angles), rtol=0, atol=1e-5)
