"""Sample rates and channels."""

from __future__ import annotations

import math

import pytest
import torch

from sora2.media import MediaError, resample_audio, to_channels
from sora2.media.resample import resample_by_points


def tone(hertz: float, rate: int, seconds: float = 1.0) -> torch.Tensor:
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return torch.sin(2 * math.pi * hertz * t).float()[None]


@pytest.mark.parametrize(
    ("old", "new"),
    [(44100, 16000), (16000, 44100), (11025, 16000), (48000, 22050), (44101, 16000), (15999, 48000)],
)
def test_a_tone_stays_the_same_tone(old, new):
    """Same pitch, phase and level at the new rate, away from the ends: nothing is delayed."""
    got = resample_audio(tone(440.0, old), old, new)
    want = tone(440.0, new)
    assert got.shape == want.shape
    assert (got - want)[:, new // 20 : -new // 20].abs().max() < 2e-3


def test_what_the_new_rate_cannot_hold_is_removed():
    out = resample_audio(tone(11000.0, 48000), 48000, 16000)
    assert out[:, 500:-500].abs().max() < 0.02


@pytest.mark.parametrize(("old", "new"), [(44100, 16000), (16000, 44100), (48000, 16000)])
def test_the_point_by_point_resampler_is_the_same_filter(old, new):
    sound = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(resample_by_points(sound, old, new), resample_audio(sound, old, new), atol=2e-4)


def test_equal_rates_change_nothing():
    sound = torch.randn(2, 100)
    assert resample_audio(sound, 16000, 16000) is sound
    with pytest.raises(MediaError, match="positive"):
        resample_audio(sound, 0, 16000)


def test_channels():
    stereo = torch.stack([torch.ones(10), -torch.ones(10)])
    assert torch.equal(to_channels(stereo, 2), stereo)
    assert to_channels(stereo, 1).abs().max() == 0  # the mean of both
    assert torch.equal(to_channels(stereo[:1], 2), torch.ones(2, 10))
    loud = torch.ones(6, 10)
    assert to_channels(loud, 2).abs().max() <= 1  # a mix cannot clip
    with pytest.raises(MediaError, match="no downmix for 11 channels"):
        to_channels(torch.zeros(11, 4), 2)
