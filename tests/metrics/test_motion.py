import numpy as np
import pytest

from sora2.metrics.matching import match
from sora2.metrics.motion import analyse_motion

FPS, FRAMES, FLOOR = 16.0, 33, 52.0


def bounce(gravity, restitution, height=30.0, drift=18.0):
    """Exact path (T, 2) of a ball between side walls, and its (time, speed before) on the floor."""
    contacts, segments = [], [(0.0, FLOOR - height, 0.0)]  # time, y, upward speed as negative
    while segments[-1][0] < FRAMES / FPS and len(contacts) < 40:
        start, y, v = segments[-1]
        fall = (-v + np.sqrt(v * v + 2 * gravity * (FLOOR - y))) / gravity
        speed = v + gravity * fall
        contacts.append((start + fall, speed))
        segments.append((start + fall, FLOOR, -restitution * speed))
    t = np.arange(FRAMES) / FPS
    k = np.searchsorted([s[0] for s in segments], t, side="right") - 1
    y = np.array([segments[i][1] + segments[i][2] * (s - segments[i][0]) + gravity / 2 * (s - segments[i][0]) ** 2
                  for i, s in zip(k, t, strict=True)])  # fmt: skip
    return np.stack([10 + drift * t, y], axis=1), np.array(contacts)


@pytest.mark.parametrize("gravity", [96.0, 256.0, 576.0])
@pytest.mark.parametrize("noise", [0.03, 0.15])
def test_gravity_of_noisy_paths(gravity, noise):
    errors = []
    for seed in range(8):
        path, _ = bounce(gravity, 0.7, height=28 + seed)
        noisy = path + noise * np.random.default_rng(seed).standard_normal(path.shape)
        errors.append(analyse_motion([noisy], FPS).gravity / gravity - 1)
    assert np.median(np.abs(errors)) < 0.02
    assert abs(np.median(errors)) < 0.01


def test_gravity_is_proportional_to_itself():
    scale = np.array([0.5, 0.75, 1.0, 1.5, 2.0])
    measured = [analyse_motion([bounce(256.0 * s, 0.7)[0]], FPS).gravity for s in scale]
    slope, offset = np.polyfit(256.0 * scale, measured, 1)
    assert slope == pytest.approx(1, abs=0.01) and abs(offset) < 3


def test_contacts_have_times_between_frames():
    path, contacts = bounce(256.0, 0.75)
    noisy = path + 0.05 * np.random.default_rng(0).standard_normal(path.shape)
    found = analyse_motion([noisy], FPS).contacts
    strong = contacts[(contacts[:, 1] > 40) & (contacts[:, 0] < 1.9)]
    rows, columns = match(strong[:, 0], np.array([c.seconds for c in found]), 0.02)
    assert len(rows) == len(strong)
    errors = np.array([found[c].seconds for c in columns]) - strong[rows, 0]
    assert np.abs(errors).max() < 0.005  # a frame lasts 0.0625
    ratios = [-found[c].after[1] / found[c].before[1] for c in columns]
    np.testing.assert_allclose(ratios, 0.75, atol=0.03)


def test_side_walls_are_contacts_too():
    t = np.arange(FRAMES) / FPS
    x = 32 + 26 * (2 * np.abs((t / 1.3 + 0.2) % 1 * 2 - 1) - 1)
    found = analyse_motion([np.stack([x, np.full(FRAMES, FLOOR)], axis=1)], FPS).contacts
    assert [c.axis for c in found] == ["x", "x", "x"]
    np.testing.assert_allclose([c.seconds for c in found], np.array([0.3, 0.8, 1.3]) * 1.3, atol=0.003)


def test_missing_frames_are_bridged():
    path, _ = bounce(256.0, 0.7)
    path[[4, 11, 12, 20]] = np.nan
    assert analyse_motion([path], FPS).gravity == pytest.approx(256, rel=0.02)


def test_balls_share_one_gravity():
    paths = [bounce(256.0, e, height=h)[0] for e, h in ((0.6, 20), (0.7, 26), (0.85, 33))]
    assert analyse_motion(paths, FPS).gravity == pytest.approx(256, rel=0.01)


def test_no_flight_no_gravity():
    assert np.isnan(analyse_motion([], FPS).gravity)
    still = np.tile([[30.0, FLOOR]], (FRAMES, 1))
    motion = analyse_motion([still], FPS)
    assert not motion.contacts and not (motion.gravity_error < 1)
    assert not analyse_motion([still[:1]], FPS).contacts
    assert np.isnan(analyse_motion([np.full((FRAMES, 2), np.nan)], FPS).gravity)
