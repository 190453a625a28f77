"""Rain, wind and thunder: what is heard is what is seen, at its time."""

import numpy as np
import pytest

from sora2.toybox.thunder import add_thunder, thunder_level, thunder_seconds
from sora2.toybox.weather_sound import DROP_HZ, HISS_LEVEL, ROAR_LEVEL, add_drop, rain_hiss, wind_roar

RATE = 16000


def first_sound(audio, threshold=1e-4):
    return int(np.flatnonzero(np.abs(audio).max(0) > threshold)[0])


@pytest.mark.parametrize("metres", [60.0, 140.0, 400.0])
def test_thunder_begins_at_its_sample(metres):
    onset = thunder_seconds(0.2, metres)
    assert onset == pytest.approx(0.2 + metres / 340)
    for seed in range(5):
        audio = np.zeros((2, 2 * RATE), np.float32)
        add_thunder(audio, np.random.default_rng(seed), onset, metres, -0.3, RATE)
        assert abs(first_sound(audio) - onset * RATE) <= 1
        assert np.abs(audio).max() < 1.5


def test_thunder_is_the_same_whatever_is_kept_of_it():
    long, short = np.zeros((2, 4 * RATE), np.float32), np.zeros((2, RATE), np.float32)
    for audio in (long, short):
        add_thunder(audio, np.random.default_rng(3), 0.4, 100.0, 0.0, RATE)
    np.testing.assert_array_equal(long[:, :RATE], short)
    assert np.abs(long[:, -RATE // 2 :]).max() == 0


def test_near_thunder_is_louder_and_brighter():
    def sound(metres):
        audio = np.zeros((1, 2 * RATE), np.float32)
        add_thunder(audio, np.random.default_rng(1), 0.1, metres, 0.0, RATE)
        power = np.abs(np.fft.rfft(audio[0])) ** 2
        return (power * np.fft.rfftfreq(2 * RATE, 1 / RATE)).sum() / power.sum()

    assert thunder_level(60) > thunder_level(140) > thunder_level(400)
    assert sound(60) > 1.5 * sound(400)


@pytest.mark.parametrize("frequency", DROP_HZ)
def test_a_drop_begins_at_its_sample(frequency):
    for onset in (0.1, 0.25003, 0.37119):
        audio = np.zeros((2, RATE), np.float32)
        add_drop(audio, onset, frequency, 0.1, 0.5, RATE)
        assert abs(first_sound(audio) - onset * RATE) <= 1
        assert audio[1].max() > audio[0].max()


@pytest.mark.parametrize("intensity", [0.25, 1.0])
def test_the_hiss_follows_the_intensity(intensity):
    hiss = rain_hiss(np.random.default_rng(0), intensity, 2, 2 * RATE, RATE)
    assert np.sqrt((hiss**2).mean()) == pytest.approx(HISS_LEVEL * intensity, rel=0.01)


def test_the_roar_follows_the_gust():
    gust = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(4 * RATE) / RATE)
    roar = wind_roar(np.random.default_rng(0), gust, 2, 4 * RATE, RATE)
    loud = np.sqrt((roar**2).mean(0).reshape(-1, RATE // 8).mean(1))
    wanted = ROAR_LEVEL * np.sqrt((gust**2).reshape(-1, RATE // 8).mean(1))
    assert np.corrcoef(loud, wanted)[0, 1] > 0.9
    assert loud.mean() == pytest.approx(wanted.mean(), rel=0.1)
