"""What scene `street` looks like: houses behind a road of two lanes, and vehicles seen from the side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sora2.toybox.backdrops import blend, over
from sora2.toybox.layers import Backdrop, Color, Layer
from sora2.toybox.scenes.street_traffic import CAMERA_HEIGHT, DIRECTIONS, FOCAL, HORIZON, Vehicle
from sora2.toybox.shapes import Shape, box, capsule, circle, union
from sora2.toybox.styles import ramp
from sora2.toybox.vocabulary import COLORS

TYRE, GLASS, LAMP = (44, 44, 50), (128, 164, 186), (255, 232, 150)
PALE, RIDER = (206, 204, 198), (66, 66, 82)


def street(houses: int) -> Backdrop:
    """`houses` is the seed of the row of houses."""
    return Backdrop(paint_street, (houses,))


def road_y(metres: float) -> float:
    """y in world units of the road at a distance in metres."""
    return HORIZON + FOCAL * CAMERA_HEIGHT / metres


def paint_street(x: np.ndarray, y: np.ndarray, pixel: float, palette: str, houses: int) -> np.ndarray:
    u, v = np.broadcast_arrays(x, y)
    flat = palette == "flat"
    top, low = ((196, 220, 240), (236, 242, 244)) if flat else ((112, 130, 154), (190, 184, 174))
    picture = blend(top, low, np.clip(v / HORIZON, 0, 1))
    picture = _houses(picture, u, v, pixel, flat, houses)
    pavement = (228, 224, 216) if flat else (142, 138, 132)
    asphalt = (200, 202, 208) if flat else (92, 94, 100)
    kerb, far, near = 0.650, road_y(14.3), road_y(7.1)
    picture = over(picture, pavement, ramp((v - kerb) / pixel))
    picture = over(picture, asphalt, ramp((v - far) / pixel) * ramp((near - v) / pixel))
    dash = ramp((0.055 - np.abs((u / 0.2) % 1.0 - 0.5) * 0.2) / pixel)
    line = ramp((0.006 - np.abs(v - road_y(9.9))) / pixel)
    picture = over(picture, (240, 240, 234) if flat else (172, 170, 162), dash * line)
    for edge in (far, near):
        picture = over(
            picture, (120, 120, 122) if flat else (64, 64, 68), 0.7 * ramp((0.007 - np.abs(v - edge)) / pixel)
        )
    return picture


def _houses(
    picture: np.ndarray, u: np.ndarray, v: np.ndarray, pixel: float, flat: bool, seed: int
) -> np.ndarray:
    """Fronts of different heights and muted colours, with rows of windows."""
    rng = np.random.default_rng(seed)
    fronts = (
        ((222, 206, 190), (204, 212, 206), (214, 204, 214), (226, 216, 186), (200, 208, 220))
        if flat
        else ((138, 120, 108), (116, 124, 120), (124, 114, 122), (142, 130, 106), (110, 118, 130))
    )
    panes = (168, 184, 198) if flat else (76, 86, 98)
    left = -0.5 - float(rng.uniform(0, 0.2))
    right = float(u.max()) + 0.3
    while left < right:
        wide, roof = float(rng.uniform(0.19, 0.31)), float(rng.uniform(0.10, 0.30))
        front = fronts[int(rng.integers(len(fronts)))]
        columns = int(rng.integers(2, 4))
        covered = np.flatnonzero((u[0] > left - pixel) & (u[0] < left + wide + 0.006 + pixel))
        if covered.size:
            part = slice(int(covered[0]), int(covered[-1]) + 1)
            picture[:, part] = _house(
                picture[:, part], u[:, part] - left, v[:, part] - roof, pixel, wide, columns, front, panes
            )
        left += wide
    return picture


def _house(
    picture: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    pixel: float,
    wide: float,
    columns: int,
    front: Color,
    panes: Color,
) -> np.ndarray:
    """One front; u and v count from its upper left corner."""
    below = ramp(v / pixel)
    picture = over(picture, front, ramp(u / pixel) * ramp((wide - u) / pixel) * below)
    across, down = u / wide * columns, (v - 0.04) / 0.115
    pane = ramp((0.24 - np.abs(across % 1.0 - 0.5)) * wide / columns / pixel)
    pane = pane * ramp((0.27 - np.abs(down % 1.0 - 0.5)) * 0.115 / pixel)
    picture = over(picture, panes, pane * (down > 0) * (u < wide))
    shade = np.array(front) * 0.78
    edge = ramp((0.006 - np.abs(u - wide)) / pixel) * below
    return over(picture, (round(shade[0]), round(shade[1]), round(shade[2])), edge)


def vehicle_layers(vehicle: Vehicle, x: np.ndarray, horn: np.ndarray) -> list[Layer]:
    """A vehicle whose middle is at x (T,) world units; `horn` (T,) is 1 while it sounds, and its lamps light up."""
    return _BUILDERS[vehicle.kind](vehicle, x, horn)


def _parts(
    vehicle: Vehicle, x: np.ndarray
) -> tuple[Callable[..., Layer], Callable[[float, float, float, float, float], Shape]]:
    """Makers of layers, and of boxes in metres: middle (forwards, up), half sizes, rounding."""
    k, ahead = vehicle.scale, DIRECTIONS[vehicle.direction]
    y = vehicle.picture_ground

    def layer(shape: Shape, color: Color, **more: object) -> Layer:
        options: dict[str, object] = {"surface": "bevel", "bevel": 0.03, "outline": 0.011} | more
        return Layer(shape, color, x=x, y=y, **options)  # type: ignore[arg-type]

    def block(forwards: float, up: float, half_length: float, half_height: float, rounding: float) -> Shape:
        return box(k * half_length, k * half_height, k * rounding).at(k * ahead * forwards, -k * up)

    return layer, block


def _wheels(vehicle: Vehicle, radius: float, *forwards: float) -> Shape:
    k, ahead = vehicle.scale, DIRECTIONS[vehicle.direction]
    return union(*(circle(k * radius).at(k * ahead * place, -k * radius) for place in forwards))


def _lamp(vehicle: Vehicle, x: np.ndarray, horn: np.ndarray, forwards: float, up: float) -> list[Layer]:
    """A small lamp in front, and its blaze while the horn sounds."""
    k, ahead = vehicle.scale, DIRECTIONS[vehicle.direction]
    at_x, at_y = x + k * ahead * forwards, vehicle.picture_ground - k * up
    lamps = [Layer(circle(0.17 * k), LAMP, x=at_x, y=at_y, material="glow", outline=0.0)]
    if horn.any():
        blaze = Layer(
            circle(0.6 * k), LAMP, x=at_x, y=at_y, opacity=0.9 * horn, material="glow", soft=0.5 * k
        )
        lamps.append(blaze)
    return lamps


def _car(vehicle: Vehicle, x: np.ndarray, horn: np.ndarray) -> list[Layer]:
    layer, block = _parts(vehicle, x)
    body = block(0, 0.68, 2.1, 0.36, 0.25) | block(-0.2, 1.1, 1.2, 0.42, 0.3)
    glass = block(0.38, 1.16, 0.44, 0.22, 0.1) | block(-0.68, 1.16, 0.5, 0.22, 0.1)
    return [
        layer(body, COLORS[vehicle.color], ground=vehicle.picture_ground, name=f"{vehicle.color} car"),
        layer(glass, GLASS, outline=0.0, surface="flat"),
        layer(_wheels(vehicle, 0.4, -1.25, 1.25), TYRE, outline=0.0, surface="flat"),
        *_lamp(vehicle, x, horn, 1.95, 0.75),
    ]


def _truck(vehicle: Vehicle, x: np.ndarray, horn: np.ndarray) -> list[Layer]:
    layer, block = _parts(vehicle, x)
    return [
        layer(
            block(-0.8, 1.85, 2.8, 1.15, 0.1),
            COLORS[vehicle.color],
            ground=vehicle.picture_ground,
            name=f"{vehicle.color} truck",
        ),
        layer(block(2.75, 1.35, 0.85, 0.95, 0.25), PALE),
        layer(block(2.95, 1.75, 0.5, 0.35, 0.1), GLASS, outline=0.0, surface="flat"),
        layer(_wheels(vehicle, 0.5, -2.6, -1.4, 2.5), TYRE, outline=0.0, surface="flat"),
        *_lamp(vehicle, x, horn, 3.45, 0.85),
    ]


def _motorbike(vehicle: Vehicle, x: np.ndarray, horn: np.ndarray) -> list[Layer]:
    layer, _ = _parts(vehicle, x)
    k, ahead = vehicle.scale, DIRECTIONS[vehicle.direction]

    def limb(x0: float, up0: float, x1: float, up1: float, radius: float) -> Shape:
        return capsule(k * ahead * x0, -k * up0, k * ahead * x1, -k * up1, k * radius)

    rider = limb(-0.3, 0.85, 0.1, 1.5, 0.26) | limb(0.1, 1.35, 0.55, 1.05, 0.13)
    frame = limb(-0.55, 0.75, 0.45, 0.7, 0.28) | limb(0.45, 0.7, 0.6, 1.05, 0.14)
    return [
        layer(_wheels(vehicle, 0.42, -0.75, 0.75), TYRE, outline=0.0, surface="flat"),
        layer(rider, RIDER, outline=0.0),
        layer(
            frame | circle(0.3 * k).at(k * ahead * 0.22, -1.85 * k),
            COLORS[vehicle.color],
            outline=0.0,
            ground=vehicle.picture_ground,
            name=f"{vehicle.color} motorbike",
        ),
        *_lamp(vehicle, x, horn, 0.72, 0.95),
    ]


_BUILDERS = {"car": _car, "truck": _truck, "motorbike": _motorbike}
