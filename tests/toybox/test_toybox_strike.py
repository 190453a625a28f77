"""A struck bar: pitch, onset, level, flight of the mallet, picture, captions."""

import numpy as np
import pytest

from sora2.toybox.music import BAR_SEMITONES, INSTRUMENTS, Note, add_notes, bar_voice, midi_to_hz, note_level
from sora2.toybox.scenes.strike_motion import CONTACT_SPEED, REBOUND, Hit, mallet_path

RATE = 16000


def pitch_hz(wave, near, sample_rate=RATE):
    """Frequency of the partial near `near` Hz: least squares of a decaying tone's phase over time."""
    t = np.arange(wave.size) / sample_rate
    base = wave * np.exp(-2j * np.pi * near * t)
    window = round(0.02 * sample_rate)
    smooth = np.convolve(base, np.hanning(window), mode="valid")
    use = slice(round(0.02 * sample_rate), round(0.16 * sample_rate))
    phase = np.unwrap(np.angle(smooth[use]))
    weight = np.abs(smooth[use])
    return near + np.polyfit(t[: phase.size], phase, 1, w=weight)[0] / (2 * np.pi)


def cents(found, true):
    return 1200 * np.log2(found / true)


@pytest.mark.parametrize("instrument", INSTRUMENTS)
@pytest.mark.parametrize("semitone", BAR_SEMITONES)
def test_pitch_is_within_a_cent(instrument, semitone):
    midi = INSTRUMENTS[instrument].lowest_midi + semitone
    audio = np.zeros((1, RATE), np.float32)
    add_notes(audio, [Note(0.0, midi, 0.8, 0, 0.0)], instrument, RATE)
    true = 440 * 2 ** ((midi - 69) / 12)
    assert abs(cents(pitch_hz(audio[0].astype(float), true * 1.01), true)) < 1.0


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_onset_lies_between_samples(instrument):
    """A delay of half a sample is the waveform of a doubled rate, taken at its odd samples."""
    midi = INSTRUMENTS[instrument].lowest_midi
    coarse, fine = bar_voice(instrument, midi, RATE, 4000), bar_voice(instrument, midi, 2 * RATE, 8000)
    half = coarse.render(np.array([0.5 / RATE]), np.array([1.0]))[0]
    np.testing.assert_allclose(half, fine.render(np.zeros(1), np.ones(1))[0, 1::2], atol=3e-5)


def test_a4_is_440():
    assert midi_to_hz(69) == 440.0 and midi_to_hz(81) == 880.0


def test_level_follows_velocity():
    peaks = []
    for velocity in np.linspace(0.2, 1.0, 9):
        audio = np.zeros((1, RATE), np.float32)
        add_notes(audio, [Note(0.1, 72, velocity, 0, 0.0)], "xylophone", RATE)
        peaks.append(np.abs(audio).max())
        assert peaks[-1] == pytest.approx(note_level(velocity), rel=0.1)
    assert peaks == sorted(peaks)


def test_the_mallet_touches_the_bars_at_the_hits_and_never_else():
    rng = np.random.default_rng(0)
    for _ in range(20):
        onsets = 0.3 + np.cumsum(rng.uniform(0.1, 0.9, 6))
        hits = [Hit(t, x, v) for t, x, v in zip(onsets, rng.random(6), rng.uniform(0.3, 1, 6), strict=True)]
        x, height = mallet_path(hits, onsets)
        np.testing.assert_allclose(height, 0, atol=1e-12)
        np.testing.assert_allclose(x, [hit.x for hit in hits], atol=1e-12)
        seconds = np.linspace(0, onsets[-1] + 1, 5000)
        away = np.abs(seconds[:, None] - onsets).min(1) > 0.01
        _, height = mallet_path(hits, seconds)
        assert height[away].min() > 0 and height.max() < 0.5
        step = 1e-5
        _, (before, after) = mallet_path(hits, np.array([onsets[2] - step, onsets[2] + step]))
        assert before / step == pytest.approx(CONTACT_SPEED * hits[2].velocity, rel=0.01)
        assert after / step == pytest.approx(REBOUND * CONTACT_SPEED * hits[2].velocity, rel=0.01)


def test_the_mallet_moves_without_jumps():
    hits = [Hit(0.3, 0.2, 0.9), Hit(0.55, 0.8, 0.5), Hit(1.9, 0.4, 0.9)]
    seconds = np.linspace(0, 3, 6001)
    for path in mallet_path(hits, seconds):
        assert np.abs(np.diff(path)).max() / (seconds[1] - seconds[0]) < 5.0
