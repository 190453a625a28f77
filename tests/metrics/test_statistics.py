import numpy as np
import pytest

from sora2.metrics.statistics import clustered_bootstrap


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(120):
        prompts = np.repeat(np.arange(30), 4)
        values = rng.normal(0, 1, 30)[prompts] + rng.normal(0, 0.3, 120)
        interval = clustered_bootstrap(values, prompts.tolist(), draws=200, seed=trial)
        covered += interval.low <= 0 <= interval.high
    assert 0.88 <= covered / 120 <= 0.99


def test_copies_of_a_clip_are_no_new_evidence():
    values = np.random.default_rng(1).normal(0, 1, 40)
    once = clustered_bootstrap(values, list(range(40)))
    copied = clustered_bootstrap(np.repeat(values, 5), np.repeat(np.arange(40), 5).tolist())
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.15)
    assert (copied.samples, copied.clusters) == (200, 40)


def test_nothing_and_one_prompt():
    empty = clustered_bootstrap([], [])
    assert np.isnan(empty.estimate) and empty.samples == 0
    single = clustered_bootstrap([1.0, 3.0], ["a", "a"])
    assert single.estimate == 2.0 and np.isnan(single.low)


def test_same_seed_same_interval():
    values = np.random.default_rng(2).normal(size=25)
    assert clustered_bootstrap(values, list(range(25))) == clustered_bootstrap(values, list(range(25)))
