"""Pitches of struck bars, without a network."""

from itertools import pairwise

import numpy as np
import pytest

from sora2.metrics import Evidence, all_metrics
from sora2.metrics.corruptions import Subject, all_corruptions
from sora2.metrics.pitch import cents, note_pitches
from sora2.metrics.sources import commanded
from sora2.toybox import Toybox, whole_world

METRICS = all_metrics()


@pytest.fixture(scope="module")
def clips():
    return Toybox(whole_world(split="test", scenes=("strike",))).clips(range(18))


def test_the_pitch_of_a_decaying_tone_is_found_within_two_cents_while_another_rings():
    rate = 16_000
    t = np.arange(rate) / rate
    for hertz in (261.6, 440.0, 1046.5, 2093.0):
        ringing = 0.3 * np.sin(2 * np.pi * 700 * t) * np.exp(-t / 0.6)
        struck = np.where(t >= 0.3, np.sin(2 * np.pi * hertz * (t - 0.3)) * np.exp(-(t - 0.3) / 0.15), 0.0)
        found = note_pitches((ringing + 0.2 * struck)[None], rate, np.array([0.0, 0.3]))
        assert np.abs(cents(found, np.array([700.0, hertz]))).max() < 2


def test_real_clips_play_their_score_in_tune(clips):
    played = [METRICS["notes_played"](clip) for clip in clips]
    tuned = [METRICS["note_tuning"](clip) for clip in clips]
    assert all(v.measured for v in (*played, *tuned))
    assert np.mean([v.value for v in played]) > 0.9 and np.mean([v.value for v in tuned]) > 0.95


def _heard(outcome):
    """Nothing to measure counts as nothing right, as everywhere."""
    return outcome.value if outcome.measured else 0.0


def test_shifted_pitch_a_wrong_score_and_a_wrong_instrument_are_noticed(clips):
    shift = all_corruptions()["pitch shift"]
    shifted = [shift.apply(Subject.of(clip), 2).clip for clip in clips[:6]]
    assert np.mean([_heard(METRICS["notes_played"](clip)) for clip in shifted]) < 0.3
    other = [clip.replace(meta={"truth": b.meta["truth"]}) for clip, b in pairwise(clips)]
    assert np.mean([_heard(METRICS["notes_played"](clip)) for clip in other]) < 0.4
    bells = next(c for c in clips if c.meta["truth"]["instrument"] == "bells")
    wrong = bells.meta["truth"] | {"instrument": "marimba"}
    assert METRICS["note_tuning"](bells, wrong).value < 0.5


def test_asked_only_of_bars_and_of_scores(clips):
    ball = Toybox(whole_world(split="test", scenes=("bounce",))).clip(0)
    assert METRICS["note_tuning"](ball) is None and METRICS["notes_played"](ball) is None
    asked = commanded(clips[0].meta["truth"])
    assert METRICS["notes_played"](clips[0], asked) is None
    assert METRICS["note_tuning"](clips[0], asked).value > 0.9
    silent = clips[0].replace(audio=clips[0].audio * 0)
    assert METRICS["note_tuning"](silent).reason == "no note is heard"
    assert not METRICS["notes_played"].evaluate(Evidence(silent)).measured
