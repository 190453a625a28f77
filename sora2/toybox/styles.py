"""Styles as renderings: how each shades a surface, lights the picture, and finishes it.

cartoon     flat colours under dark outlines
painterly   light in a few tones, the picture laid down in brush strokes on canvas
cinematic   lit from one side, soft shadows, vignette
moody       low key: a hard cold side light, deep shadows, little colour
pencil      graphite outlines and hatching on paper, a light wash of colour

Textures (strokes, canvas, paper, hatching) are fixed in the frame for a clip.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

VARIANTS = 8  # different strokes, hatchings and papers
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Look:
    """How a clip is rendered."""

    style: str
    light: str = "day"
    variant: int = 0  # of the textures


@dataclass(frozen=True)
class Surface:
    """What a shader knows of the pixels of a layer; arrays broadcast to (n, h, w)."""

    u: np.ndarray  # local coordinates in units of the shape's smaller half size
    v: np.ndarray
    nx: np.ndarray  # normal in the screen, 0 where it faces the camera
    ny: np.ndarray
    inside: np.ndarray  # pixels inside the edge
    outline: float  # pixels
    material: str
    surface: str


#: Palette of the backdrops of each style.
PALETTE = {
    "cartoon": "flat",
    "painterly": "flat",
    "pencil": "flat",
    "cinematic": "natural",
    "moody": "natural",
}
#: Styles that throw shadows, and how dark.
SHADOW = {"painterly": 0.4, "cinematic": 0.6, "moody": 0.8}
#: Direction to the lamp: x right, y down, z to the camera.
_DIRECTIONS = {"day": (-0.50, -0.62, 0.60), "dusk": (0.80, -0.22, 0.55), "lamp": (0.05, -0.80, 0.60)}
_MOODY_DIRECTIONS = {"day": (-0.86, -0.36, 0.36), "dusk": (0.90, -0.20, 0.38), "lamp": (0.05, -0.92, 0.38)}


def ramp(distance: np.ndarray, softness: float | np.ndarray = 1.0) -> np.ndarray:
    """Coverage of a pixel `distance` pixels inside an edge, rising from 0 to 1 over `softness` pixels."""
    return np.clip(distance / softness + 0.5, 0.0, 1.0)


def shade(look: Look, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """(share of the colour that is seen, share of white gloss), each (n, h, w)."""
    if surface.material == "glow":
        return np.ones_like(surface.inside), np.zeros_like(surface.inside)
    return _SHADERS[look.style](look, surface)


def grain(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Dark bands of wood, 0 to 1: about three across a ball, gently curved."""
    wave = np.sin((v + 0.22 * u * u) * np.float32(2 * math.pi * 1.25) + np.float32(0.9))
    return np.clip(0.5 + 1.1 * wave, 0, 1)


