"""The order of samples: exact, proportional, independent of how it is asked for."""

import numpy as np
import pytest

from sora2.data import DataError
from sora2.data.order import SampleOrder, Stream, uniform


def stream(name: str, bucket: str, n: int, weight: float, dataset: int = 0) -> Stream:
    return Stream(name, dataset, bucket, np.arange(n), np.arange(n) // 10, weight)


def draw(order: SampleOrder, batches: int, start: int = 0) -> list[tuple[int, int]]:
    return [row for k in range(batches) for row in order.plan(start + k * order.batch)]


def test_every_epoch_visits_every_sample_once_in_a_new_order():
    rows = draw(SampleOrder([stream("a", "x", 96, 1.0)], batch=8, seed=3), 24)
    first, second = [s for _, s in rows[:96]], [s for _, s in rows[96:]]
    assert sorted(first) == sorted(second) == list(range(96))
    assert first != second


@pytest.mark.parametrize("at", [0, 8, 40, 808])
def test_a_plan_depends_on_the_position_alone(at):
    streams = [stream("a", "x", 30, 0.5), stream("b", "x", 50, 0.2, 1), stream("c", "y", 20, 0.3, 1)]
    walked = SampleOrder(streams, batch=8, seed=5)
    draw(walked, at // 8)
    jumped = SampleOrder(streams, batch=8, seed=5)
    jumped.plan(1600)
    assert walked.plan(at) == jumped.plan(at)


def test_one_bucket_gives_the_same_sequence_for_any_batch_size():
    streams = [stream("a", "x", 37, 0.7), stream("b", "x", 11, 0.3, 1)]
    small, large = SampleOrder(streams, 4, seed=1), SampleOrder(streams, 12, seed=1)
    assert draw(small, 60) == draw(large, 20)


def test_several_buckets_refuse_a_position_within_a_batch():
    order = SampleOrder([stream("a", "x", 8, 1.0), stream("b", "y", 8, 1.0)], batch=8, seed=0)
    with pytest.raises(DataError, match="multiple of the global batch 8"):
        order.seek(12)


def test_weights_are_honoured_within_and_across_buckets_at_any_length():
    streams = [
        stream("a", "x", 1000, 0.6),
        stream("b", "x", 10, 0.15, 1),
        stream("c", "y", 500, 0.25, 2),
    ]
    order = SampleOrder(streams, batch=16, seed=2)
    for batches in (20, 100, 400):
        rows = draw(order, batches)
        share = np.bincount([d for d, _ in rows], minlength=3) / len(rows)
        assert np.abs(share - [0.6, 0.15, 0.25]).max() < 3 / batches + 0.005


def test_seeds_give_different_orders():
    rows = [draw(SampleOrder([stream("a", "x", 64, 1.0)], 8, seed), 8) for seed in (0, 1)]
    assert rows[0] != rows[1]


def test_shuffling_stays_within_a_window_of_shards():
    wide = Stream("a", 0, "x", np.arange(1000), np.arange(1000) // 10, 1.0)
    order = SampleOrder([wide], batch=10, seed=0, shuffle_shards=4)
    rows = np.array([s for _, s in draw(order, 100)]).reshape(25, 40) // 10  # 25 windows of 4 shards of 10
    assert all(len(set(window)) == 4 for window in rows.tolist())
    assert len({tuple(sorted(set(w))) for w in rows.tolist()}) == 25


def test_uniform_numbers_belong_to_positions():
    whole = uniform(7, "text", 0, 1000)
    assert (uniform(7, "text", 300, 50) == whole[300:350]).all()
    assert abs(whole.mean() - 0.5) < 0.05
    assert (whole < 0.1).mean() == pytest.approx(0.1, abs=0.03)
    assert not (uniform(7, "audio", 0, 1000) == whole).any()
    assert abs(np.corrcoef(whole[:-1], whole[1:])[0, 1]) < 0.1
