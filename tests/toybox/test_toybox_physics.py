"""The world obeys its laws: parabolas, collisions that keep momentum and lose energy, rest."""

import math

import numpy as np
import pytest

from sora2.toybox import SPLITS, ToyboxConfig, ToyboxError, clip_from_spec, get_scene
from sora2.toybox.physics import Box, Disc, simulate
from sora2.toybox.scenes.bounce_parameters import world_box

HUGE = Box(-1e3, -1e3, 1e3, 1e3)


def disc(x, y, vx=0.0, vy=0.0, radius=0.1, mass=1.0, restitution=0.7):
    return Disc(x, y, vx, vy, radius=radius, mass=mass, restitution=restitution)


@pytest.mark.parametrize("gravity", ["low", "normal", "high"])
def test_free_fall_matches_gravity(gravity):
    truth = clip_from_spec(gravity=gravity, count=1, x=0.5, y=0.13, vx=0.0, vy=0.0).meta["truth"]
    first = truth["events"][0]["onset_seconds"]
    seconds = np.arange(truth["frames"]) / truth["fps"]
    flight = seconds < first
    y = np.array(truth["balls"][0]["y"])[flight]
    measured = 2 * np.polyfit(seconds[flight], y, 2)[0]
    assert measured == pytest.approx(truth["gravity_value"], rel=1e-3)
    drop = truth["box"][3] - truth["balls"][0]["radius"] - 0.13
    assert first == pytest.approx(math.sqrt(2 * drop / truth["gravity_value"]), rel=1e-12)


def test_restitution_of_the_floor():
    world = simulate([disc(0.5, 0.3, restitution=0.6)], Box(0, 0, 1, 1), 4.0, 1.5)
    first, second = world.contacts[:2]
    assert second.speed == pytest.approx(0.6 * first.speed, rel=1e-12)
    assert second.seconds - first.seconds == pytest.approx(2 * 0.6 * first.speed / 4.0, rel=1e-9)


@pytest.mark.parametrize("gravity", [0.0, 4.0])
def test_free_collisions_keep_momentum_and_obey_restitution(gravity):
    rng = np.random.default_rng(0)
    collisions = 0
    for _ in range(200):
        e = rng.uniform(0.3, 1.0)
        masses = rng.uniform(0.5, 3.0, 2)
        a = disc(0, 0, *rng.uniform(0.5, 1, 2), mass=masses[0], restitution=e)
        b = disc(0.8, 0.8, *rng.uniform(-1, -0.5, 2), mass=masses[1], restitution=e)
        world = simulate([a, b], HUGE, gravity, 2.0)
        if not world.contacts:
            continue
        collisions += 1
        t = world.contacts[0].seconds
        before, after = world.at(np.array([t - 1e-9])), world.at(np.array([t + 1e-9]))
        momentum = [(masses[:, None] * s[:, 2:, 0]).sum(0) for s in (before, after)]
        np.testing.assert_allclose(momentum[1], momentum[0], atol=1e-6)
        normal = before[1, :2, 0] - before[0, :2, 0]
        assert np.linalg.norm(normal) == pytest.approx(0.2, abs=1e-7)
        closing = [float((s[1, 2:, 0] - s[0, 2:, 0]) @ normal / 0.2) for s in (before, after)]
        assert closing[1] == pytest.approx(-e * closing[0], abs=1e-5)
    assert collisions > 30


@pytest.mark.parametrize("split", [split for split in SPLITS if split != "cameo"])
def test_no_clip_gains_energy_overlaps_or_leaves_the_box(split):
    config, scene = ToyboxConfig(split=split), get_scene("bounce")
    box, seconds = world_box(config), np.linspace(0, config.seconds, 300)
    for index in range(120):
        parameters = scene.sample(config, index, {})
        state = scene.simulate(config, parameters).at(seconds)
        x, y, vx, vy = state.transpose(1, 0, 2)
        radius = np.array([[ball.radius] for ball in parameters.balls])
        mass = np.array([[ball.mass] for ball in parameters.balls])
        energy = (mass * (0.5 * (vx**2 + vy**2) + parameters.gravity_value * (box.bottom - y))).sum(0)
        assert np.diff(energy).max() <= 1e-12 * energy[0]
        assert (x - radius).min() >= -1e-9 and (x + radius).max() <= box.right + 1e-9
        assert (y - radius).min() >= -1e-9 and (y + radius).max() <= box.bottom + 1e-9
        for i in range(len(radius)):
            for j in range(i):
                assert (np.hypot(x[i] - x[j], y[i] - y[j]) - radius[i] - radius[j]).min() > -1e-9


def test_a_bouncing_ball_comes_to_rest():
    world = simulate([disc(0.5, 0.5)], Box(0, 0, 1, 1), 9.0, 30.0)
    assert len(world.contacts) < 20
    _, y, _, vy = world.at(np.array([29.0]))[0, :, 0]
    assert (y, vy) == (0.9, 0.0)


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.05])
def test_a_ball_dropped_on_a_resting_ball_does_not_sink_in(offset):
    discs = [disc(0.5, 0.9, mass=0.3), disc(0.5 + offset, 0.4, mass=3.0)]
    world = simulate(discs, Box(0, 0, 1, 1), 9.0, 3.0)
    state = world.at(np.linspace(0, 3, 3000))
    assert np.hypot(*(state[1, :2] - state[0, :2])).min() > 0.2 - 1e-9
    assert state[:, 1].max() <= 0.9 + 1e-9


def test_impossible_starts_name_the_ball_and_the_range():
    with pytest.raises(ToyboxError, match="larger than the box"):
        clip_from_spec(radius=0.6)
    with pytest.raises(ToyboxError, match=r"ball 0: x=2 must be in \["):
        clip_from_spec(x=2.0)
    with pytest.raises(ToyboxError, match="balls 0 and 1 overlap"):
        clip_from_spec(balls=[{"x": 0.5, "y": 0.4}, {"x": 0.52, "y": 0.4}])
    with pytest.raises(ToyboxError, match="gravity=-1"):
        simulate([disc(0.5, 0.5)], Box(0, 0, 1, 1), -1.0, 1.0)
