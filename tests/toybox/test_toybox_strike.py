"""A struck bar: pitch, onset, level, flight of the mallet, picture, captions."""

import numpy as np
import pytest
from scene_checks import (
    check_captions,
    check_reproducible,
    check_shapes,
    check_splits,
    check_truth,
    seen_at,
)

from sora2.toybox import ToyboxError, clip_from_spec, whole_world
from sora2.toybox.music import BAR_SEMITONES, INSTRUMENTS, Note, add_notes, bar_voice, midi_to_hz, note_level
from sora2.toybox.scenes.strike import _carriers
from sora2.toybox.scenes.strike_motion import CONTACT_SPEED, REBOUND, Hit, mallet_path

RATE = 16000
CONFIG = whole_world(scenes=("strike",))
PLAIN = {"ambience": "silence", "light": "day", "camera": "static", "pacing": "normal"}


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


def strike(config=CONFIG, index=0, **spec):
    return clip_from_spec(config, index=index, **(PLAIN | spec))


def test_the_scene_keeps_its_promises():
    check_reproducible("strike")
    check_truth("strike")
    check_captions("strike")
    check_splits("strike", _carriers)
    check_shapes("strike")


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_notes_are_heard_where_the_truth_says(instrument):
    """Onset to a sample, pitch to a cent, pan by the place of the bar."""
    for bar in (0, 3, 7):
        clip = strike(instrument=instrument, notes=[(0.40003, bar, 0.9)])
        (event,) = clip.meta["truth"]["events"]
        audio = clip.audio.numpy().astype(float)
        heard = int(np.flatnonzero(np.abs(audio).max(0) > 1e-4)[0])
        assert abs(heard - event["onset_seconds"] * RATE) <= 1 and not audio[:, : heard - 1].any()
        assert abs(cents(pitch_hz(audio.sum(0)[heard:], event["hz"] * 0.99), event["hz"])) < 1
        left, right = np.sqrt((audio**2).sum(1))
        assert np.arctan2(right, left) == pytest.approx((event["pan"] + 1) * np.pi / 4, abs=1e-3)
        assert np.hypot(*audio).max() == pytest.approx(event["level"], rel=0.1)


def test_a_melody_has_its_tempo_rhythm_and_order():
    truth = strike(
        melody="rising", rhythm="dotted", tempo_bpm=180.0, start_bar=0, first_onset_seconds=0.2
    ).meta["truth"]
    onsets = [event["onset_seconds"] for event in truth["events"]]
    np.testing.assert_allclose(np.diff(onsets) * 180 / 60, ([1.5, 0.5] * 4)[: len(onsets) - 1], atol=1e-9)
    assert [event["bar"] for event in truth["events"]] == list(range(len(onsets)))
    midi = [event["midi"] for event in truth["events"]]
    assert np.diff(midi)[:6].tolist() == [2, 2, 1, 2, 2][: len(midi) - 1]
    loud, soft = (
        [event["velocity"] for event in strike(dynamics=name).meta["truth"]["events"]]
        for name in ("loud", "soft")
    )
    assert min(loud) > max(soft)


def test_pacing_sets_the_tempo():
    tempo = [strike(pacing=name).meta["truth"]["tempo_bpm"] for name in ("slow", "normal", "fast")]
    assert tempo[0] < 120 < tempo[1] < 180 < tempo[2]


@pytest.mark.parametrize("style", ["cartoon", "cinematic"])
@pytest.mark.parametrize("camera", ["static", "pan", "zoom"])
def test_the_mallet_is_seen_where_the_truth_says(style, camera):
    for index in range(3):
        clip = strike(index=index, style=style, camera=camera, light="day", background="plain")
        truth = clip.meta["truth"]
        for frame, picture in enumerate(clip.video.numpy().astype(int)):
            x, y = (truth["mallet"][axis][frame] for axis in "xy")
            column, row = seen_at(truth, frame, x, y)
            _, top = seen_at(truth, frame, 0, truth["bars"][0]["top"])
            red, green, blue = np.moveaxis(picture[: max(0, int(top))], -1, 0)
            rows, columns = np.nonzero((red - green > 45) & (blue > green + 8))
            if row - 3 < 0:
                continue  # partly above the picture
            assert abs(columns.mean() - column) < 0.5 and abs(rows.mean() - row) < 0.5


def test_the_struck_bar_lights_up_at_its_onset():
    clip = strike(notes=[(0.5, 2, 1.0)], style="cartoon", background="plain")
    truth = clip.meta["truth"]
    column, row = (
        round(value) for value in seen_at(truth, 0, truth["bars"][2]["x"], truth["bars"][2]["top"] + 0.2)
    )
    shown = clip.video.numpy()[:, row, column].astype(int).sum(1)
    frame = int(0.5 * 16)
    assert np.all(shown[:frame] == shown[0]) and shown[frame] > shown[0] + 100
    assert shown[-1] < shown[frame] - 80


@pytest.mark.parametrize(
    "command, message",
    [
        ({"instrument": "organ"}, "instrument='organ' is unknown: choose from xylophone"),
        ({"melody": "fugue"}, "melody='fugue' is unknown"),
        ({"tempo_bpm": 5.0}, r"tempo_bpm=5.0 must be in \[20, 600\]"),
        ({"notes": [(0.1, 9, 0.5)]}, r"bar of a note=9 must be in \[0, 7\]"),
        ({"notes": [(0.1, 1, 0.5), (0.12, 2, 0.5)]}, "at least 0.05 s after"),
        ({"notes": []}, "notes is empty"),
        ({"tune": "x"}, "unknown attribute 'tune'"),
    ],
)
def test_impossible_commands_are_named(command, message):
    with pytest.raises(ToyboxError, match=message):
        strike(**command)
