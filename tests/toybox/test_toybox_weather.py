"""Rain, wind and thunder: what is heard is what is seen, at its time."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scene_checks import check_captions, check_reproducible, check_shapes, check_splits, check_truth

from sora2.toybox import ToyboxError, clip_from_spec, whole_world
from sora2.toybox.camera import CameraMove
from sora2.toybox.layers import Picture
from sora2.toybox.render import compose
from sora2.toybox.scene import get_scene
from sora2.toybox.scenes.weather import _carriers
from sora2.toybox.scenes.weather_picture import LEAVES, SHUTTER_SECONDS, SPLASH_SECONDS
from sora2.toybox.scenes.weather_world import Drops, draw_drops
from sora2.toybox.styles import Look
from sora2.toybox.thunder import add_thunder, thunder_level, thunder_seconds
from sora2.toybox.weather_sound import DROP_HZ, HISS_LEVEL, ROAR_LEVEL, add_drop, rain_hiss, wind_roar

RATE = 16000
CONFIG = whole_world(scenes=("weather",))
PLAIN = {"light": "day", "camera": "static", "pacing": "normal", "ambience_level": "normal"}
CALM = {"rain": "none", "wind": "calm", "thunder": "none", "style": "cartoon"}


def first_sound(audio, threshold=1e-4):
    return int(np.flatnonzero(np.abs(audio).max(0) > threshold)[0])


@pytest.mark.parametrize("metres", [60.0, 140.0, 400.0])
def test_thunder_begins_at_its_sample(metres):
    onset = thunder_seconds(0.2, metres)
    assert onset == pytest.approx(0.2 + metres / 340)
    for seed in range(5):
        audio = np.zeros((2, 2 * RATE), np.float32)
        add_thunder(audio, np.random.default_rng(seed), onset, metres, -0.3, RATE)
        assert abs(first_sound(audio) - onset * RATE) <= 1
        assert np.abs(audio).max() < 1.5


def test_thunder_is_the_same_whatever_is_kept_of_it():
    long, short = np.zeros((2, 4 * RATE), np.float32), np.zeros((2, RATE), np.float32)
    for audio in (long, short):
        add_thunder(audio, np.random.default_rng(3), 0.4, 100.0, 0.0, RATE)
    np.testing.assert_array_equal(long[:, :RATE], short)
    assert np.abs(long[:, -RATE // 2 :]).max() == 0


def test_near_thunder_is_louder_and_brighter():
    def sound(metres):
        audio = np.zeros((1, 2 * RATE), np.float32)
        add_thunder(audio, np.random.default_rng(1), 0.1, metres, 0.0, RATE)
        power = np.abs(np.fft.rfft(audio[0])) ** 2
        return (power * np.fft.rfftfreq(2 * RATE, 1 / RATE)).sum() / power.sum()

    assert thunder_level(60) > thunder_level(140) > thunder_level(400)
    assert sound(60) > 1.5 * sound(400)


@pytest.mark.parametrize("frequency", DROP_HZ)
def test_a_drop_begins_at_its_sample(frequency):
    for onset in (0.1, 0.25003, 0.37119):
        audio = np.zeros((2, RATE), np.float32)
        add_drop(audio, onset, frequency, 0.1, 0.5, RATE)
        assert abs(first_sound(audio) - onset * RATE) <= 1
        assert audio[1].max() > audio[0].max()


@pytest.mark.parametrize("intensity", [0.25, 1.0])
def test_the_hiss_follows_the_intensity(intensity):
    hiss = rain_hiss(np.random.default_rng(0), intensity, 2, 2 * RATE, RATE)
    assert np.sqrt((hiss**2).mean()) == pytest.approx(HISS_LEVEL * intensity, rel=0.01)


def test_the_roar_follows_the_gust():
    gust = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(4 * RATE) / RATE)
    roar = wind_roar(np.random.default_rng(0), gust, 2, 4 * RATE, RATE)
    loud = np.sqrt((roar**2).mean(0).reshape(-1, RATE // 8).mean(1))
    wanted = ROAR_LEVEL * np.sqrt((gust**2).reshape(-1, RATE // 8).mean(1))
    assert np.corrcoef(loud, wanted)[0, 1] > 0.9
    assert loud.mean() == pytest.approx(wanted.mean(), rel=0.1)


def weather(config=CONFIG, index=0, **spec):
    return clip_from_spec(config, index=index, **(PLAIN | spec))


def world_of(config=CONFIG, index=0, **spec):
    """(scene, parameters, world)."""
    scene = get_scene("weather")
    parameters = scene.sample(config, index, PLAIN | spec)
    return scene, parameters, scene.simulate(config, parameters)


def filmed(config, parameters, world, keep=lambda layer: True):
    """(T, H, W, 3) of the layers that `keep` says, in the cartoon style."""
    picture = get_scene("weather").picture(config, parameters, world, config.frame_seconds)
    frames = np.empty((config.frames, config.height, config.width, 3), np.uint8)
    camera = CameraMove().at(config, config.frame_seconds)
    layers = [layer for layer in picture.layers if keep(layer)]
    compose(config, Look("cartoon"), camera, Picture(picture.backdrop, layers), frames)
    return frames.astype(int)


def test_the_scene_keeps_its_promises():
    check_reproducible("weather")
    check_truth("weather")
    check_captions("weather")
    check_splits("weather", _carriers)
    check_shapes("weather")


@pytest.mark.parametrize("thunder", ["near", "far"])
def test_thunder_comes_after_the_flash_by_the_speed_of_sound(thunder):
    clip = weather(thunder=thunder, rain="none", wind="calm", flash_seconds=0.3, style="cartoon")
    truth = clip.meta["truth"]
    (strike,) = truth["lightning"]
    (event,) = truth["events"]
    assert event["kind"] == "thunder" and event["flash_seconds"] == 0.3
    assert event["onset_seconds"] - 0.3 == pytest.approx(strike["distance_metres"] / 340, abs=1e-12)

    shown = clip.video.float().mean((1, 2, 3)).numpy()
    frame = math.ceil(0.3 * 16)
    assert (
        np.ptp(shown[:frame]) < 2 and shown[frame] > shown[:frame].max() + 4
    )  # the flash is seen at its time
    assert shown[frame] == shown.max()

    scene, parameters, world = world_of(thunder=thunder, rain="none", wind="calm", flash_seconds=0.3)
    still = replace(world, strikes=())
    with_thunder, without = (
        scene.sound(CONFIG, parameters, each, np.random.default_rng(5)) for each in (world, still)
    )
    assert abs(first_sound(with_thunder - without) - event["onset_seconds"] * RATE) <= 1


def test_near_drops_tick_at_the_sample_they_land():
    scene, parameters, world = world_of(rain="light", wind="calm", thunder="none")
    dry = replace(world, near=draw_drops(np.random.default_rng(0), 0.0, (0, 1), 0.0, (0, 1), 1.0))
    dry = replace(dry, near_hz=world.near_hz[:0])
    rain, hiss = (scene.sound(CONFIG, parameters, each, np.random.default_rng(5)) for each in (world, dry))
    ticks = rain.astype(float) - hiss
    events = scene.truth(CONFIG, parameters, world)["events"]
    assert len(events) > 4 and {event["kind"] for event in events} == {"drop"}
    heard_until = 0.0
    for event in events:
        onset = event["onset_seconds"]
        if onset > heard_until + 0.12:  # the last one has died away
            start = math.ceil(heard_until * RATE) + round(0.12 * RATE)
            assert abs(start + first_sound(ticks[:, start:], 2e-4) - onset * RATE) <= 1
        heard_until = onset


def test_a_drop_is_seen_where_it_falls_and_lands():
    config = CONFIG
    for camera_free_x, landing in ((0.3, 0.7), (0.62, 1.03), (0.8, 1.5)):
        _, parameters, world = world_of(rain="light", wind="breeze", thunder="none")
        drop = Drops(np.array([landing]), np.array([camera_free_x]), np.array([0.9]), np.array([2.3]), 0.15)
        none = Drops(*(np.zeros(0) for _ in range(4)), 0.15)
        one = replace(world, near=drop, near_hz=np.array([1900.0]), far=none)
        change = np.abs(
            filmed(config, parameters, one) - filmed(config, parameters, replace(one, near=none))
        ).max(-1)
        falling = 0
        for frame, seconds in enumerate(config.frame_seconds):
            rows, columns = np.nonzero(change[frame] > 12)
            left = landing - seconds
            y = 0.9 - 2.3 * left
            if left > 0 and y - 0.1 > 0:
                x = camera_free_x - 0.15 * 2.3 * left
                tail = SHUTTER_SECONDS * 2.3
                weight = change[frame][rows, columns]
                assert abs(np.average(rows, weights=weight) - ((y - tail / 2) * 64 - 0.5)) < 0.5
                assert abs(np.average(columns, weights=weight) - ((x - 0.15 * tail / 2) * 64 - 0.5)) < 0.5
                falling += 1
            elif -SPLASH_SECONDS / 2 < left <= 0:
                assert abs(columns.mean() - (camera_free_x * 64 - 0.5)) < 0.75
                assert abs(rows.mean() - (0.9 * 64 - 0.5)) < 0.75
            elif left < -SPLASH_SECONDS:
                assert rows.size == 0
        assert falling >= 4


def test_trees_sway_with_the_gust():
    """A crown is where the truth says, and its lean follows the wind that is heard."""
    config = whole_world(scenes=("weather",), frames=64)
    _, parameters, world = world_of(config, rain="none", wind="storm", thunder="none")
    truth = weather(config, rain="none", wind="storm", thunder="none").meta["truth"]
    with_trees = filmed(config, parameters, world)
    for tree, color in zip(truth["trees"], LEAVES, strict=True):
        close = np.abs(with_trees - np.array(color)).max(-1) < 24
        close[:, 50:] = False  # grass
        x = np.array([np.nonzero(mask)[1].mean() for mask in close])
        y = np.array([np.nonzero(mask)[0].mean() for mask in close])
        wanted = np.array(tree["crown_x"]) * 64 - 0.5
        assert np.corrcoef(x, wanted)[0, 1] > 0.995
        assert np.abs((x - x.mean()) - (wanted - wanted.mean())).max() < 1.0
        assert np.corrcoef(y, tree["crown_y"])[0, 1] > 0.95
    lean = np.array(truth["trees"][0]["crown_x"])
    assert np.corrcoef(lean, truth["gust"])[0, 1] > 0.95


def test_the_wind_that_is_heard_is_the_wind_that_is_seen():
    config = whole_world(scenes=("weather",), frames=160, height=16, width=16)
    clip = weather(config, rain="none", wind="storm", thunder="none")
    gust = np.array(clip.meta["truth"]["gust"])
    loud = np.sqrt((clip.audio.numpy() ** 2).mean(0).reshape(160, -1).mean(1))
    smooth = np.ones(4) / 4
    assert np.corrcoef(np.convolve(loud, smooth, "valid"), np.convolve(gust, smooth, "valid"))[0, 1] > 0.85


def test_more_weather_is_louder_and_moves_more():
    def loudness(**spec):
        return float(np.sqrt((weather(**(CALM | spec)).audio.numpy() ** 2).mean()))

    assert loudness(rain="heavy") > 2 * loudness(rain="light") > 2 * loudness()
    assert loudness(wind="storm") > 1.5 * loudness(wind="breeze") > 1.5 * loudness()
    assert loudness(rain="heavy", ambience_level="loud") > 1.5 * loudness(
        rain="heavy", ambience_level="quiet"
    )

    def movement(**spec):
        return weather(**(CALM | spec)).video.float().std(0).mean().item()

    assert movement(rain="heavy") > 1.5 * movement(rain="light")
    assert movement(wind="storm") > 1.5 * movement(wind="breeze")


def test_a_long_clip_has_more_lightning():
    truth = weather(
        whole_world(scenes=("weather",), frames=480, height=16, width=16), thunder="far", rain="light"
    ).meta["truth"]
    assert len(truth["lightning"]) >= 4
    assert np.diff([strike["flash_seconds"] for strike in truth["lightning"]]).min() >= 4


@pytest.mark.parametrize(
    "command, message",
    [
        ({"rain": "frogs"}, "rain='frogs' is unknown: choose from none"),
        ({"wind": "east"}, "wind='east' is unknown"),
        ({"distance_metres": 1.0}, r"distance_metres=1.0 must be in \[10, 3000\]"),
        ({"snow": True}, "unknown attribute 'snow'"),
    ],
)
def test_impossible_commands_are_named(command, message):
    with pytest.raises(ToyboxError, match=message):
        weather(**command)
