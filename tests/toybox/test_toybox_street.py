"""Passing vehicles: retarded time, Doppler ratio, level, picture, captions."""

import numpy as np
import pytest
from scene_checks import (
    check_captions,
    check_reproducible,
    check_shapes,
    check_splits,
    check_truth,
    seen_at,
)

from sora2.toybox import Toybox, ToyboxError, clip_from_spec, whole_world
from sora2.toybox.doppler import SPEED_OF_SOUND, PassBy
from sora2.toybox.engine import ENGINES
from sora2.toybox.scenes.street import _carriers
from sora2.toybox.scenes.street_sound import add_vehicle
from sora2.toybox.scenes.street_traffic import DIRECTIONS, LANES, Vehicle

RATE = 16000
CONFIG = whole_world(scenes=("street",))
PLAIN = {"light": "day", "camera": "static", "pacing": "normal", "ambience_level": "normal"}


@pytest.mark.parametrize("speed", [-40.0, -10.0, 0.0, 12.0, 60.0])
def test_retarded_time_solves_the_wave_equation(speed):
    line = PassBy(1.0, 10.7, speed)
    heard = np.linspace(-1, 3, 101)
    emitted = line.emitted_seconds(heard)
    np.testing.assert_allclose(heard - emitted, line.distance(emitted) / SPEED_OF_SOUND, atol=1e-12)
    np.testing.assert_allclose(line.heard_seconds(emitted), heard, atol=1e-12)
    step = 1e-5
    slope = (line.emitted_seconds(heard + step) - line.emitted_seconds(heard - step)) / (2 * step)
    np.testing.assert_allclose(line.pitch_ratio(heard), slope, rtol=1e-8)
    before, after = line.pitch_ratio(np.array([-1e5, 1e5]))
    np.testing.assert_allclose([before, after], line.pitch_ratios, rtol=1e-6)


def test_the_pitch_passes_through_one_when_the_sound_of_the_nearest_point_is_heard():
    line = PassBy(1.0, 20.0, 25.0)
    assert line.pitch_ratio(line.heard_seconds(1.0)) == pytest.approx(1.0, abs=1e-12)


def test_a_line_through_the_listener_is_refused():
    with pytest.raises(ToyboxError, match="closest_metres"):
        PassBy(0.0, 0.0, 10.0)


def street(config=CONFIG, index=0, **spec):
    return clip_from_spec(config, index=index, **(PLAIN | spec))


def test_the_scene_keeps_its_promises():
    check_reproducible("street")
    check_truth("street")
    check_captions("street")
    check_splits("street", lambda parameters: _carriers(parameters))
    check_shapes("street")


def harmonic_pitch(wave, fundamental, harmonics=16):
    """Hz near `fundamental` whose harmonics have the most energy in `wave`."""
    size = 1 << 18
    power = np.abs(np.fft.rfft(wave * np.hanning(wave.size), size)) ** 2
    candidates = fundamental * np.linspace(0.85, 1.15, 3001)
    bins = candidates[:, None] * np.arange(2, harmonics + 1) * size / RATE
    return candidates[np.argmax(power[np.round(bins).astype(int)].sum(1))]


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("pacing", ["normal", "fast"])
def test_the_pitch_is_shifted_by_the_doppler_ratio(kind, pacing):
    """Measured in the finished clip, with tyres and city, before and after the pass: right to 0.5 %."""
    config = whole_world(scenes=("street",), frames=64)
    clip = street(
        config, count=1, kind=kind, pacing=pacing, lane="near", closest_seconds=2.0, horn_seconds=None
    )
    truth = clip.meta["truth"]["vehicles"][0]
    ratios = np.array(truth["pitch_ratio"])
    found = {}
    for name, first in (("before", 0.4), ("after", 3.2)):
        wave = clip.audio.numpy().astype(float).sum(0)[round(first * RATE) : round((first + 0.4) * RATE)]
        found[name] = harmonic_pitch(wave, truth["engine_hz"]) / truth["engine_hz"]
        middle = ratios[round((first + 0.2) * 16)]
        assert found[name] == pytest.approx(middle, rel=0.005)
        assert middle == pytest.approx(truth[f"pitch_ratio_{name}"], rel=0.02)
    assert found["before"] > 1.02 and found["after"] < 0.98


