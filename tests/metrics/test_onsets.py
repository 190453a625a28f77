import numpy as np
import pytest

from sora2.metrics.matching import match
from sora2.metrics.onsets import detect_onsets

RATE = 16000


def impacts(rng, onsets, hertz, decay, noise, samples=33000):
    t = np.arange(samples) / RATE
    sound = noise * rng.standard_normal((2, samples))
    for onset in onsets:
        since = np.maximum(t - onset, 0)
        wave = sum(a * np.exp(-since * (k + 1) / decay) * np.sin(2 * np.pi * hertz * r * since)
                   for k, (r, a) in enumerate([(1, 1), (2.7, 0.6), (4.4, 0.3)]))  # fmt: skip
        wave *= (t >= onset) * (1 - np.exp(-since / 0.0003)) * rng.uniform(0.1, 0.4)
        sound += wave * np.array([[0.8], [0.4]])
    return sound


@pytest.mark.parametrize("hertz", [180, 450, 1400])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_onsets_lie_where_they_were_put(hertz, noise):
    errors, found, asked = [], 0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        onsets = 0.1 + np.cumsum(rng.uniform(0.12, 0.4, 6))
        heard = detect_onsets(impacts(rng, onsets, hertz, 0.1, noise), RATE)
        rows, columns = match(onsets, heard.seconds, 0.03)
        errors += list(heard.seconds[columns] - onsets[rows])
        found, asked = found + len(rows), asked + len(onsets)
    assert found >= 0.97 * asked
    assert abs(np.median(errors)) < 0.0005
    assert np.quantile(np.abs(errors), 0.9) < 0.004


def test_a_shift_of_the_sound_is_a_shift_of_the_onsets():
    rng = np.random.default_rng(0)
    sound = impacts(rng, [0.3, 0.7, 1.2], 450, 0.1, 0.001)
    late = np.roll(sound, 777, axis=1)
    np.testing.assert_allclose(
        detect_onsets(late, RATE).seconds - detect_onsets(sound, RATE).seconds, 777 / RATE, atol=2e-4
    )


def test_loudness_does_not_matter():
    sound = impacts(np.random.default_rng(1), [0.3, 0.7, 1.2], 450, 0.1, 0.0)
    np.testing.assert_allclose(
        detect_onsets(0.05 * sound, RATE).seconds, detect_onsets(sound, RATE).seconds, atol=1e-6
    )


def test_silence_and_steady_noise_begin_nothing():
    assert len(detect_onsets(np.zeros((2, 33000)), RATE)) == 0
    assert len(detect_onsets(np.zeros((1, 10)), RATE)) == 0
    noise = 0.05 * np.random.default_rng(0).standard_normal((2, 33000))
    assert len(detect_onsets(noise, RATE)) <= 1


def test_opposite_channels_do_not_cancel():
    mono = impacts(np.random.default_rng(1), [0.3, 0.7], 450, 0.1, 0.0)[:1]
    assert len(detect_onsets(np.concatenate([mono, -mono]), RATE)) == 2
