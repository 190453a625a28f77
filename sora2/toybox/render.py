"""One renderer for all scenes: layers by signed distance over a backdrop, seen by a camera, in a style.

Nothing here knows a scene. Pictures are (T, H, W, 3) uint8, drawn over in place; edges are about one pixel soft.
A layer is evaluated in a window around it, of all frames at once; leading layers that never change are drawn on
one still picture.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sora2.toybox.camera import Camera, CameraMove
from sora2.toybox.config import ToyboxConfig
from sora2.toybox.layers import Backdrop, Color, Layer, Picture
from sora2.toybox.shapes import PerFrame
from sora2.toybox.styles import PALETTE, SHADOW, Look, Surface, finish, lamp, ramp, shade

#: Pixels rendered at once: bounds the memory of long clips.
CHUNK_PIXELS = 1 << 19
#: Depth of the strip of floor that takes contact shadows, world units.
SHADOW_DEPTH = 6 / 64


def film(
    config: ToyboxConfig,
    look: Look,
    move: CameraMove,
    picture_at: Callable[[np.ndarray], Picture],
    seconds: np.ndarray,
) -> np.ndarray:
    """(T, H, W, 3) uint8 of the world at `seconds` (T,)."""
    frames = np.empty((seconds.size, config.height, config.width, 3), np.uint8)
    step = max(1, CHUNK_PIXELS // (config.height * config.width))
    for first in range(0, seconds.size, step):
        part = seconds[first : first + step]
        compose(config, look, move.at(config, part), picture_at(part), frames[first : first + step])
    return frames


@dataclass(frozen=True)
class View:
    """A camera and the picture it fills."""

    camera: Camera
    width: int
    height: int
    pixels_per_unit: float
    lamp: np.ndarray | None  # (height, width) brightness of lit styles

    @property
    def scale(self) -> np.ndarray:
        """Pixels of one world unit, per frame."""
        return self.camera.zoom * self.pixels_per_unit

    def to_pixel(self, x: PerFrame, y: PerFrame) -> tuple[np.ndarray, np.ndarray]:
        """Pixel indices (column, row) of world points, one per frame."""
        return (
            (np.asarray(x, float) - self.camera.x) * self.scale + (self.width - 1) / 2,
            (np.asarray(y, float) - self.camera.y) * self.scale + (self.height - 1) / 2,
        )


def compose(config: ToyboxConfig, look: Look, camera: Camera, picture: Picture, frames: np.ndarray) -> None:
    """Draw one picture description into frames (T, H, W, 3)."""
    layers = list(picture.layers)
    fixed = 0
    while fixed < len(layers) and layers[fixed].frames == 1:
        fixed += 1
    view = View(
        camera,
        config.width,
        config.height,
        config.pixels_per_unit,
        lamp(look.style, look.light, config.height, config.width),
    )
    if camera.still:
        still = backdrop_still(config, look, picture.backdrop, camera)[None].copy()
        draw_layers(view, look, layers[:fixed], still)
        frames[:] = still
    else:
        _draw_moving_plate(config, look, picture.backdrop, layers[:fixed], view, frames)
    draw_layers(view, look, layers[fixed:], frames)
    finish(frames, look)


@functools.lru_cache(maxsize=64)
def _plate(
    backdrop: Backdrop, palette: str, left: int, top: int, width: int, height: int, scale: float
) -> np.ndarray:
    """(height, width, 3) float32 of the backdrop on a grid of world pixels of size 1 / scale. Read-only."""
    x = (left + np.arange(width) + 0.5)[None] / scale
    y = (top + np.arange(height) + 0.5)[:, None] / scale
    plate = backdrop.paint(x, y, 1 / scale, palette, *backdrop.arguments).astype(np.float32)
    plate.flags.writeable = False
    return plate


def backdrop_still(config: ToyboxConfig, look: Look, backdrop: Backdrop, camera: Camera) -> np.ndarray:
    """(H, W, 3) uint8 of the backdrop as a camera that stands still sees it, before `finish`."""
    scale = float(camera.scale(config)[0])
    corner = (
        float(camera.x[0]) * scale - config.width / 2,
        float(camera.y[0]) * scale - config.height / 2,
    )
    left, top = (round(value, 6) for value in corner)
    plate = _plate(backdrop, PALETTE[look.style], left, top, config.width, config.height, scale)
    gain = lamp(look.style, look.light, config.height, config.width)
    lit = plate if gain is None else plate * gain[..., None]
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _draw_moving_plate(
    config: ToyboxConfig,
    look: Look,
    backdrop: Backdrop,
    layers: Sequence[Layer],
    view: View,
    frames: np.ndarray,
) -> None:
    """Everything that stands still is painted once, larger than the picture; the camera moves over it."""
    camera, scale = view.camera, view.scale
    fine = float(config.pixels_per_unit * math.ceil(camera.zoom.max()))
    half = np.array([config.width, config.height])[:, None] / (2 * scale)  # world units
    middle = np.stack([camera.x, camera.y])
    left, top = (int(v) - 1 for v in np.floor((middle - half).min(axis=1) * fine))
    right, bottom = (int(v) + 1 for v in np.ceil((middle + half).max(axis=1) * fine))
    wide, tall = right - left, bottom - top
    painted = _plate(backdrop, PALETTE[look.style], left, top, wide, tall, fine)
    plate = np.clip(np.rint(painted), 0, 255).astype(np.uint8)
    if layers:
        over = Camera(np.array([(left + wide / 2) / fine]), np.array([(top + tall / 2) / fine]), np.ones(1))
        draw_layers(View(over, wide, tall, fine, None), look, layers, plate[None])
    shading = None if view.lamp is None else np.repeat(view.lamp[..., None], 3, axis=2).astype(np.float32)
    for frame, x, y, s in zip(frames, camera.x, camera.y, scale, strict=True):
        # pixel index of the picture -> world -> pixel index of the plate
        step = fine / s
        shift_x = (x - (config.width - 1) / 2 / s) * fine - 0.5 - left
        shift_y = (y - (config.height - 1) / 2 / s) * fine - 0.5 - top
        matrix = np.array([[step, 0, shift_x], [0, step, shift_y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame[:] = cv2.warpAffine(
            plate, matrix, (config.width, config.height), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        if shading is not None:
            cv2.multiply(frame, shading, dst=frame, dtype=cv2.CV_8U)


def draw_layers(view: View, look: Look, layers: Sequence[Layer], frames: np.ndarray) -> None:
    """Shadows on the floor, then the layers in order."""
    if look.style in SHADOW:
        for layer in layers:
            if layer.ground is not None:
                _contact_shadow(view, look, layer, frames)
    for layer in layers:
        shown = _shown_frames(layer)
        if shown is None:
            _draw_with_shadow(view, look, layer, frames)
        elif shown.size:
            part = frames[shown]
            _draw_with_shadow(replace(view, camera=view.camera.part(shown)), look, _part(layer, shown), part)
            frames[shown] = part


def _shown_frames(layer: Layer) -> np.ndarray | None:
    """Indices of the frames in which a layer that comes and goes is seen; None: draw it in all at once."""
    opacity = np.asarray(layer.opacity)
    if opacity.ndim == 0 or layer.shape.frames > 1:
        return None
    shown = np.flatnonzero(opacity > 1 / 512)
    return None if shown.size == opacity.size else shown


def _part(layer: Layer, frames: np.ndarray) -> Layer:
    """The layer at some of its frames."""
    names = ("x", "y", "angle", "size", "opacity")
    values = {name: np.asarray(getattr(layer, name)) for name in names}
    return replace(layer, **{name: value[frames] for name, value in values.items() if value.ndim})


def _draw_with_shadow(view: View, look: Look, layer: Layer, frames: np.ndarray) -> None:
    if look.style in SHADOW and layer.lift > 0:
        _draw(view, look, layer, frames, shadow=True)
    _draw(view, look, layer, frames)


def _draw(
    view: View,
    look: Look,
    layer: Layer,
    frames: np.ndarray,
    *,
    shadow: bool = False,
) -> None:
    count, height, width, _ = frames.shape
    x, y = view.to_pixel(layer.x, layer.y)  # (n,)
    scale = view.scale * np.asarray(layer.size, float)  # pixels per local unit
    if shadow:
        throw = layer.lift * view.scale
        x, y = x + 0.7 * throw, y + 0.9 * throw
    n = count if max(x.size, y.size, scale.size, layer.frames) > 1 else 1
    largest = float(scale.max())
    blur = (2.0 + 1.4 * layer.lift * largest) if shadow else 1.0 + layer.soft * largest
    if _unseen(layer, x, y, largest, blur, height, width):
        return
    top, left, tall, wide = _window(layer, x, y, largest, blur, height, width)
    du = ((left - x)[:, None, None] + np.arange(wide)).astype(np.float32)  # (n, 1, w) pixels
    dv = ((top - y)[:, None] + np.arange(tall)).astype(np.float32)[:, :, None]  # (n, h, 1)
    s = scale.astype(np.float32).reshape(-1, 1, 1)
    turned = _turns(layer)
    if turned:
        angle = np.asarray(layer.angle, np.float32).reshape(-1, 1, 1)
        cosine, sine = np.cos(angle), np.sin(angle)
        u, v = (cosine * du + sine * dv) / s, (cosine * dv - sine * du) / s
    else:
        u, v = du / s, dv / s
    inside = -layer.shape.distance(u, v) * s  # (n, h, w) pixels
    cover = ramp(inside, blur)
    opacity = np.asarray(layer.opacity, np.float32).reshape(-1, 1, 1)
    if opacity.size > 1 or opacity.item() != 1:
        cover = cover * opacity
    if shadow:
        dark = 1 - np.float32(0.75 * SHADOW[look.style]) * cover[:, None]
        _blend(frames, top, left, tall, wide, n, dark, None)
        return
    if layer.material == "glow" and layer.pattern is None and cover.shape == (count, tall, wide):
        _blend_light(frames, top, left, cover, layer.color)
        return
    unit = 1.0 if layer.shape.extent is None else max(1e-6, min(layer.shape.extent))
    nx, ny = _normal(layer, u, v, inside, largest, (cosine, sine) if turned else None)
    outline = layer.outline * largest if layer.material != "glow" else 0.0
    surface = Surface(
        u / np.float32(unit), v / np.float32(unit), nx, ny, inside, outline, layer.material, layer.surface
    )
    bright, white = shade(look, surface)
    gain = view.lamp
    if gain is not None and layer.material != "glow":
        bright = bright * _gain_of(gain, layer, x, y, top, left, tall, wide)
    bright = bright * (cover * (1 - white))
    white = white * (cover * 255)
    color = np.array(layer.color, np.float32)[:, None, None]
    if layer.second is None or layer.pattern is None:
        added = bright[:, None] * color
    else:
        mix = np.clip(layer.pattern(u, v), 0, 1)[:, None]
        added = bright[:, None] * (color + (np.array(layer.second, np.float32)[:, None, None] - color) * mix)
    added = added + white[:, None]
    _blend(frames, top, left, tall, wide, n, (1 - cover)[:, None], added)


def _unseen(
    layer: Layer, x: np.ndarray, y: np.ndarray, scale: float, blur: float, height: int, width: int
) -> bool:
    """Whether the layer is beyond the same edge of the picture in all frames."""
    if layer.shape.extent is None:
        return False
    reach = math.hypot(*layer.shape.extent) if _turns(layer) else 0.0
    wide, tall = (max(e, reach) * scale + blur + 1 for e in layer.shape.extent)
    return bool(
        x.max() < -wide or x.min() > width - 1 + wide or y.max() < -tall or y.min() > height - 1 + tall
    )


def _turns(layer: Layer) -> bool:
    return not (isinstance(layer.angle, (int, float)) and layer.angle == 0)


def _window(
    layer: Layer, x: np.ndarray, y: np.ndarray, scale: float, blur: float, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(top, left) of the layer's window in each frame, and its height and width."""
    if layer.shape.extent is None:
        zero = np.zeros(1, int)
        return zero, zero, height, width
    half_wide, half_tall = layer.shape.extent
    if _turns(layer):
        half_wide = half_tall = (
            math.hypot(half_wide, half_tall) if layer.surface != "dome" else max(half_wide, half_tall)
        )
    half_wide, half_tall = (math.ceil(half * scale + blur / 2) + 1 for half in (half_wide, half_tall))
    tall, wide = min(2 * half_tall + 2, height), min(2 * half_wide + 2, width)
    top = np.clip(np.floor(y).astype(int) - half_tall, 0, height - tall)
    left = np.clip(np.floor(x).astype(int) - half_wide, 0, width - wide)
    return top, left, tall, wide