def test_level_and_pan_follow_the_line():
    """1/r level and pan of an engine alone, both at the retarded time."""
    vehicle = Vehicle("car", "red", "near", "right", 20.0, 1.0)
    audio = np.zeros((2, 2 * RATE), np.float32)
    add_vehicle(audio, vehicle, np.zeros(RATE + 1, np.float32), 1.0, RATE)
    line = vehicle.pass_by()
    loud = np.sqrt((audio.astype(float) ** 2).reshape(2, -1, RATE // 10).mean(2))
    middle = (np.arange(loud.shape[1]) + 0.5) / 10
    emitted = line.emitted_seconds(middle)
    total = np.hypot(*loud) * line.distance(emitted)
    assert total.std() / total.mean() < 0.06
    pan = np.arctan2(loud[1], loud[0]) * 4 / np.pi - 1
    wanted = np.clip(2 * vehicle.picture_x(line.along(emitted), 0.5) - 1, -1, 1)
    assert np.abs(pan - wanted).max() < 0.12


def test_the_horn_begins_at_its_sample_and_its_pitch():
    vehicle = Vehicle("car", "red", "near", "left", 25.0, 1.0, horn_seconds=0.6)
    with_horn, without = np.zeros((2, 2, 2 * RATE), np.float32)
    silent = np.zeros(RATE + 1, np.float32)
    add_vehicle(with_horn, vehicle, silent, 1.0, RATE)
    add_vehicle(without, Vehicle("car", "red", "near", "left", 25.0, 1.0), silent, 1.0, RATE)
    line = vehicle.pass_by()
    difference = np.abs(with_horn - without).max(0)
    onset = line.heard_seconds(0.6)
    assert abs(int(np.flatnonzero(difference > 1e-5)[0]) - onset * RATE) <= 1
    horn = (with_horn - without).astype(float).sum(0)[round(onset * RATE) :][:2400]
    power = np.abs(np.fft.rfft(horn * np.hanning(horn.size), 1 << 16))
    low = ENGINES["car"].horn_hz[0]
    band = slice(round((low - 40) * (1 << 16) / RATE), round((low + 70) * (1 << 16) / RATE))
    found = (band.start + np.argmax(power[band])) * RATE / (1 << 16)
    assert found == pytest.approx(low * line.pitch_ratio(onset + 0.075), rel=0.005)


@pytest.mark.parametrize("style", ["cartoon", "cinematic"])
@pytest.mark.parametrize("camera", ["static", "pan", "zoom"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_car_is_seen_where_the_truth_says(style, camera, direction):
    """The middle of its red body, where it lies wholly in the picture, to half a pixel."""
    clip = street(
        vehicles=[
            {"kind": "car", "color": "red", "lane": "near", "direction": direction, "horn_seconds": None}
        ],
        style=style,
        camera=camera,
    )
    truth = clip.meta["truth"]
    vehicle = truth["vehicles"][0]
    seen = 0
    for frame, picture in enumerate(clip.video.numpy().astype(int)):
        scale = truth["camera"]["zoom"][frame] * 64
        column, row = seen_at(truth, frame, vehicle["x"][frame], vehicle["ground"] - 0.05)
        half = vehicle["length"] / 2 * scale
        if not half + 2 < column < 61 - half:
            continue
        body = picture[round(row) - 1 : round(row) + 2]
        columns = np.flatnonzero(((body[..., 0] - body[..., 1] > 40) & (body[..., 2] < 120)).any(0))
        assert abs((columns.min() + columns.max()) / 2 - column) <= 0.75
        assert columns.max() - columns.min() + 1 == pytest.approx(2 * half, abs=3)
        seen += 1
    assert seen >= 3


def test_a_vehicle_is_centred_to_half_a_pixel():
    """The picture with the vehicle, less the one without, has its middle at the truth's place."""
    with_car = street(
        count=1, kind="truck", lane="near", direction="right", style="cartoon", horn_seconds=None
    )
    without = street(
        count=1, kind="truck", lane="near", direction="right", style="cartoon", closest_seconds=60.0
    )
    vehicle = with_car.meta["truth"]["vehicles"][0]
    change = np.abs(with_car.video.numpy().astype(int) - without.video.numpy().astype(int)).max(-1)
    checked = 0
    for frame, x in enumerate(vehicle["x"]):
        columns = np.flatnonzero((change[frame] > 40).any(0))
        if columns.size == 0 or columns[0] < 2 or columns[-1] > 61:
            continue
        assert abs((columns[0] + columns[-1]) / 2 - (x * 64 - 0.5)) <= 0.5
        checked += 1
    assert checked >= 2


def test_a_long_clip_goes_on():
    """Vehicles of one lane follow each other at one speed and never overlap."""
    clip = street(whole_world(scenes=("street",), frames=400, height=16, width=16), count=2)
    vehicles = clip.meta["truth"]["vehicles"]
    assert len(vehicles) >= 8
    for lane in LANES:
        own = [v for v in vehicles if v["lane"] == lane]
        assert len({(v["speed"], v["direction"]) for v in own}) == 1
        gaps = np.diff(sorted(v["closest_seconds"] for v in own)) * own[0]["speed"]
        assert gaps.min() > 8


def test_physics_ood_leaves_the_training_range():
    def speeds(split):
        box = Toybox(whole_world(scenes=("street",), split=split, frames=1, height=16, width=16))
        return {v["speed"] for clip in box.clips(range(40)) for v in clip.meta["truth"]["vehicles"]}

    train, outside = speeds("train"), speeds("test_physics_ood")
    assert all(speed < min(train) or speed > max(train) for speed in outside)


@pytest.mark.parametrize(
    "command, message",
    [
        ({"kind": "tram"}, "vehicle 0 kind='tram' is unknown: choose from car"),
        ({"speed": 400.0}, r"vehicle 0 speed=400.0 must be in \[1, 100\]"),
        ({"count": 3}, r"count=3 must be in \[1, 2\]"),
        ({"vehicles": [{"lane": "far"}, {"lane": "far"}]}, "lane='far' of both vehicles"),
        ({"vehicles": [{"wheels": 3}]}, "attribute of vehicle 0='wheels' is unknown"),
        ({"weather": "x"}, "unknown attribute 'weather'"),
    ],
)
def test_impossible_commands_are_named(command, message):
    with pytest.raises(ToyboxError, match=message):
        street(**command)
