"""Shared drawing helpers: backgrounds, antialiased shaded balls, contact shadows, the look of each style.

Everything is drawn with soft edges of about one pixel and smooth shading: no per-pixel noise, so that what a
codec loses is never texture that no one asked for. Pictures are (T, H, W, 3) uint8, drawn over in place.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from sora2.toybox.config import check_choice
from sora2.toybox.vocabulary import BACKGROUNDS, STYLES

_CARTOON_OUTLINE = 1.2  # pixels at 64, scaled with the picture
_LIGHT = np.array([-0.50, -0.62, 0.60])  # direction to the lamp in the cinematic style: upper left, in front


def ramp(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """Coverage of a pixel `distance` pixels inside an edge, rising from 0 to 1 over `softness` pixels."""
    return np.clip(distance / softness + 0.5, 0.0, 1.0)


@functools.lru_cache(maxsize=64)
def background(name: str, style: str, height: int, width: int, floor: float) -> np.ndarray:
    """(H, W, 3) uint8 wall or view above a floor that begins at pixel row `floor`. Read-only."""
    check_choice("background", name, BACKGROUNDS)
    check_choice("style", style, STYLES)
    side = min(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    v, u = (y + 0.5) / side, (x + 0.5) / side
    cartoon = style == "cartoon"
    if name == "plain":
        picture = (
            _blend((236, 230, 214), (236, 230, 214), v)
            if cartoon
            else _blend((150, 148, 146), (176, 170, 162), v)
        )
        ground = (190, 180, 160) if cartoon else (168, 152, 134)
    elif name == "striped":
        wave = 0.5 + 0.5 * np.tanh(2.2 * np.sin(2 * math.pi * u * 4))
        light, dark = ((240, 238, 232), (200, 208, 214)) if cartoon else ((176, 174, 172), (128, 130, 136))
        picture = _blend(dark, light, wave)
        ground = (172, 176, 182) if cartoon else (150, 148, 150)
    else:
        top, low = ((206, 226, 240), (240, 244, 240)) if cartoon else ((120, 136, 158), (206, 190, 172))
        picture = _blend(top, low, np.clip(v / 0.75, 0, 1))
        for base, height_, wave_, phase, color in (
            (0.62, 0.07, 1.1, 0.4, (178, 194, 186) if cartoon else (128, 132, 138)),
            (0.76, 0.06, 1.7, 2.1, (150, 172, 156) if cartoon else (98, 104, 106)),
        ):
            ridge = base - height_ * np.sin(2 * math.pi * wave_ * u + phase)
            cover = ramp((v - ridge) * side, 1.5)[..., None]
            picture = picture * (1 - cover) + np.array(color) * cover
        ground = (140, 156, 138) if cartoon else (128, 130, 124)
    cover = ramp(y + 0.5 - floor)[..., None]
    picture = picture * (1 - cover) + np.array(ground) * cover
    if cartoon:
        line = ramp(0.6 * side / 64 - np.abs(y + 0.5 - floor))[..., None] * 0.75
        picture = picture * (1 - line) + 50 * line
    else:
        picture = picture * _lighting(height, width)[..., None]
    picture = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def _blend(first: tuple[int, int, int], second: tuple[int, int, int], share: np.ndarray) -> np.ndarray:
    return np.array(first) * (1 - share[..., None]) + np.array(second) * share[..., None]


@functools.lru_cache(maxsize=16)
def _lighting(height: int, width: int) -> np.ndarray:
    """(H, W) brightness of the cinematic style: a soft lamp at the upper left and a vignette."""
    y, x = np.mgrid[0:height, 0:width]
    u, v = (x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5
    lamp = 1.12 * np.exp(-((u + 0.16) ** 2 + (v + 0.14) ** 2) / 0.62)
    vignette = 1 / (1 + (2.1 * (u * u + v * v)) ** 2 * 2.2)
    return 0.22 + 0.92 * lamp * vignette


def draw_balls(
    frames: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    color: tuple[int, int, int],
    material: str,
    style: str,
) -> None:
    """Draw one antialiased ball into frames (T, H, W, 3), its centre at pixel indices x, y (T,)."""
    count, height, width, _ = frames.shape
    half = math.ceil(radius) + 1
    tall, wide = min(2 * half + 2, height), min(2 * half + 2, width)
    top = np.clip(np.floor(y).astype(int) - half, 0, height - tall)
    left = np.clip(np.floor(x).astype(int) - half, 0, width - wide)
    u = ((left - x)[:, None, None] + np.arange(wide)).astype(np.float32)  # (T, 1, w)
    v = ((top - y)[:, None] + np.arange(tall)).astype(np.float32)[:, :, None]  # (T, h, 1)
    inside = radius - np.sqrt(u * u + v * v)  # (T, h, w) pixels inside the rim
    shade, white = (_cartoon if style == "cartoon" else _cinematic)(
        u / radius, v / radius, inside, radius, material
    )
    if style != "cartoon":
        gain = _lighting(height, width)
        rows, columns = (
            np.clip(np.rint(y).astype(int), 0, height - 1),
            np.clip(np.rint(x).astype(int), 0, width - 1),
        )
        shade = shade * (0.45 + 0.55 * gain[rows, columns]).astype(np.float32)[:, None, None]
    cover = ramp(inside)
    shade *= cover * (1 - white)
    white *= cover * 255
    keep = 1 - cover
    windows = np.lib.stride_tricks.sliding_window_view(frames, (tall, wide), axis=(1, 2), writeable=True)
    index = np.arange(count)
    patch = windows[index, top, left].astype(np.float32)  # (T, 3, h, w)
    patch *= keep[:, None]
    patch += shade[:, None] * np.array(color, np.float32)[:, None, None]
    patch += white[:, None] + 0.5
    windows[index, top, left] = np.clip(patch, 0, 255, out=patch)


def _cartoon(
    u: np.ndarray, v: np.ndarray, inside: np.ndarray, radius: float, material: str
) -> tuple[np.ndarray, np.ndarray]:
    """Flat fill and dark outline. Rubber is plain, wood has dark grain, metal a white glint."""
    shade = np.ones_like(inside)
    white = np.zeros_like(inside)
    if material == "wood":
        shade -= 0.42 * _grain(u, v)
    elif material == "metal":
        band = u * 0.8 + v * 0.6
        white += 0.85 * np.exp(-(((band + 0.30) / 0.22) ** 2))
    rim = ramp(inside - max(1.0, _CARTOON_OUTLINE * radius / 6.5))
    shade *= 0.18 + 0.82 * rim
    white *= rim
    return shade, white


def _cinematic(
    u: np.ndarray, v: np.ndarray, inside: np.ndarray, radius: float, material: str
) -> tuple[np.ndarray, np.ndarray]:
    """Lit sphere. Rubber is matte, wood matte with grain, metal mirrors a horizon and the lamp."""
    depth = np.sqrt(np.maximum(1 - u * u - v * v, 0))
    facing = u * np.float32(_LIGHT[0]) + v * np.float32(_LIGHT[1]) + depth * np.float32(_LIGHT[2])
    lit = np.maximum(facing, 0)
    white = np.zeros_like(lit)
    if material == "metal":
        horizon = 1 / (1 + np.exp(-(v - 0.18) / 0.07))
        tone = 1.16 - 0.14 * (v + 1) - 0.62 * horizon + 1.5 * np.maximum(v - 0.30, 0)
        shade = np.broadcast_to(tone, lit.shape)
        sparkle = lit * lit * lit * lit
        sparkle *= sparkle
        white += 0.95 * sparkle * sparkle + 0.12 * (1 - horizon)
    else:
        shade = 0.46 + 0.72 * lit
        if material == "wood":
            shade *= 1 - 0.45 * _grain(u, v)
            white += 0.10 * lit**4
        else:
            white += 0.16 * lit * lit * lit
    return shade * (0.55 + 0.45 * np.minimum(depth * 1.6, 1)), white


def _grain(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Dark bands of wood, 0 to 1: about three across the ball, gently curved."""
    wave = np.sin((v + 0.22 * u * u) * np.float32(2 * math.pi * 1.25) + np.float32(0.9))
    return np.clip(0.5 + 1.1 * wave, 0, 1)


def draw_contact_shadow(
    frames: np.ndarray, x: np.ndarray, gap: np.ndarray, radius: float, floor: float, strength: float = 0.6
) -> None:
    """Darken the floor (rows below `floor`) under a ball: x (T,) pixels, gap (T,) pixels between ball and
    floor.

    The nearer the ball, the darker and tighter the shadow.
    """
    first = math.floor(floor)
    rows = np.arange(first, frames.shape[1])
    columns = np.arange(frames.shape[2])
    near = np.exp(-gap / (2.5 * radius))
    spread = radius * (0.95 + 0.5 * (1 - near))
    across = np.exp(-0.5 * ((columns - x[:, None]) / (0.75 * spread[:, None])) ** 2)  # (T, W)
    depth = (rows + 0.5 - floor) / max(1.0, frames.shape[1] - floor)
    along = np.exp(-(((depth - 0.25) / 0.45) ** 2)) * ramp(rows + 0.5 - floor)  # (rows,)
    dark = strength * near[:, None, None] * along[:, None] * across[:, None]  # (T, rows, W)
    strip = frames[:, first:]
    strip[:] = strip * (1 - dark[..., None].astype(np.float32)) + 0.5
