"""What scene `weather` looks like: a meadow with two trees and tall grass, rain, and lightning on the horizon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sora2.toybox.backdrops import blend, over
from sora2.toybox.layers import Backdrop, Color, Layer
from sora2.toybox.scenes.weather_world import HORIZON, SWAY, Drops, Strike, depth_scale
from sora2.toybox.shapes import PerFrame, Shape, capsule, circle, column, length, union
from sora2.toybox.streaks import Streaks, streaks_shape
from sora2.toybox.styles import ramp

RAIN_COLOR: Color = (62, 108, 196)
LEAVES: tuple[Color, Color] = ((46, 140, 70), (104, 158, 48))
TRUNK_COLOR, GRASS_COLOR, CLOUD_COLOR = (116, 78, 50), (64, 158, 66), (196, 202, 210)
#: (x as a share of the width, foot y, height) of the trees.
TREES = ((0.27, 0.76, 0.46), (0.74, 0.68, 0.32))
GRASS_HEIGHT, BLADE_PITCH = 0.17, 1 / 16
#: A falling drop is drawn as long as it falls in this time; a splash lasts this long.
SHUTTER_SECONDS, SPLASH_SECONDS = 0.03, 0.14


def meadow(overcast: bool) -> Backdrop:
    return Backdrop(paint_meadow, (overcast,))


def paint_meadow(x: np.ndarray, y: np.ndarray, pixel: float, palette: str, overcast: bool) -> np.ndarray:
    u, v = np.broadcast_arrays(x, y)
    flat = palette == "flat"
    if overcast:
        top, low = ((192, 202, 214), (228, 232, 234)) if flat else ((84, 94, 108), (146, 150, 152))
    else:
        top, low = ((190, 220, 242), (238, 244, 246)) if flat else ((104, 132, 164), (196, 196, 188))
    picture = blend(top, low, np.clip(v / HORIZON, 0, 1))
    hills = (188, 204, 196) if flat else (104, 112, 110)
    ridge = HORIZON - 0.06 - 0.045 * np.sin(2 * np.pi * 0.9 * u + 0.7) - 0.02 * np.sin(2 * np.pi * 2.3 * u)
    picture = over(picture, hills, ramp((v - ridge) / pixel))
    far, near = ((208, 224, 184), (186, 210, 160)) if flat else ((122, 134, 104), (94, 108, 80))
    field = blend(far, near, np.clip((v - HORIZON) / (1 - HORIZON), 0, 1))
    cover = ramp((v - HORIZON - 0.01 * np.sin(2 * np.pi * 0.6 * u)) / pixel)[..., None]
    return np.asarray(picture * (1 - cover) + field * cover)


def tree_places(width: float) -> list[tuple[float, float, float]]:
    """(x of the foot, y of the foot, height) in world units."""
    return [(share * width, foot, height) for share, foot, height in TREES]


def tip(foot: float, height: float, sway: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sideways, y) of the middle of a crown: it moves on an arc around the foot."""
    lean = np.sin(np.arctan(SWAY * sway))
    reach = 0.66 * height
    return reach * lean, foot - reach * np.sqrt(1 - lean * lean)


def tree_layers(x: float, foot: float, height: float, color: Color, sway: np.ndarray) -> list[Layer]:
    """Trunk and crown of one tree; `sway` (T,) is the strength of the gust."""
    dx, y = tip(foot, height, sway)
    half_reach, half_dx = (
        0.33 * height,
        dx / 2,
    )  # the middle of the trunk is the layer's place: a small window
    trunk = Layer(
        capsule(-half_dx, half_reach, half_dx, y - foot + half_reach, 0.034 * height / 0.46),
        TRUNK_COLOR,
        x=x + half_dx,
        y=foot - half_reach,
        outline=0.012,
    )
    r = 0.25 * height
    crown = union(
        circle(r).at(-0.62 * r, 0.42 * r),
        circle(r).at(0.66 * r, 0.36 * r),
        circle(1.05 * r).at(0.02 * r, -0.5 * r),
    )
    angle = 1.3 * np.arctan2(dx, foot - y)
    return [
        trunk,
        Layer(
            crown, color, x=x + dx, y=y, angle=angle, surface="bevel", bevel=0.07, outline=0.014, name="tree"
        ),
    ]


def grass_layer(width: float, height: float, sway: np.ndarray) -> Layer:
    """A row of blades along the lower edge, all leaning with the gust (T,)."""
    middle = height + 0.02 - GRASS_HEIGHT / 2
    return Layer(_grass(width / 2 + 0.35, sway), GRASS_COLOR, x=width / 2, y=middle, outline=0.0)


