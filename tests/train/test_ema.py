"""The averages have the width they claim, survive a checkpoint, and other widths can be reconstructed."""

import numpy as np
import pytest
import torch

from sora2.errors import UserError
from sora2.train.ema import PowerEMA, exponent, reconstruct


def random_walk(steps=400, size=5):
    generator = torch.Generator().manual_seed(0)
    weights = torch.zeros(size)
    for step in range(1, steps + 1):
        weights = weights + 0.1 * torch.randn(size, generator=generator)
        yield {"w": weights}, 10 * step


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2])
def test_exponent_gives_the_relative_width(sigma):
    gamma = exponent(sigma)
    t = np.linspace(0, 1, 200_001)
    profile = t**gamma / (t**gamma).sum()
    mean = (t * profile).sum()
    assert np.sqrt(((t - mean) ** 2 * profile).sum()) == pytest.approx(sigma, rel=1e-3)


def test_first_update_forgets_the_initial_weights():
    ema = PowerEMA({"w": torch.full((3,), 100.0)}, (0.05,))
    ema.update({"w": torch.ones(3)}, samples_seen=8, step_samples=8)
    assert torch.equal(ema.average()["w"], torch.ones(3))


def test_average_is_the_power_function_mean():
    ema = PowerEMA({"w": torch.zeros(5)}, (0.1,))
    history = list(random_walk())
    for weights, seen in history:
        ema.update(weights, seen, 10)
    gamma = exponent(0.1)
    t = torch.tensor([seen for _, seen in history], dtype=torch.float64)
    # weight of step i: t_i^(gamma+1) - t_(i-1)^(gamma+1), the integral of the profile over the step
    profile = t ** (gamma + 1) - torch.cat([torch.zeros(1), t[:-1]]) ** (gamma + 1)
    expected = sum(p * w["w"].double() for p, (w, _) in zip(profile / profile.sum(), history, strict=True))
    assert torch.allclose(ema.average()["w"].double(), expected, atol=2e-2)


def test_reconstructs_a_width_that_was_not_tracked(tmp_path):
    ema = PowerEMA({"w": torch.zeros(5)}, (0.05, 0.10))
    direct = PowerEMA({"w": torch.zeros(5)}, (0.07,))
    for weights, seen in random_walk():
        ema.update(weights, seen, 10)
        direct.update(weights, seen, 10)
        if seen % 200 == 0:
            ema.save_snapshot(tmp_path, seen)
    error = (reconstruct(tmp_path, 0.07)["w"] - direct.average()["w"]).abs().max()
    difference = (ema.average(1)["w"] - direct.average()["w"]).abs().max()
    assert error < 0.02 * difference


def test_state_round_trip_and_foreign_state():
    ema = PowerEMA({"w": torch.zeros(5)}, (0.05, 0.10))
    for weights, seen in random_walk(20):
        ema.update(weights, seen, 10)
    other = PowerEMA({"w": torch.zeros(5)}, (0.05, 0.10))
    other.load_state_dict(ema.state_dict())
    assert all(torch.equal(a, other.state_dict()[k]) for k, a in ema.state_dict().items())
    with pytest.raises(UserError, match="sigma_rel"):
        PowerEMA({"w": torch.zeros(5)}, (0.05,)).load_state_dict(ema.state_dict())


def test_no_snapshots_is_an_error(tmp_path):
    with pytest.raises(UserError, match="snapshot_every_samples"):
        reconstruct(tmp_path, 0.07)
