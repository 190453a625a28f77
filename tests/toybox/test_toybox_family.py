"""Scenes occlude, cradle and pendulum: what is hidden stays, what swings keeps time and loses energy."""

import math

import numpy as np
import pytest
from scene_checks import check_captions, check_reproducible, check_truth
from scipy.integrate import solve_ivp

from sora2.toybox import GRAVITIES, Toybox, ToyboxError, clip_from_spec, whole_world
from sora2.toybox.pendulums import swing

FAMILY = ("bounce", "occlude", "cradle", "pendulum")


@pytest.mark.parametrize("scene", FAMILY)
def test_promises_of_every_scene(scene):
    check_reproducible(scene)
    check_truth(scene)
    check_captions(scene)


@pytest.mark.parametrize("scene", FAMILY)
def test_held_out_pairs_and_gravities_stay_in_their_splits(scene):
    def truths(split, count=40):
        world = whole_world(scenes=(scene,), split=split, frames=2, height=16, width=16)
        return [clip.meta["truth"] for clip in Toybox(world).clips(range(count))]

    assert all(not t["held_out"] for split in ("train", "validation", "test") for t in truths(split))
    assert all(t["held_out"] for t in truths("test_compositional"))
    assert all(t["gravity_value"] not in GRAVITIES.values() for t in truths("test_physics_ood"))


def first_sound(clip):
    return int(np.flatnonzero(np.abs(clip.audio.numpy()).max(0) > 1e-5)[0])


@pytest.mark.parametrize("scene", ["cradle", "pendulum"])
def test_clicks_are_heard_at_their_sample(scene):
    for index in range(4):
        clip = clip_from_spec(whole_world(scenes=(scene,)), index=index, ambience="silence")
        assert abs(first_sound(clip) - clip.meta["truth"]["events"][0]["onset_seconds"] * 16000) <= 1


def test_the_pendulum_is_the_solution_of_its_equation():
    length, gravity, angle = 0.4, 4.0, 2.2
    world = swing(length, gravity, angle, 1.0, 3.0, passes=True)
    seconds = np.linspace(0, 2.99, 200)
    solved = solve_ivp(
        lambda t, s: [s[1], -gravity / length * math.sin(s[0])],
        (0, 3),
        [angle, 0.0],
        t_eval=seconds,
        rtol=1e-10,
        atol=1e-12,
    )
    got, spin, _ = world.at(seconds)
    np.testing.assert_allclose(got, solved.y[0], atol=1e-6)
    np.testing.assert_allclose(spin, solved.y[1], atol=1e-5)


def test_small_swings_have_the_textbook_period():
    world = swing(0.5, 4.0, 0.01, 1.0, 10.0, passes=True)
    clicks = [seconds for seconds, _, _ in world.clicks]
    assert np.diff(clicks) == pytest.approx(math.pi * math.sqrt(0.5 / 4.0), rel=1e-4)


@pytest.mark.parametrize("scene", ["cradle", "pendulum"])
def test_energy_falls_at_clicks_alone(scene):
    truth = clip_from_spec(whole_world(scenes=(scene,), frames=96, fps=24), index=2).meta["truth"]
    energy, seconds = np.array(truth["energy_per_mass"]), np.arange(96) / 24
    swings = np.searchsorted([e["onset_seconds"] for e in truth["events"]], seconds)
    assert len(truth["events"]) >= 3
    for k in range(swings.max() + 1):
        own = energy[swings == k]
        assert own.size == 0 or np.ptp(own) < 1e-5
        if k and own.size:
            share = own[0] / energy[swings == k - 1][-1]
            assert share == pytest.approx(truth["restitution"] ** 2, rel=1e-3)
    speeds = [event["speed"] for event in truth["events"]]
    assert speeds == sorted(speeds, reverse=True)


def test_as_many_balls_leave_a_cradle_as_arrive():
    world = whole_world(scenes=("cradle",), frames=65)
    truth = clip_from_spec(world, count=5, raised=2, length=0.3, angle=0.3).meta["truth"]
    angles = np.array([ball["angle"] for ball in truth["balls"]])
    assert set((np.abs(angles) > 1e-9).sum(axis=0)) <= {0, 2}
    assert (angles[:2] <= 0).all() and (angles[3:] >= 0).all() and (angles[2] == 0).all()
    x = np.array([ball["x"] for ball in truth["balls"]])
    assert np.diff(x, axis=0).min() > 2 * truth["balls"][0]["radius"] - 1e-6  # none enters another


@pytest.mark.parametrize("motion", ["roll", "hop"])
@pytest.mark.parametrize("direction", [-1, 1])
def test_the_hidden_ball_disappears_wholly_is_heard_and_comes_back(motion, direction):
    world = whole_world(scenes=("occlude",))
    for index in range(6):
        clip = clip_from_spec(
            world, index=index, motion=motion, direction=direction, ambience="silence", camera="static"
        )
        ball = clip.meta["truth"]["balls"][0]
        shown = np.array(ball["visibility"])
        assert shown[0] == 1
        hidden = np.flatnonzero(shown == 0)
        assert hidden.size
        assert shown[hidden[-1] :].max() == 1 or shown[hidden[0] :].max() == 1  # and back
        x = np.array(ball["x"])
        assert np.abs(np.diff(x)).max() < 3.0 / 16  # no jumps
        first, last = (int(k / 16 * 16000) for k in (hidden[0], hidden[-1]))
        sounding = any(
            hidden[0] / 16 - 0.3 < e["onset_seconds"] < hidden[-1] / 16 for e in clip.meta["truth"]["events"]
        ) or any(
            r["start_seconds"] < hidden[-1] / 16 and r["stop_seconds"] > hidden[0] / 16
            for r in clip.meta["truth"]["rolls"]
        )
        if sounding:
            assert clip.audio[:, first : last + 1].abs().max() > 1e-4


def test_what_is_hidden_is_not_seen():
    world = whole_world(scenes=("occlude",))
    spec = {"camera": "static", "style": "cartoon", "light": "day", "color": "blue", "background": "plain"}
    clip = clip_from_spec(world, index=1, **spec)
    blue = (clip.video[..., 2].int() - clip.video[..., 0].int()).amax(dim=(1, 2)).numpy()
    shown = np.array(clip.meta["truth"]["balls"][0]["visibility"])
    assert (blue[shown == 0] < 40).all() and (blue[shown > 0.5] > 100).all()
    area = (clip.video[..., 2].int() - clip.video[..., 0].int() > 60).sum(dim=(1, 2)).numpy()
    whole = area[shown == 1].mean()
    np.testing.assert_allclose(area / whole, shown, atol=0.13)


@pytest.mark.parametrize(
    "scene, spec, message",
    [
        ("cradle", {"count": 9}, r"count=9 must be in \[2, 7\]"),
        ("cradle", {"raised": 5, "count": 5}, r"raised=5 must be in \[1, 4\]"),
        ("pendulum", {"length": 3.0}, r"length=3.0 must be in \[0.1, 0.65\]"),
        ("pendulum", {"colour": "red"}, "unknown attribute 'colour': choose from style"),
        ("occlude", {"motion": "fly"}, "motion='fly' is unknown: choose from roll, hop"),
        ("occlude", {"gravity": "none"}, "gravity='none' is unknown"),
    ],
)
def test_errors_name_the_parameter(scene, spec, message):
    with pytest.raises(ToyboxError, match=message):
        clip_from_spec(whole_world(scenes=(scene,)), **spec)
