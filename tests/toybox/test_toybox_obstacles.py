"""Pegs, ramps and rolling: exact contacts, energy, and a sound that follows the speed."""

import gc
import inspect
import math
from functools import _lru_cache_wrapper

import numpy as np
import pytest

from sora2.toybox import Toybox, ToyboxError, clip_from_spec, get_scene, whole_world
from sora2.toybox.contact_times import NEVER, circle_contact, plane_contact
from sora2.toybox.physics import Box, Disc, Peg, Ramp, simulate
from sora2.toybox.rolling import ROLL_LEVEL
from sora2.toybox.scenes.bounce_parameters import MOST_CONTACTS, world_box

ROOM = Box(0, 0, 1, 1)


def disc(x, y, vx=0.0, vy=0.0, radius=0.08, mass=1.0, restitution=0.7):
    return Disc(x, y, vx, vy, radius=radius, mass=mass, restitution=restitution)


def test_circle_contacts_equal_the_roots_of_the_polynomial():
    rng = np.random.default_rng(0)
    met = 0
    for _ in range(2000):
        x, y, vx, vy, ax, ay = rng.normal(size=6)
        reach = 0.8 * math.hypot(x, y) * rng.random()
        when = circle_contact(x, y, vx, vy, ax, ay, reach)
        a, v, p = np.array([ax, ay]), np.array([vx, vy]), np.array([x, y])
        roots = np.roots([a @ a / 4, v @ a, v @ v + p @ a, 2 * p @ v, p @ p - reach**2])
        real = sorted(r.real for r in roots if abs(r.imag) < 1e-9 and r.real > 0)
        if not real:
            assert when == NEVER
        else:
            met += 1
            assert when == pytest.approx(real[0], rel=1e-6, abs=1e-9)
    assert met > 300


def test_plane_contacts():
    assert plane_contact(1.0, 2.0, 0.0) == 0.5
    assert plane_contact(1.0, -1.0, 0.0) == NEVER
    assert plane_contact(1.0, 1.0, -1.0) == NEVER  # turns back before it arrives
    when = plane_contact(0.3, -0.4, 5.0)
    assert -0.4 * when + 2.5 * when * when == pytest.approx(0.3, rel=1e-12)