def _normal(
    layer: Layer,
    u: np.ndarray,
    v: np.ndarray,
    inside: np.ndarray,
    scale: float,
    turn: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The normal's part in the screen, (n, h, w) each, at most 1 long."""
    if layer.surface == "flat" or layer.shape.extent is None:
        zero = np.zeros((1, 1, 1), np.float32)
        return zero, zero
    if layer.surface == "dome":
        a, b = u / np.float32(layer.shape.extent[0]), v / np.float32(layer.shape.extent[1])
        if turn is not None:
            a, b = turn[0] * a - turn[1] * b, turn[1] * a + turn[0] * b
        return a, b
    gy, gx = np.gradient(inside, axis=(1, 2)) if min(inside.shape[1:]) > 1 else (inside * 0, inside * 0)
    steep = np.clip(1 - inside / np.float32(max(1.5, layer.bevel * scale)), 0, 1) * np.float32(0.85)
    return -gx * steep, -gy * steep


def _gain_of(
    gain: np.ndarray,
    layer: Layer,
    x: np.ndarray,
    y: np.ndarray,
    top: np.ndarray,
    left: np.ndarray,
    tall: int,
    wide: int,
) -> np.ndarray:
    """How much of the lamp reaches the layer: of its middle when it is small, of each pixel when it is large."""
    height, width = gain.shape
    if max(tall, wide) < 0.45 * min(height, width):
        rows = np.clip(np.rint(y).astype(int), 0, height - 1)
        columns = np.clip(np.rint(x).astype(int), 0, width - 1)
        reached = gain[rows, columns].reshape(-1, 1, 1)
    else:
        windows = np.lib.stride_tricks.sliding_window_view(gain, (tall, wide))
        reached = windows[top, left]
    return (0.45 + 0.55 * reached).astype(np.float32)


def _blend_light(
    frames: np.ndarray, top: np.ndarray, left: np.ndarray, cover: np.ndarray, color: Color
) -> None:
    """One unshaded colour laid over the covered pixels alone: light is often thin (rain, sparks, a bolt)."""
    frame, row, column = np.nonzero(cover > 1 / 512)
    share = cover[frame, row, column, None]
    row = row + (top[frame] if top.size > 1 else top[0])
    column = column + (left[frame] if left.size > 1 else left[0])
    under = frames[frame, row, column]
    mixed = under * (1 - share) + share * np.array(color, np.float32) + np.float32(0.5)
    frames[frame, row, column] = np.clip(mixed, 0, 255)


def _blend(
    frames: np.ndarray,
    top: np.ndarray,
    left: np.ndarray,
    tall: int,
    wide: int,
    n: int,
    keep: np.ndarray,
    added: np.ndarray | None,
) -> None:
    """patch * keep + added in the window of each frame; keep and added are (n, 1 or 3, h, w)."""
    if top.size == 1 and left.size == 1:
        t, k = int(top[0]), int(left[0])
        view = frames[:, t : t + tall, k : k + wide]
        patch = view * keep.transpose(0, 2, 3, 1)
        if added is not None:
            patch += added.transpose(0, 2, 3, 1)
        patch += np.float32(0.5)
        view[:] = np.clip(patch, 0, 255, out=patch)
        return
    windows = np.lib.stride_tricks.sliding_window_view(frames, (tall, wide), axis=(1, 2), writeable=True)
    index = np.arange(len(frames))
    patch = windows[index, top, left].astype(np.float32)  # (T, 3, h, w)
    patch *= keep
    if added is not None:
        patch += added
    patch += np.float32(0.5)
    windows[index, top, left] = np.clip(patch, 0, 255, out=patch)


def _contact_shadow(view: View, look: Look, layer: Layer, frames: np.ndarray) -> None:
    """Darken the floor under a layer: the nearer it is, the darker and tighter."""
    if layer.shape.extent is None or layer.ground is None:
        return
    x, y = view.to_pixel(layer.x, layer.y)
    scale = view.scale
    _, floor = view.to_pixel(0.0, layer.ground)
    floor = floor + 0.5  # edge, not pixel centre
    half_wide, half_tall = (e * np.asarray(layer.size, float) * scale for e in layer.shape.extent)
    gap = np.maximum(floor - 0.5 - y - half_tall, 0)
    first = max(0, math.floor(floor.min()))
    rows, columns = np.arange(first, frames.shape[1]), np.arange(frames.shape[2])
    if rows.size == 0:
        return
    near = np.exp(-gap / (2.5 * half_tall))
    spread = half_wide * (0.95 + 0.5 * (1 - near))
    across = np.exp(-0.5 * ((columns - x[:, None]) / (0.75 * spread[:, None])) ** 2)  # (n, W)
    below = rows + 0.5 - floor[:, None]
    depth = below / np.maximum(1.0, SHADOW_DEPTH * scale)[:, None]
    along = np.exp(-(((depth - 0.25) / 0.45) ** 2)) * ramp(below)  # (n, rows)
    strength = SHADOW[look.style] * near * np.asarray(layer.opacity, float)
    dark = strength[:, None, None] * along[:, :, None] * across[:, None]  # (n, rows, W)
    strip = frames[:, first:]
    strip[:] = strip * (1 - dark[..., None].astype(np.float32)) + np.float32(0.5)