def _gloss_place(s: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Where on the thing a pixel is, as the highlights see it."""
    return (s.nx, s.ny) if s.surface == "dome" else (s.u, s.v)


def _cartoon(look: Look, s: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Flat fill and dark outline. Matte is plain, wood has dark grain, metal a white glint."""
    shade = np.ones_like(s.inside)
    white = np.zeros_like(s.inside)
    if s.material == "wood":
        shade -= 0.42 * grain(s.u, s.v)
    elif s.material == "metal":
        u, v = _gloss_place(s)
        white += 0.85 * np.exp(-(((u * 0.8 + v * 0.6 + 0.30) / 0.22) ** 2))
    if s.outline > 0:
        rim = ramp(s.inside - max(1.0, s.outline))
        shade *= 0.18 + 0.82 * rim
        white *= rim
    return shade, white


def _lit(s: Surface, direction: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(how far the surface faces the lamp, how far it faces the camera)."""
    depth = np.sqrt(np.maximum(1 - s.nx * s.nx - s.ny * s.ny, 0))
    facing = (
        s.nx * np.float32(direction[0]) + s.ny * np.float32(direction[1]) + depth * np.float32(direction[2])
    )
    return np.maximum(facing, 0), depth


def _cinematic(look: Look, s: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Lit from one side. Matte is dull, wood dull with grain, metal mirrors a horizon and the lamp."""
    lit, depth = _lit(s, _DIRECTIONS[look.light])
    white = np.zeros_like(s.inside)
    if s.material == "metal":
        _, v = _gloss_place(s)
        horizon = 0.5 + 0.5 * np.tanh((v - 0.18) / 0.14)
        tone = 1.16 - 0.14 * (v + 1) - 0.62 * horizon + 1.5 * np.maximum(v - 0.30, 0)
        shade = np.broadcast_to(np.clip(tone, 0.3, 1.6), s.inside.shape)
        sparkle = lit * lit * lit * lit
        sparkle *= sparkle
        white += 0.95 * sparkle * sparkle + 0.12 * (1 - horizon)
    else:
        shade = 0.46 + 0.72 * lit
        if s.material == "wood":
            shade = shade * (1 - 0.45 * grain(s.u, s.v))
            white += 0.10 * lit**4
        else:
            white += 0.16 * lit * lit * lit
    return shade * (0.55 + 0.45 * np.minimum(depth * 1.6, 1)), white


def _moody(look: Look, s: Surface) -> tuple[np.ndarray, np.ndarray]:
    """A hard light from the side; what turns away from it sinks into the dark."""
    lit, depth = _lit(s, _MOODY_DIRECTIONS[look.light])
    shade = 0.55 + 1.35 * lit
    white = 0.22 * lit**6 + np.zeros_like(s.inside)
    if s.material == "wood":
        shade = shade * (1 - 0.42 * grain(s.u, s.v))
    elif s.material == "metal":
        _, v = _gloss_place(s)
        shade = shade * (1.05 - 0.275 * (1 + np.tanh((v - 0.1) / 0.16)))
        white = white + 0.75 * lit**16
    return shade * (0.5 + 0.5 * np.minimum(depth * 1.5, 1)), white


def _painterly(look: Look, s: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Three tones with soft steps between them, as mixed on a palette."""
    lit, _ = _lit(s, _DIRECTIONS[look.light])
    shade = 0.58 + 0.26 * ramp(lit - 0.22, 0.16) + 0.24 * ramp(lit - 0.62, 0.16)
    white = 0.16 * ramp(lit - 0.93, 0.12) + np.zeros_like(s.inside)
    if s.material == "wood":
        shade = shade * (1 - 0.36 * grain(s.u, s.v))
    elif s.material == "metal":
        u, v = _gloss_place(s)
        white = white + 0.6 * ramp(0.24 - np.abs(u * 0.7 + v * 0.7 + 0.35), 0.2)
        shade = shade * (1.05 - 0.3 * ramp(v - 0.25, 0.3))
    return shade + np.zeros_like(s.inside), white


def _pencil(look: Look, s: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Tones for the hatching, and a graphite line along the edge."""
    lit, _ = _lit(s, _DIRECTIONS[look.light])
    shade = 0.62 + 0.5 * lit
    white = 0.25 * lit**3 + np.zeros_like(s.inside)
    if s.material == "wood":
        shade = shade * (1 - 0.5 * grain(s.u, s.v))
    elif s.material == "metal":
        u, v = _gloss_place(s)
        white = white + 0.75 * np.exp(-(((u * 0.8 + v * 0.6 + 0.30) / 0.22) ** 2))
    if s.outline > 0:
        rim = ramp(s.inside - max(0.9, 0.75 * s.outline))
        shade = shade * (0.05 + 0.95 * rim)
        white = white * rim
    return shade + np.zeros_like(s.inside), white


_SHADERS = {
    "cartoon": _cartoon,
    "painterly": _painterly,
    "cinematic": _cinematic,
    "moody": _moody,
    "pencil": _pencil,
}


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) from -0.5 to 0.5 over the picture."""
    y, x = np.mgrid[0:height, 0:width]
    return (x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5


@functools.lru_cache(maxsize=32)
def lamp(style: str, light: str, height: int, width: int) -> np.ndarray | None:
    """(H, W) brightness of the backdrop in lit styles: the lamp's reach and a vignette. None: even light."""
    u, v = _grid(height, width)
    if style == "cinematic":
        cx, cy, spread = {"day": (-0.16, -0.14, 0.62), "dusk": (0.24, 0.0, 0.5), "lamp": (0.0, -0.2, 0.26)}[
            light
        ]
        pool = 1.12 * np.exp(-((u - cx) ** 2 + (v - cy) ** 2) / spread)
        vignette = 1 / (1 + (2.1 * (u * u + v * v)) ** 2 * 2.2)
        return 0.22 + 0.92 * pool * vignette
    if style == "moody":
        cx, cy, spread = {"day": (-0.2, -0.1, 0.22), "dusk": (0.28, -0.02, 0.24), "lamp": (0.0, -0.16, 0.14)}[
            light
        ]
        return 0.10 + 0.52 * np.exp(-((u - cx) ** 2 + (v - cy) ** 2) / spread)
    return None


@functools.lru_cache(maxsize=64)
def grade(style: str, light: str, height: int, width: int) -> np.ndarray | None:
    """(H, W, 3) float32 factors of the light's colour, or None when there is nothing to change."""
    u, v = _grid(height, width)
    w = (v + 0.5)[..., None]
    if light == "day":
        return None
    if light == "dusk":
        tint = np.array([0.98, 0.74, 0.80]) * (1 - w) + np.array([1.12, 0.80, 0.52]) * w
        if style == "moody":
            tint = 0.5 + 0.5 * tint
        return tint.astype(np.float32)
    pool = np.exp(-(u**2 + (v + 0.10) ** 2) / 0.20)[..., None]
    dark = (
        np.array([0.50, 0.46, 0.50]) if style not in ("cinematic", "moody") else np.array([0.8, 0.72, 0.66])
    )
    return (dark + (np.array([1.16, 1.02, 0.74]) - dark) * pool).astype(np.float32)


#: Columns of the output: moody keeps part of the colour and turns what is grey towards cold blue.
def _mix(keep: float, tint: tuple[float, float, float]) -> np.ndarray:
    return np.float32(keep) * np.eye(3, dtype=np.float32) + np.float32(1 - keep) * np.outer(
        np.array(tint, np.float32), LUMA
    )


_MOODY = _mix(0.62, (0.72, 0.96, 1.22)) * np.array([[1.02], [1.12], [1.28]], np.float32)
_PAINTERLY = _mix(1.22, (1.0, 1.0, 1.0)) * np.array([[1.03], [1.0], [0.93]], np.float32)


def finish(frames: np.ndarray, look: Look) -> None:
    """Light, tone and texture of whole pictures (T, H, W, 3) uint8, in place."""
    _, height, width, _ = frames.shape
    tint = grade(look.style, look.light, height, width)
    if tint is not None:
        for frame in frames:
            cv2.multiply(frame, tint, dst=frame, dtype=cv2.CV_8U)
    if look.style == "moody":
        for frame in frames:
            cv2.transform(frame, _MOODY, dst=frame)
    elif look.style == "painterly":
        _paint(frames, look.variant)
    elif look.style == "pencil":
        _draw(frames, look.variant)


def _paint(frames: np.ndarray, variant: int) -> None:
    _, height, width, _ = frames.shape
    source_x, source_y, relief = _strokes(height, width, variant)
    for frame in frames:
        laid = cv2.remap(frame, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        laid = cv2.transform(laid, _PAINTERLY)
        cv2.multiply(laid, relief, dst=frame, dtype=cv2.CV_8U)


@functools.lru_cache(maxsize=2 * VARIANTS)
def _strokes(height: int, width: int, variant: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pixel of a brush stroke takes its colour from (x, y), and the relief of the paint (H, W, 3).

    Strokes are the cells of scattered centres, measured with a stretched distance along a slowly turning
    direction; a cell takes most of its colour from its centre.
    """
    side = min(height, width)
    rng = np.random.default_rng(1000 + variant)
    y, x = (a.astype(np.float64) for a in np.mgrid[0:height, 0:width])
    phase = rng.uniform(0, 2 * math.pi, 3)
    pitch = 4.2 * max(1.0, side / 64) ** 0.8  # pixels between strokes
    rows, columns = math.ceil(height / pitch) + 2, math.ceil(width / pitch) + 2
    cy, cx = np.mgrid[0:rows, 0:columns].reshape(2, -1) - 0.5
    cx = (cx + rng.uniform(-0.45, 0.45, cx.size)) * pitch
    cy = (cy + rng.uniform(-0.45, 0.45, cy.size)) * pitch
    turn = 0.9 * np.sin(2 * math.pi * cx / width * 0.8 + phase[0]) + 0.9 * np.sin(
        2 * math.pi * cy / height * 0.7 + phase[1]
    )
    nearest = np.full(x.shape, np.inf)
    owner = np.zeros(x.shape, int)
    across_of = np.zeros(x.shape)
    for k in range(cx.size):
        dx, dy = x - cx[k], y - cy[k]
        along = math.cos(turn[k]) * dx + math.sin(turn[k]) * dy
        across = -math.sin(turn[k]) * dx + math.cos(turn[k]) * dy
        distance = (along / 1.7) ** 2 + (across / 0.8) ** 2
        better = distance < nearest
        nearest[better], owner[better], across_of[better] = distance[better], k, across[better]
    pull = 0.36
    tone = rng.normal(0, 0.05, cx.size)[owner]  # each stroke was loaded a little differently
    ridge = 0.05 * np.sin(across_of / (0.75 * pitch) * 2 * math.pi)  # bristles and impasto
    relief = np.repeat((1 + tone + ridge)[..., None], 3, axis=2)
    relief *= 1 + rng.normal(0, 0.016, (cx.size, 3))[owner]
    return (
        (x + pull * (cx[owner] - x)).astype(np.float32),
        (y + pull * (cy[owner] - y)).astype(np.float32),
        relief.astype(np.float32),
    )


_WASH = 0.46  # share of the colour that stays


def _draw(frames: np.ndarray, variant: int) -> None:
    count, height, width, _ = frames.shape
    paper, first, second = _paper(height, width, variant)
    gray = frames.reshape(count, -1, 3) @ LUMA  # (T, H * W)
    dark = 1 - gray.reshape(count, height, width) * np.float32(1 / 255)
    ink = np.clip((dark - first) * 1.3, 0, 0.34)
    ink += np.clip((dark - second) * 1.3, 0, 0.30)
    ink += np.clip((dark - 0.66) * 2.4, 0, 0.7)  # outlines and the deepest darks are pressed hard
    np.minimum(ink, 0.9, out=ink)
    tone = paper * (1 - ink) - np.float32(255 * _WASH) * (1 - dark)  # (T, H, W)
    result = frames * np.float32(_WASH)
    result += tone[..., None] + np.float32(0.5)
    np.clip(result, 0, 255, out=result)
    frames[:] = result


@functools.lru_cache(maxsize=2 * VARIANTS)
def _paper(height: int, width: int, variant: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brightness of the paper, and the darkness at which each of two hatchings appears, all (H, W) float32."""
    side = min(height, width)
    rng = np.random.default_rng(2000 + variant)
    y, x = (a.astype(np.float64) for a in np.mgrid[0:height, 0:width])
    rough = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 0.8)
    paper = 243 + 4 * rough / rough.std()
    pitch = 4.0 * max(1.0, side / 64) ** 0.6  # pixels between lines
    hatchings = []
    for angle, low in ((-0.85 + rng.uniform(-0.12, 0.12), 0.06), (0.70 + rng.uniform(-0.12, 0.12), 0.34)):
        wobble = 0.10 * np.sin(2 * math.pi * (x * 0.9 + y * 1.3) / side + rng.uniform(0, 6))
        across = (x * math.sin(angle) + y * math.cos(angle)) / pitch + wobble
        line = 0.5 + 0.5 * np.cos(2 * math.pi * across)  # 1 on a line
        hatchings.append((low + 0.75 * (1 - line)).astype(np.float32))
    return paper.astype(np.float32), hatchings[0], hatchings[1]
