import itertools

import numpy as np
import pytest

from sora2.metrics.matching import estimate_lag, f1_score, match


def best_by_hand(first, second, tolerance):
    """(pairs, total distance) of the best one-to-one matching, by trying all."""
    best = (0, 0.0)
    short, long = (first, second) if len(first) <= len(second) else (second, first)
    for order in itertools.permutations(range(len(long)), len(short)):
        distances = [abs(short[i] - long[j]) for i, j in enumerate(order)]
        legal = [d for d in distances if d <= tolerance]
        if len(legal) > best[0] or (len(legal) == best[0] and sum(legal) < best[1]):
            best = (len(legal), sum(legal))
    return best


@pytest.mark.parametrize("seed", range(30))
def test_most_pairs_and_then_the_shortest(seed):
    rng = np.random.default_rng(seed)
    first, second = (np.sort(rng.uniform(0, 1, rng.integers(1, 6))) for _ in range(2))
    rows, columns = match(first, second, 0.15)
    assert len(set(rows)) == len(rows) and len(set(columns)) == len(columns)
    pairs, total = best_by_hand(first, second, 0.15)
    assert len(rows) == pairs
    assert np.abs(first[rows] - second[columns]).sum() == pytest.approx(total)


def test_one_sound_answers_for_one_event_only():
    rows, _ = match(np.array([0.50, 0.52, 0.54]), np.array([0.52]), 0.1)
    assert len(rows) == 1


def test_nothing_matches_nothing():
    assert len(match(np.zeros(0), np.array([1.0]), 0.1)[0]) == 0
    assert f1_score(0, 3, 0, 0) == 0.0
    assert f1_score(3, 0, 0, 0) == 0.0


@pytest.mark.parametrize("lag", [-0.25, -0.1, -0.031, 0.0, 0.02, 0.15, 0.25])
def test_lag_is_found_among_missing_and_false_events(lag):
    rng = np.random.default_rng(3)
    seen = np.array([0.21, 0.48, 0.93, 1.30, 1.52])
    heard = np.concatenate([np.delete(seen, 2) + lag + rng.normal(0, 0.002, 4), [0.56]])
    found = estimate_lag(seen, np.sort(heard))
    assert found.seconds == pytest.approx(lag, abs=0.003)
    assert found.pairs == 4


def test_a_steady_rhythm_takes_the_smaller_lag():
    beat = np.arange(5) * 0.2
    assert estimate_lag(beat, beat + 0.05).seconds == pytest.approx(0.05, abs=1e-3)


def test_no_lag_without_a_pair_in_range():
    assert estimate_lag(np.array([0.1]), np.array([1.5])) is None
    assert estimate_lag(np.zeros(0), np.array([1.5])) is None