def _grass(half_width: float, sway: PerFrame) -> Shape:
    """Blades of different heights side by side, in two rows; their feet are `GRASS_HEIGHT` / 2 below the origin."""
    lean = column(np.asarray(sway) * (SWAY * GRASS_HEIGHT / BLADE_PITCH))
    pitch = np.float32(BLADE_PITCH)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        up = np.float32(0.5) - v / np.float32(GRASS_HEIGHT)  # 0 at the foot, 1 at the highest tip
        above = np.maximum(up, 0)
        foot = u / pitch - lean * (above * above)  # (T, h, w) in blades
        nearest = None
        for row, shift in enumerate((0.0, 0.5)):
            place = foot + np.float32(shift)
            cell = np.floor(place)
            tall = np.sin(cell * np.float32(12.9 + 5 * row) + np.float32(row))
            tall *= np.float32(0.28)
            tall += np.float32(0.72)
            place -= cell
            place -= np.float32(0.5)
            blade = np.abs(place, out=place)
            blade += np.float32(0.52) * above / tall
            nearest = blade if nearest is None else np.minimum(nearest, blade, out=nearest)
        return (nearest - np.float32(0.52)) * pitch

    return Shape(distance, (half_width, GRASS_HEIGHT / 2), length(sway))


def cloud_layers(width: float, overcast: bool, drift: np.ndarray) -> list[Layer]:
    """Two clouds that move with `drift` (T,) world units."""
    shape = union(circle(0.07).at(-0.10, 0.01), circle(0.09), circle(0.06).at(0.11, 0.02))
    color = tuple(round(value * (0.72 if overcast else 1.18)) for value in CLOUD_COLOR)
    places = ((0.16, 0.14, 1.1), (0.80, 0.22, 0.85))
    return [
        Layer(
            shape,
            (min(color[0], 255), min(color[1], 255), min(color[2], 255)),
            x=share * width + drift * size,
            y=y,
            size=size,
            outline=0.0,
            soft=0.05,
            opacity=0.9,
        )
        for share, y, size in places
    ]


def lightning_layers(strike: Strike, kinks: tuple[float, ...], seconds: np.ndarray) -> list[Layer]:
    """The bolt; far lightning is thinner. `kinks` are its sideways turns from the cloud down."""
    scale = 1.0 if strike.distance_metres < 180 else 0.55
    light = strike.light(seconds)
    ys = np.linspace(-HORIZON - 0.3, 0.0, len(kinks) + 1)
    xs = np.append(np.cumsum(kinks[::-1])[::-1], 0.0) * scale
    parts = [capsule(xs[i], ys[i], xs[i + 1], ys[i + 1], 0.017 * scale) for i in range(len(kinks))]
    visible = np.minimum(1.0, 2.2 * light)
    return [Layer(union(*parts), (255, 250, 225), x=strike.x, y=HORIZON, opacity=visible, material="glow")]


def flash_layer(strikes: Sequence[Strike], seconds: np.ndarray) -> Layer:
    """The sky's light over the whole picture; near lightning is brighter."""
    light = np.zeros(seconds.shape)
    for strike in strikes:
        light = np.maximum(light, strike.light(seconds) * flash_strength(strike.distance_metres))
    everywhere = Shape(lambda u, v: np.full((1, 1, 1), -1e3, np.float32), None)
    return Layer(everywhere, (236, 240, 255), opacity=light, material="glow")


def flash_strength(metres: float) -> float:
    """Share of white in the picture at the flash."""
    return 0.75 / (1 + metres / 220)


def rain_layer(near: Drops, far: Drops, seconds: np.ndarray) -> Layer:
    """All drops in the air and all splashes at instants (T,)."""
    groups = (
        _falling(far, seconds, 0.45),
        _falling(near, seconds, 1.0),
        _splashes(far, seconds, 0.5),
        _splashes(near, seconds, 1.0),
    )
    return Layer(streaks_shape(groups, seconds.size), RAIN_COLOR, material="glow", outline=0.0)


def _falling(drops: Drops, seconds: np.ndarray, strength: float) -> Streaks:
    left = drops.landing_seconds - seconds[:, None]  # (T, N) seconds until landing
    height = drops.speed * left
    frame, which = np.nonzero((left > 0) & (height < drops.y + 0.3))
    fallen = height[frame, which]
    x, y = drops.x[which] - drops.slant * fallen, drops.y[which] - fallen
    tail = SHUTTER_SECONDS * drops.speed[which]
    radius = strength * 0.013 * depth_scale(drops.y[which])
    return Streaks(frame, x, y, x - drops.slant * tail, y - tail, radius)


def _splashes(drops: Drops, seconds: np.ndarray, strength: float) -> Streaks:
    """A flat ripple that widens and fades."""
    age = seconds[:, None] - drops.landing_seconds
    frame, which = np.nonzero((age >= 0) & (age < SPLASH_SECONDS))
    share = age[frame, which] / SPLASH_SECONDS
    size = depth_scale(drops.y[which])
    half = strength * size * (0.015 + 0.035 * share)
    x, y = drops.x[which], drops.y[which]
    radius = strength * 0.016 * size * (1 - share) - 0.008 * share
    return Streaks(frame, x - half, y, x + half, y, radius)
