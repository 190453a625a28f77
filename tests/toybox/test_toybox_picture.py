"""What is seen is what happened: place, size, colour, style."""

import numpy as np
import pytest

from sora2.toybox import BACKGROUNDS, COLORS, MATERIALS, SIZES, ToyboxConfig, clip_from_spec, world_to_pixel
from sora2.toybox.backdrops import room
from sora2.toybox.camera import CameraMove
from sora2.toybox.render import backdrop_still
from sora2.toybox.styles import Look

#: Of the narrow world: plain enough for a threshold. The others are looked at in test_toybox_styles.py.
STYLES = ToyboxConfig().styles


def ball_mask(clip):
    """(T, H, W) pixels that differ from the empty scene, above the floor (where a shadow may fall)."""
    truth = clip.meta["truth"]
    _, height, width, _ = clip.video.shape
    floor = truth["box"][3] * min(height, width)
    config = ToyboxConfig(height=height, width=width)
    camera = CameraMove().at(config, config.frame_seconds)
    still = room(truth["background"], truth["box"][3])
    empty = backdrop_still(config, Look(truth["style"]), still, camera).astype(int)
    change = np.abs(clip.video.numpy().astype(int) - empty).max(-1)
    return change[:, : int(floor)] > 28


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("material", MATERIALS)
def test_the_ball_is_drawn_where_the_truth_says(style, material):
    for name in BACKGROUNDS:
        for size, radius in SIZES.items():
            clip = clip_from_spec(
                style=style, background=name, count=1, size=size, material=material, color="red"
            )
            truth = clip.meta["truth"]
            for frame, mask in enumerate(ball_mask(clip)):
                rows, columns = np.nonzero(mask)
                ball = truth["balls"][0]
                assert abs(columns.mean() - world_to_pixel(ball["x"][frame], 64)) < 0.5
                assert abs(rows.mean() - world_to_pixel(ball["y"][frame], 64)) < 0.5
                assert np.sqrt(mask.sum() / np.pi) == pytest.approx(radius * 64, abs=0.6)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("color", COLORS)
def test_the_colour_is_the_nearest_of_the_table(style, material, color):
    clip = clip_from_spec(style=style, material=material, color=color, count=1, x=0.5, y=0.4, vx=0.0, vy=0.0)
    mask = ball_mask(clip)[0]
    pixels = clip.video.numpy()[0][: mask.shape[0]][mask].astype(float)
    spread = pixels.max(1) - pixels.min(1)
    found = pixels[spread >= np.quantile(spread, 0.5)].mean(0)
    chroma = {name: np.array(rgb) / np.linalg.norm(rgb) for name, rgb in COLORS.items()}
    assert max(chroma, key=lambda name: chroma[name] @ (found / np.linalg.norm(found))) == color


def test_materials_sizes_and_styles_look_different():
    def picture(**spec):
        return clip_from_spec(count=1, x=0.5, y=0.4, vx=0.0, vy=0.0, color="red", **spec).video[0].float()

    for style in STYLES:
        views = [picture(style=style, material=m, size="big")[19:32, 26:38] for m in MATERIALS]
        for i in range(3):
            for j in range(i):
                assert (views[i] - views[j]).abs().mean() > 8
    assert (picture(style="cartoon") - picture(style="cinematic")).abs().mean() > 30


def test_edges_are_soft():
    """No picture jumps over its whole range between two pixels: partly covered pixels lie on every rim."""
    clip = clip_from_spec(count=1, style="cinematic", background="plain", material="rubber", x=0.503, y=0.4)
    mask = ball_mask(clip)[0]
    values = clip.video.numpy()[0][: mask.shape[0], :, 0]
    assert len(np.unique(values[mask])) > 30


def test_a_shadow_falls_on_the_floor_when_the_ball_is_near():
    clip = clip_from_spec(
        style="cinematic", background="plain", count=1, gravity="normal", x=0.5, y=0.2, vx=0.0, vy=0.0
    )
    truth = clip.meta["truth"]
    strip = clip.video.numpy()[:, 59:, 24:40].astype(float).mean((1, 2, 3))
    nearest, farthest = int(np.argmax(truth["balls"][0]["y"])), int(np.argmin(truth["balls"][0]["y"]))
    assert strip[nearest] < strip[farthest] - 10
