import cv2
import numpy as np
import pytest

from sora2.metrics.tracking import find_balls
from sora2.toybox import clip_from_spec, world_to_pixel


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
