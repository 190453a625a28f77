import cv2
import numpy as np
import pytest
import torch

from sora2.metrics.illumination import under_white_light
from sora2.metrics.registry import all_metrics
from sora2.metrics.tracking import find_balls
from sora2.toybox import Toybox, clip_from_spec, whole_world, world_to_pixel


def metric(name):
    return all_metrics()[name]


def deviation(track, ball, side):
    """Root mean square distance in pixels from the true path, once a constant offset (the highlight) is taken out."""
    true = world_to_pixel(np.stack([ball["x"], ball["y"]], axis=1), side)
    error = track.xy - true
    return float(np.sqrt(((error - np.median(error, axis=0)) ** 2).sum(axis=1).mean()))


def test_every_ball_is_followed_to_a_fraction_of_a_pixel(clips, evidences):
    deviations = []
    for clip, evidence in zip(clips, evidences, strict=True):
        balls = clip.meta["truth"]["balls"]
        assert sorted(t.color for t in evidence.tracks) == sorted(b["color"] for b in balls)
        for ball in balls:
            track = next(t for t in evidence.tracks if t.color == ball["color"])
            assert track.presence == 1.0
            deviations.append(deviation(track, ball, 64))
    assert np.median(deviations) < 0.08
    assert max(deviations) < 0.4


@pytest.mark.parametrize(
    "damage",
    {
        "blur": lambda v: np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in v]),
        "grain": lambda v: v + np.random.default_rng(0).normal(0, 12, v.shape),
        "pale": lambda v: 0.6 * v + 0.4 * v.mean(axis=-1, keepdims=True),
        "dark": lambda v: 0.6 * v,
    }.items(),
    ids=lambda item: item[0],
)
def test_damaged_pictures_still_show_their_balls(clips, damage):
    right = 0
    for clip in clips[:12]:
        video = np.clip(damage[1](clip.video.numpy().astype(np.float32)), 0, 255).astype(np.uint8)
        tracks = find_balls(video)
        balls = clip.meta["truth"]["balls"]
        if sorted(t.color for t in tracks) == sorted(b["color"] for b in balls):
            worst = max(deviation(next(t for t in tracks if t.color == b["color"]), b, 64) for b in balls)
            right += worst < 1.0
    assert right >= 11


def test_two_balls_of_one_colour_are_two(clips):
    clip = clip_from_spec(
        balls=[
            {"color": "green", "x": 0.2, "y": 0.3, "vx": 0.1, "vy": 0.0, "size": "small"},
            {"color": "green", "x": 0.8, "y": 0.4, "vx": -0.1, "vy": 0.0, "size": "small"},
        ]
    )
    tracks = find_balls(clip.video.numpy())
    assert [t.color for t in tracks] == ["green", "green"]
    assert max(min(deviation(t, b, 64) for t in tracks) for b in clip.meta["truth"]["balls"]) < 0.3


def test_no_ball_no_track():
    rng = np.random.default_rng(0)
    assert find_balls(np.full((9, 64, 64, 3), 128, np.uint8)) == []
    assert find_balls(rng.integers(0, 256, (17, 64, 64, 3), dtype=np.uint8)) == []
    assert find_balls(np.zeros((1, 64, 64, 3), np.uint8)) == []


def test_a_ball_that_lies_still_is_seen():
    clip = clip_from_spec(count=1, color="blue", material="metal", style="cartoon", background="plain")
    still = clip.video[:1].expand_as(clip.video).numpy()
    (track,) = find_balls(still)
    assert track.color == "blue" and track.presence == 1.0 and track.travel() < 0.1


@pytest.mark.parametrize("style", ["cartoon", "painterly", "cinematic"])
@pytest.mark.parametrize("light", ["dusk", "lamp"])
def test_balls_keep_their_colour_in_any_light(style, light):
    config = whole_world(
        scenes=("bounce", "pendulum"), styles=(style,), lights=(light,), height=64, width=64, split="train"
    )
    for clip in Toybox(config).clips(range(4)):
        assert metric("permanence")(clip).value == 1.0
        assert metric("position_error")(clip).value < 5  # under whatever camera: percent of the picture


def test_daylight_and_grey_pictures_are_left_alone(clips):
    for clip in clips[:8]:
        video = clip.video.numpy()
        assert under_white_light(video) is video
    grey = np.full((9, 32, 32, 3), 90, np.uint8)
    assert under_white_light(grey) is grey


def made(**changes):
    """A clip of the whole world with one setting of each control that is not given."""
    fixed = {"styles": ("cartoon",), "cameras": ("static",), "lights": ("day",), "obstacles": ("none",)}
    return Toybox(whole_world(split="train", **{"scenes": ("bounce",), **fixed, **changes})).clips([1])[0]


@pytest.mark.parametrize(
    ("changes", "balls", "shapes", "flights"),
    [
        ({}, True, True, True),
        ({"scenes": ("occlude",)}, True, False, False),  # the screen cuts them
        ({"cameras": ("pan",)}, True, True, False),  # paths in the picture are not those of physics
        ({"cameras": ("zoom",)}, True, False, False),
        ({"scenes": ("pendulum",)}, True, True, False),  # balls on strings do not fall
        ({"scenes": ("cradle",)}, False, False, False),  # balls that touch are one patch
        ({"styles": ("pencil",)}, False, False, False),  # a thin wash of colour
        ({"scenes": ("street",)}, False, False, False),
    ],
)
def test_physics_is_asked_where_it_can_be_seen(changes, balls, shapes, flights):
    """Real clips are never wrong: what cannot be read is not asked, whatever the clip shows."""
    clip = made(**changes)
    for name in ("permanence", "position_error", "continuity", "tracked_color"):
        assert (metric(name)(clip) is not None) == balls, name
    assert (metric("shape_drift")(clip) is not None) == shapes
    for name in (
        "gravity_error",
        "flight_gravity_error",
        "restitution_error",
        "energy_gain",
        "gravity_ratio",
    ):
        assert (metric(name)(clip) is not None) == flights, name
    if not changes:
        assert metric("gravity_error")(clip).value < 10


def test_a_hidden_ball_is_not_asked_where_it_is():
    """It may come out anywhere behind the wall; where it is seen it must be right."""
    clip = made(scenes=("occlude",))
    hidden = ~np.array(clip.meta["truth"]["balls"][0]["visible"])
    assert hidden.any() and not hidden.all()
    assert metric("position_error")(clip).value < 5
    assert metric("position_error")(clip.replace(video=torch.zeros_like(clip.video))).status == "unmeasurable"