def test_a_peg_turns_the_velocity_about_its_normal():
    peg = Peg(0.5, 0.5, 0.05)
    world = simulate([disc(0.45, 0.2, restitution=0.8)], ROOM, 4.0, 0.5, pegs=(peg,))
    hit = world.contacts[0]
    assert hit.kind == "peg"
    t = np.array([hit.seconds - 1e-9, hit.seconds + 1e-9])
    (x, y, vx, vy) = world.at(t)[0]
    n = np.array([x[0] - peg.x, y[0] - peg.y])
    assert np.linalg.norm(n) == pytest.approx(0.13, abs=1e-7)
    n /= np.linalg.norm(n)
    before, after = (np.array([vx[k], vy[k]]) for k in (0, 1))
    assert after @ n == pytest.approx(-0.8 * (before @ n), abs=1e-6)
    tangent = np.array([-n[1], n[0]])
    assert after @ tangent == pytest.approx(before @ tangent, abs=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rolling_down_a_ramp_has_the_slope_s_acceleration(side):
    ramp = Ramp(side, 0.8, 0.4)
    nx, ny = ramp.normal()
    x = 0.3 if side == "left" else 0.7
    # placed on the slope, at rest
    gap = ramp.gap(x, 0.3, ROOM)
    ball = disc(x + nx * (0.08 - gap), 0.3 + ny * (0.08 - gap) - 1e-9)
    world = simulate([ball], ROOM, 4.0, 0.3, ramp=ramp, rolling_friction=0.05)
    rolls = world.rolls()
    assert rolls[0].ground == "ramp"
    slope = 4.0 * 0.4 / math.hypot(0.8, 0.4)
    friction = 0.05 * 4.0 * abs(ny)
    span = rolls[0].stop_seconds - rolls[0].start_seconds
    assert abs(rolls[0].stop_speed - rolls[0].start_speed) / span == pytest.approx(slope - friction, rel=1e-9)
    seconds = np.linspace(rolls[0].start_seconds, rolls[0].stop_seconds, 50)
    px, py, _, _ = world.at(seconds)[0]
    assert np.abs(ramp.gap(px, py, ROOM) - 0.08).max() < 1e-9
    turned = np.diff(world.angles(seconds)[0]) * 0.08
    travelled = np.hypot(np.diff(px), np.diff(py)) * (1 if side == "left" else -1)
    np.testing.assert_allclose(turned, travelled, atol=1e-9)  # it rolls, it does not slip


def test_rolling_friction_stops_a_ball_and_it_stays():
    world = simulate([disc(0.2, 0.92, vx=0.3)], ROOM, 4.0, 5.0, rolling_friction=0.05)
    stop = 0.3 / (0.05 * 4.0)
    (x, _, vx, _) = world.at(np.array([stop - 0.1, stop + 0.1, 4.9]))[0]
    assert vx[0] == pytest.approx(0.02) and vx[1] == vx[2] == 0
    assert x[2] == pytest.approx(0.2 + 0.3 * stop / 2, abs=1e-9)


@pytest.mark.parametrize("split", ["train", "test_physics_ood"])
@pytest.mark.parametrize("obstacles", ["none", "pegs", "ramp"])
def test_energy_never_grows_and_nothing_is_entered(split, obstacles):
    config = whole_world(scenes=("bounce",), split=split, obstacles=(obstacles,))
    scene, box = get_scene("bounce"), world_box(config)
    seconds = np.linspace(0, config.seconds, 400)
    rolled = struck = 0
    for index in range(60):
        parameters = scene.sample(config, index, {})
        world = scene.simulate(config, parameters)
        x, y, vx, vy = world.at(seconds).transpose(1, 0, 2)
        radius = np.array([[b.radius] for b in parameters.balls])
        mass = np.array([[b.mass] for b in parameters.balls])
        energy = (mass * (0.5 * (vx**2 + vy**2) + parameters.gravity_value * (box.bottom - y))).sum(0)
        assert np.diff(energy).max() <= 1e-12 * energy[0]
        gaps = [x - radius, box.right - x - radius, box.bottom - y - radius]
        gaps += [np.hypot(x - peg.x, y - peg.y) - radius - peg.radius for peg in parameters.pegs]
        if parameters.ramp is not None:
            gaps.append(parameters.ramp.gap(x, y, box) - radius)
        assert min(gap.min() for gap in gaps) > -1e-9
        assert len(world.contacts) <= MOST_CONTACTS * config.seconds
        rolled += len(world.rolls())
        struck += sum(contact.kind == obstacles.rstrip("s") for contact in world.contacts)
    assert rolled > 10 and (obstacles == "none" or struck > 20)


def test_rolling_is_heard_as_loud_as_it_is_fast():
    clip = clip_from_spec(
        whole_world(scenes=("bounce",), channels=1, frames=65),
        **{"ambience": "silence", "gravity": "high", "obstacles": "none", "camera": "static"},
        balls=[{"x": 0.2, "y": 0.78, "vx": 1.0, "vy": 0.0, "size": "big", "material": "wood"}],
    )
    truth, rate = clip.meta["truth"], clip.sample_rate
    sound = clip.audio.numpy()[0]
    heard = []
    for roll in truth["rolls"]:
        span = roll["stop_seconds"] - roll["start_seconds"]
        for share in np.arange(0.1, 0.9, 0.2):
            start = roll["start_seconds"] + share * span
            # the ring of an impact would be heard as well
            if any(start - 0.35 < e["onset_seconds"] < start + 0.06 for e in truth["events"]):
                continue
            first = round(start * rate)
            piece = sound[first : first + round(0.06 * rate)]
            speed = roll["start_speed"] + (share + 0.03 / span) * (roll["stop_speed"] - roll["start_speed"])
            heard.append((abs(speed), math.sqrt(np.mean(piece**2))))
    assert len(heard) >= 4
    for speed, level in heard:
        assert level == pytest.approx(ROLL_LEVEL * speed, rel=0.35)


def test_the_narrow_world_neither_rolls_nor_turns():
    truth = clip_from_spec(count=1, gravity="high", y=0.5, vx=0.5).meta["truth"]
    assert truth["rolls"] == [] and truth["pegs"] == [] and truth["ramp"] is None


def test_a_ball_inside_an_obstacle_is_refused():
    with pytest.raises(ToyboxError, match="ball 0 overlaps peg 0"):
        simulate([disc(0.5, 0.5)], ROOM, 4.0, 1.0, pegs=(Peg(0.52, 0.5, 0.03),))
    with pytest.raises(ToyboxError, match="ball 0 starts inside the ramp"):
        simulate([disc(0.15, 0.9)], ROOM, 4.0, 1.0, ramp=Ramp("left", 0.5, 0.3))


def test_memory_does_not_grow_with_the_number_of_clips():
    """Caches are bounded: after many clips of many looks none holds more than its bound."""
    Toybox(whole_world(scenes=("bounce",), frames=3, height=16, width=16)).clips(range(60))
    caches = [o for o in gc.get_objects() if isinstance(o, _lru_cache_wrapper)]
    own = [c for c in caches if getattr(c, "__module__", "").startswith("sora2.toybox")]
    kept = [c for c in own if inspect.signature(c).parameters]  # a singleton keeps one thing
    assert kept and all(c.cache_info().maxsize is not None for c in kept)
