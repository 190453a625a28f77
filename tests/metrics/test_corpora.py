"""Metrics of a set: distances between distributions, responses to commands, chance."""

from dataclasses import replace

import numpy as np
import pytest

from sora2.metrics import Unmeasurable, all_corpus_metrics
from sora2.metrics.controls import frozen_frame, real_items, shuffled_audio
from sora2.metrics.corpora.distribution import extrapolated, frechet, median_distance, mmd_squared, size_bias
from sora2.metrics.corpora.responses import response
from sora2.metrics.corpus import Corpus, Outcome
from sora2.metrics.measuring import Task, measure
from sora2.metrics.sources import intervened_clips
from sora2.toybox import ToyboxConfig

CORPUS = all_corpus_metrics()
FEATURES = ("motion", "flow_histogram", "colour_layout", "log_mel", "events")
TASK = Task(("gravity_error", "restitution_error", "pan_error", "struck_material"), FEATURES)


@pytest.fixture(scope="module")
def outcomes(clips):
    return [measure(item, TASK) for item in real_items(clips)]


def gaussian(n, seed, shift=0.0, d=8):
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


def test_unbiased_mmd_is_zero_on_average_whatever_the_size():
    for n in (10, 40):
        values = [mmd_squared(gaussian(n, 2 * s), gaussian(n, 2 * s + 1), 4.0) for s in range(200)]
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values)) + 1e-3
        assert min(values) < 0 < max(values)


def test_mmd_grows_with_the_shift():
    base = gaussian(100, 0)
    width = median_distance(base)
    values = [mmd_squared(gaussian(100, 1, shift), base, width) for shift in (0, 0.25, 0.5, 1)]
    assert values == sorted(values) and values[-1] > 0.1


def test_frechet_of_gaussians_is_exact_and_biased_by_size():
    x, y = gaussian(20000, 0, d=3), gaussian(20000, 1, d=3) * 2 + 1
    assert frechet(x, y) == pytest.approx(3 * 1 + 3 * (2 - 1) ** 2, rel=0.05)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    by_size = size_bias(gaussian(200, 2, d=6), gaussian(200, 3, d=6), frechet)
    small, middle, large = by_size.values()
    assert small > middle > large > 0
    assert abs(extrapolated(by_size)) < 0.7 * large


def test_too_few_clips_are_named(outcomes):
    value = CORPUS["frechet_log_mel"](Corpus(outcomes[:3], outcomes))
    assert not value.measured and "3 of 3 clips have log_mel features; 64 are needed" in value.reason
    assert "8 are needed" in CORPUS["mmd_motion"](Corpus(outcomes[:3], outcomes)).reason


def test_halves_of_real_clips_are_alike_and_damaged_ones_are_not(clips, outcomes):
    distance = {}
    for name in ("mmd_log_mel", "mmd_motion"):
        value = CORPUS[name](Corpus(outcomes[::2], outcomes[1::2]))
        low, high = value.details["interval"]
        assert low < 0.02 and low < value.value < high
        distance[name] = value.value
    quiet = [i.clip.replace(audio=0.05 * i.clip.audio) for i in real_items(clips[::2])]
    worse = [measure(item, TASK) for item in real_items(quiet)]
    assert CORPUS["mmd_log_mel"](Corpus(worse, outcomes[1::2])).value > distance["mmd_log_mel"] + 0.1
    assert CORPUS["mmd_motion"](Corpus(worse, outcomes[1::2])).value == pytest.approx(distance["mmd_motion"])


def test_frozen_clips_have_no_features(clips, outcomes):
    still = [measure(item, TASK) for item in frozen_frame(real_items(clips[:10]))]
    assert "0 of 10 clips" in CORPUS["mmd_motion"](Corpus(still, outcomes)).reason


def test_synchrony_beyond_chance(clips, outcomes):
    shuffled = [measure(item, TASK) for item in shuffled_audio(real_items(clips))]
    metric = CORPUS["av_f1_45_above_chance"]
    real, wrong = metric(Corpus(outcomes)), metric(Corpus(shuffled))
    assert real.value > 0.8 and abs(wrong.value) < 0.15
    assert not metric(Corpus(outcomes[:2])).measured


def test_clips_of_one_caption_are_no_chance_and_count_once(outcomes):
    """Seeds of a caption may sound alike: they are not partners of each other, and intervals draw captions."""
    metric = CORPUS["av_f1_45_above_chance"]
    single = metric(Corpus(outcomes))
    several = [replace(o, seed=seed) for o in outcomes for seed in range(3)]
    found = metric(Corpus(several))
    assert found.value == pytest.approx(single.value, abs=0.05)
    width = [np.ptp(v.details["interval"]) for v in (single, found)]
    assert width[1] == pytest.approx(width[0], rel=0.3)
    alike = metric(Corpus([replace(o, prompt="one") for o in outcomes]))
    assert not alike.measured and "all clips are of one caption" in alike.reason
    distances = [
        CORPUS["mmd_motion"](Corpus(rows, outcomes)).details["interval"] for rows in (outcomes, several)
    ]
    assert np.ptp(distances[1]) > 0.6 * np.ptp(distances[0])


@pytest.mark.parametrize("slope", [1.0, 0.5, 0.0])
def test_the_slope_of_a_response_is_found_within_groups(slope):
    rng = np.random.default_rng(0)
    groups = [f"g{i // 3}" for i in range(30)]
    x = np.tile([1.0, 2.0, 3.0], 10)
    y = slope * x + np.repeat(rng.normal(0, 5, 10), 3) + rng.normal(0, 0.02, 30)
    found = response(x, y, groups)
    assert found["slope"] == pytest.approx(slope, abs=0.02)
    assert found["interval"][0] <= found["slope"] <= found["interval"][1] and found["groups"] == 10


def test_single_misread_impacts_do_not_tilt_the_slope():
    commanded = [0.6, 0.7, 0.85] * 10
    measured = list(commanded)
    measured[0], measured[8] = 1.8, 0.0  # one at each end
    assert response(commanded, measured, [""] * 30)["slope"] == pytest.approx(1, abs=1e-9)


def test_a_slope_needs_clips_and_commands():
    with pytest.raises(Unmeasurable, match="6 are needed"):
        response([1, 2], [1, 2], ["a", "b"])
    with pytest.raises(Unmeasurable, match="same value"):
        response([1] * 8, list(range(8)), ["a"] * 8)


def test_the_simulator_answers_interventions_with_slope_one():
    made = intervened_clips(ToyboxConfig(split="test"), 5)
    assert len(made) == 5 * 6
    rows = [measure(item, TASK) for item in real_items(made)]
    assert CORPUS["gravity_response"](Corpus(rows)).value == pytest.approx(1, abs=0.03)
    assert CORPUS["restitution_response"](Corpus(rows)).value == pytest.approx(1, abs=0.05)
    assert CORPUS["material_response"](Corpus(rows)).value > 0.9
    assert CORPUS["pan_response"](Corpus(rows)).value == pytest.approx(1, abs=0.1)


def test_an_empty_corpus_has_reasons_only():
    nothing = [Outcome("a", "a", None, "", {})]
    for name, metric in CORPUS.items():
        value = metric(Corpus(nothing, nothing))
        assert not value.measured and value.reason, name
