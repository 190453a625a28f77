"""Backdrops that several scenes share: walls and hills above a floor."""

from __future__ import annotations

import math

import numpy as np

from sora2.toybox.config import check_choice
from sora2.toybox.layers import Backdrop, Color
from sora2.toybox.styles import ramp
from sora2.toybox.vocabulary import BACKGROUNDS


def room(name: str, floor: float) -> Backdrop:
    """`name` is one of BACKGROUNDS: a plain wall, a striped wall, or hills; the ground begins at y = `floor`."""
    check_choice("background", name, BACKGROUNDS)
    return Backdrop(paint_room, (name, floor))


def paint_room(
    x: np.ndarray, y: np.ndarray, pixel: float, palette: str, name: str, floor: float
) -> np.ndarray:
    u, v = np.broadcast_arrays(x, y)
    flat = palette == "flat"
    if name == "plain":
        picture = (
            blend((236, 230, 214), (236, 230, 214), v)
            if flat
            else blend((150, 148, 146), (176, 170, 162), np.clip(v, -0.5, 1.5))
        )
        ground = (190, 180, 160) if flat else (168, 152, 134)
    elif name == "striped":
        wave = 0.5 + 0.5 * np.tanh(2.2 * np.sin(2 * math.pi * u * 4))
        light, dark = ((240, 238, 232), (200, 208, 214)) if flat else ((176, 174, 172), (128, 130, 136))
        picture = blend(dark, light, wave)
        ground = (172, 176, 182) if flat else (150, 148, 150)
    else:
        top, low = ((206, 226, 240), (240, 244, 240)) if flat else ((120, 136, 158), (206, 190, 172))
        picture = blend(top, low, np.clip(v / 0.75, 0, 1))
        for base, height, wave_length, phase, color in (
            (0.62, 0.07, 1.1, 0.4, (178, 194, 186) if flat else (128, 132, 138)),
            (0.76, 0.06, 1.7, 2.1, (150, 172, 156) if flat else (98, 104, 106)),
        ):
            ridge = base - height * np.sin(2 * math.pi * wave_length * u + phase)
            picture = over(picture, color, ramp((v - ridge) / pixel, 1.5))
        ground = (140, 156, 138) if flat else (128, 130, 124)
    picture = over(picture, ground, ramp((v - floor) / pixel))
    if flat:
        picture = over(picture, (50, 50, 50), 0.75 * ramp((0.6 / 64 - np.abs(v - floor)) / pixel))
    return picture


def blend(first: Color, second: Color, share: np.ndarray) -> np.ndarray:
    """(h, w, 3) from `first` where share is 0 to `second` where it is 1."""
    return np.array(first) * (1 - share[..., None]) + np.array(second) * share[..., None]


def over(picture: np.ndarray, color: Color, cover: np.ndarray) -> np.ndarray:
    """`color` laid over the picture (h, w, 3) where `cover` (h, w) says."""
    return picture * (1 - cover[..., None]) + np.array(color) * cover[..., None]
