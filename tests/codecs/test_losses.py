from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sora2.codecs import losses as L
from sora2.codecs import measure
from sora2.toybox import Toybox, ToyboxConfig, whole_world
from sora2.toybox.foreground import foreground


def test_kl_is_zero_at_the_prior_and_matches_torch():
    zero = torch.zeros(2, 3)
    assert L.kl_divergence(zero, zero) == 0
    mean, log_variance = torch.randn(2, 3), torch.randn(2, 3)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    assert torch.allclose(L.kl_divergence(mean, log_variance), expected)


def test_relative_error_is_a_signal_to_noise_ratio():
    x = torch.randn(1, 2, 4000)
    assert L.relative_error(x * 1.1, x) == pytest.approx(-2, abs=1e-2)
    assert L.relative_error(x * 0.1 * 1.1, x * 0.1) == pytest.approx(-2, abs=0.01)
    silence = torch.zeros(1, 2, 100)
    assert L.relative_error(silence, silence) == 0


def test_spectral_losses_hear_a_wrong_pitch_and_forgive_a_wrong_phase():
    t = torch.arange(16000) / 16000
    tone = (torch.sin(2 * math.pi * 440 * t) * 0.3).expand(1, 2, -1)
    shifted = (torch.cos(2 * math.pi * 440 * t) * 0.3).expand(1, 2, -1)
    higher = (torch.sin(2 * math.pi * 660 * t) * 0.3).expand(1, 2, -1)
    same, phase, pitch = (L.spectral_losses(x, tone, 16000) for x in (tone, shifted, higher))
    for name in ("convergence", "log_mel"):
        assert same[name] < 1e-6
        assert phase[name] < 0.2 * pitch[name]


def test_attack_error_hears_beginnings_alone():
    torch.manual_seed(0)
    t = torch.arange(16000) / 16000
    ring = torch.sin(2 * math.pi * 440 * t) * torch.exp(-8 * (t - 0.25)) * (t >= 0.25)
    click = torch.randn(16000) * 0.3 * torch.exp(-2000 * (t - 0.25).clamp(min=0)) * (t >= 0.25)
    knock = (ring + click).expand(1, 2, -1)
    cut = (torch.where(t < 0.6, ring, torch.zeros(())) + click).expand(1, 2, -1)  # its end lacks
    dull = ring.expand(1, 2, -1)  # its beginning lacks
    exact, late, early = (L.attack_error(x, knock, 16000) for x in (knock, cut, dull))
    assert exact == 0 and late < 0.02 and early > 0.5
    spectral = [L.spectral_losses(x, knock, 16000)["log_mel"] for x in (cut, dull)]
    assert spectral[0] > spectral[1]  # an average over all frames minds the end more
    assert L.attack_error(dull, torch.zeros_like(knock), 16000) == 0  # nothing begins


def test_gradient_loss_ignores_a_constant_offset():
    video = torch.rand(1, 3, 5, 8, 8)
    assert L.gradient_loss(video + 0.3, video) < 1e-6
    assert L.gradient_loss(video.flip(4), video) > 0.1


def test_hinge_losses_reward_the_right_side():
    real, fake = [torch.full((1, 4), 2.0)], [torch.full((1, 4), -2.0)]
    assert L.hinge_discriminator(real, fake) == 0
    assert L.hinge_discriminator(fake, real) == 6
    assert L.hinge_generator(real) < L.hinge_generator(fake)


def test_si_sdr_ignores_scale_and_counts_noise():
    torch.manual_seed(0)
    x = torch.randn(2, 8000)
    assert measure.si_sdr(x, 0.5 * x) > 100
    assert measure.si_sdr(x, x + 0.1 * torch.randn(2, 8000)) == pytest.approx(20, abs=0.5)
    assert math.isnan(measure.si_sdr(torch.zeros(2, 100), torch.ones(2, 100)))


def test_psnr_of_a_known_error():
    black = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    assert measure.psnr(black, black) == pytest.approx(100)
    assert measure.psnr(black, black + 255) == pytest.approx(0, abs=1e-4)
    assert measure.psnr(black, black + 8) == pytest.approx(20 * math.log10(255 / 8), abs=1e-3)


def test_log_mel_distance_of_a_known_gain():
    noise = torch.randn(2, 16000) * 0.2
    assert measure.log_mel_distance(noise, noise, 16000) == 0
    assert measure.log_mel_distance(noise, noise * 0.5, 16000) == pytest.approx(6.02, abs=0.3)


@pytest.mark.parametrize("scene", ["talk", "strike", "bounce", "weather"])
def test_no_onset_of_a_sound_moves_against_itself(scene):
    """Words grow louder after their onset: a correlation that is not normalised finds them 20 ms late."""
    for clip in Toybox(whole_world(split="test", scenes=(scene,))).clips(range(3)):
        onsets = [e["onset_seconds"] for e in clip.meta["truth"]["events"]]
        assert not any(measure.onset_shifts(clip.audio, clip.audio, 16000, onsets))


@pytest.mark.parametrize("ambience", ["rain", "wind"])
def test_onsets_in_ambience_are_found_against_the_sound_alone(ambience):
    """Those that can be heard in it: others are left out, and would be 15 ms off in wind."""
    found = {True: [], False: []}
    for index in range(40):
        clip = Toybox(ToyboxConfig(split="validation")).clip(index, ambience=ambience)
        onsets = [e["onset_seconds"] for e in clip.meta["truth"]["events"]]
        alone = foreground(clip).audio
        for heard, mixture in ((True, clip.audio), (False, None)):
            found[heard] += measure.onset_shifts(alone, clip.audio, 16000, onsets, mixture)
    assert 10 < len(found[True]) <= len(found[False])
    assert np.quantile(np.abs(found[True]), 0.9) <= 1


@pytest.mark.parametrize("shift_ms", [-8.0, 0.0, 5.0, 12.0])
def test_onset_shifts_recover_a_known_delay(shift_ms):
    clips = [Toybox(ToyboxConfig(split="test")).clip(i) for i in range(8)]
    found = []
    for clip in clips:
        if clip.meta["truth"]["ambience"] != "silence":
            continue
        moved = clip.audio.roll(round(shift_ms * 16), dims=1)
        onsets = [e["onset_seconds"] for e in clip.meta["truth"]["events"]]
        found += measure.onset_shifts(clip.audio, moved, 16000, onsets)
    assert len(found) >= 5
    assert sorted(found)[len(found) // 2] == pytest.approx(shift_ms, abs=0.5)


@pytest.mark.parametrize("fft, samples", [(8, 41), (64, 500), (128, 512)])
def test_magnitudes_and_their_gradient_are_those_of_a_fourier_transform(fft, samples):
    torch.manual_seed(0)
    audio = torch.randn(2, 2, samples, dtype=torch.float64, requires_grad=True)
    window = torch.hann_window(fft, dtype=torch.float64)
    spectrum = torch.stft(audio.flatten(0, 1), fft, fft // 4, window=window, return_complex=True)
    expected = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    found = L.magnitudes(audio, fft)
    assert torch.allclose(found, expected, rtol=1e-12)
    weight = torch.randn_like(expected)
    own, true = (torch.autograd.grad(m, audio, weight)[0] for m in (found, expected))
    assert torch.allclose(own, true, rtol=1e-9, atol=1e-12)
