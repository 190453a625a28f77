"""The face as layers: head, hair, hat, eyes, brows, nose, mouth, glasses.

Sizes here are in head units about the middle of the head; `HEAD_SCALE` makes world units of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from sora2.toybox.identity import Identity
from sora2.toybox.layers import Color, Layer
from sora2.toybox.shapes import Shape, box, capsule, circle, column, ellipse, half_plane, length, union
from sora2.toybox.vocabulary import COLORS

SKINS: Mapping[str, Color] = MappingProxyType(
    {
        "porcelain": (252, 226, 210),
        "light": (242, 198, 160),
        "tan": (216, 160, 110),
        "brown": (164, 106, 68),
        "dark": (122, 80, 56),
    }
)
LIPS: Mapping[str, Color] = MappingProxyType(
    {
        "porcelain": (226, 92, 104),
        "light": (214, 82, 88),
        "tan": (196, 70, 72),
        "brown": (196, 78, 78),
        "dark": (188, 80, 82),
    }
)
HAIRS: Mapping[str, Color] = MappingProxyType(
    {
        "black": (40, 36, 42),
        "brown": (108, 66, 36),
        "blond": (238, 198, 96),
        "red": (200, 80, 30),
        "grey": (172, 172, 178),
    }
)
HATS: Mapping[str, Color] = MappingProxyType(
    {"cap": COLORS["red"], "beanie": COLORS["blue"], "brim": (120, 84, 52)}
)
INSIDE: Color = (44, 8, 14)
TONGUE: Color = (124, 8, 34)
#: Places in the head: heights of eyes, brows and mouth, half the distance of the eyes.
EYES_Y, BROWS_Y, NOSE_Y, MOUTH_Y, EYES_APART = -0.045, -0.135, 0.055, 0.165, 0.115
LIP = 0.026
#: Below this opening the dark between the lips grows faint.
SHUT = 0.012
#: Edge of a hat on the forehead.
HAT_Y = -0.175
#: World units of one unit in the head.
HEAD_SCALE = 1.1
#: Expression -> (lift of the corners of the mouth, lift of the brows, slant of the brows: inner end down).
EXPRESSION: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "calm": (0.004, 0.0, 0.0),
        "smiling": (0.032, 0.008, 0.0),
        "surprised": (-0.004, 0.035, -0.012),
        "stern": (-0.024, -0.014, 0.028),
    }
)


def pair(shape: Shape, apart: float) -> Shape:
    """The shape twice, `apart` to the left and to the right, both the same way round."""
    shift = np.float32(apart)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return shape.distance(u - np.copysign(shift, u), v)

    return Shape(distance, (shape.extent[0] + apart, shape.extent[1]), shape.frames)


def mirrored(shape: Shape, apart: float) -> Shape:
    """The shape to the right at `apart`, and its mirror image to the left."""
    shift = np.float32(apart)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return shape.distance(np.abs(u) - shift, v)

    return Shape(distance, (shape.extent[0] + apart, shape.extent[1]), shape.frames)


def between(shape: Shape, top: float, bottom: float) -> tuple[Shape, float]:
    """The part of the shape from v = top to bottom, about its own middle, and v of that middle.

    No more than that part is evaluated.
    """
    middle, half = np.float32((top + bottom) / 2), np.float32((bottom - top) / 2)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.maximum(shape.distance(u, v + middle), np.abs(v) - half)

    return Shape(distance, (shape.extent[0], float(half)), shape.frames), float(middle)


def bent(shape: Shape, lift: float, half_width: np.ndarray) -> Shape:
    """The shape with its ends, at `half_width`, lifted by `lift`; the middle stays."""
    bend = column(lift / np.asarray(half_width) ** 2)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return shape.distance(u, v + bend * u * u)

    extent = (shape.extent[0], shape.extent[1] + 1.6 * abs(lift))
    return Shape(distance, extent, max(shape.frames, length(half_width)))


def head_sizes(who: Identity) -> tuple[float, float]:
    """Half width and half height of the head."""
    wide, tall = {"round": (0.285, 0.295), "oval": (0.25, 0.315), "square": (0.262, 0.295)}[who.face]
    return wide * who.width, tall


def head_shape(who: Identity) -> Shape:
    wide, tall = head_sizes(who)
    return box(wide, tall, 0.15) if who.face == "square" else ellipse(wide, tall)


def face_layers(
    who: Identity,
    expression: str,
    gaze: str,
    shirt: str,
    rest_x: float,
    head: tuple[np.ndarray, np.ndarray, np.ndarray],
    eyes: np.ndarray,
    mouth: tuple[np.ndarray, np.ndarray],
) -> list[Layer]:
    """All layers, back to front: `head` is x, y, turn (T,); `eyes` how open (T,); `mouth` opening, half width."""
    x, y, turn = head
    wide, tall = head_sizes(who)
    skin = SKINS[who.skin]
    shape = head_shape(who)
    ears = mirrored(ellipse(0.04, 0.06), wide)
    nose = Layer(
        ellipse(0.026, 0.036),
        _mixed(skin, LIPS[who.skin], 0.28),
        x=1.35 * turn,
        y=NOSE_Y,
        outline=0,
        surface="dome",
        soft=0.012,
        name="nose",
    )
    skull, middle = _below_hat(who, union(shape, ears), -tall, tall)
    parts = [  # features move further than the outline when the head turns
        *_hair_behind(who, shape),
        Layer(skull, skin, y=middle, surface="dome", name="head"),
        *_eyes(who, expression, gaze, turn, eyes),
        nose,
        *_mouth(who, expression, turn, mouth),
        *_hair_before(who, shape, turn),
        *_hat(who, wide, turn),
        *_glasses(who, turn),
    ]
    placed = [
        replace(part, x=x + HEAD_SCALE * part.x, y=y + HEAD_SCALE * part.y, size=HEAD_SCALE) for part in parts
    ]
    return [*_body(skin, shirt, rest_x), *placed]


def _below_hat(who: Identity, shape: Shape, top: float, bottom: float) -> tuple[Shape, float]:
    """What a hat leaves of a shape that lies between top and bottom."""
    return between(shape, top if who.hat == "none" else HAT_Y, bottom)


def _mixed(first: Color, second: Color, share: float) -> Color:
    a, b = np.array(first), np.array(second)
    return tuple(int(c) for c in np.rint(a + (b - a) * share))


def _body(skin: Color, shirt: str, x: float) -> list[Layer]:
    """Neck and shoulders; they go on below the picture."""
    return [
        Layer(
            box(0.40, 0.36, 0.16), COLORS[shirt], x=x, y=1.27, surface="bevel", bevel=0.05, name="shoulders"
        ),
        Layer(box(0.085, 0.13, 0.04), _mixed(skin, (60, 30, 20), 0.18), x=x, y=0.90, outline=0, name="neck"),
    ]


def _eyes(who: Identity, expression: str, gaze: str, x: np.ndarray, eyes: np.ndarray) -> list[Layer]:
    apart = EYES_APART * who.eyes
    _, lift, slant = EXPRESSION[expression]
    tall = 0.058 if expression == "surprised" else 0.042 if expression == "stern" else 0.050
    opening = np.maximum(tall * eyes, 0.007)
    white = ellipse(0.058, opening)
    side = {"camera": 0.0, "left": -0.022, "right": 0.022}[gaze]
    iris = circle(0.031).at(side, 0.0) & ellipse(0.056, opening)
    brow = HAIRS[who.hair_color] if who.hair_color != "blond" else (176, 132, 56)
    if who.hair_color == "black" and who.skin == "dark":
        brow = (20, 16, 18)
    return [
        Layer(pair(white, apart), (252, 252, 250), x=x, y=EYES_Y, outline=0.011, name="eyes"),
        Layer(pair(iris, apart), (34, 26, 30), x=x, y=EYES_Y, outline=0, name="pupils"),
        Layer(
            mirrored(capsule(-0.045, slant / 2, 0.045, -slant / 2, 0.014), apart),
            brow,
            x=x,
            y=BROWS_Y - lift,
            outline=0,
            name="brows",
        ),
    ]


def _mouth(
    who: Identity, expression: str, x: np.ndarray, mouth: tuple[np.ndarray, np.ndarray]
) -> list[Layer]:
    """Lips around the opening. At its middle the opening is exactly as high as `mouth` says, in world units."""
    opening, half = (value / HEAD_SCALE for value in mouth)
    lift = EXPRESSION[expression][0]
    lips = bent(ellipse(half + LIP, opening / 2 + LIP), lift, half)
    inner = bent(ellipse(half, np.maximum(opening / 2, 0.0008)), lift, half)
    low = column(opening / 2)
    soft = np.float32(0.016)

    def tongue(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The lower part of a mouth that is well open."""
        return np.clip((v - np.float32(0.25) * low) / soft, 0, 1) * np.clip((low - 0.035) / 0.02, 0, 1)

    return [
        Layer(lips, LIPS[who.skin], x=x, y=MOUTH_Y, outline=0, name="lips"),
        Layer(
            inner,
            INSIDE,
            x=x,
            y=MOUTH_Y,
            # a shut mouth is a faint line: thinner than a pixel, it must not look open
            opacity=np.clip(opening / SHUT, 0.4, 1.0),
            outline=0,
            second=TONGUE,
            pattern=tongue,
            name="mouth",
        ),
    ]


def _hair_behind(who: Identity, head: Shape) -> list[Layer]:
    wide, tall = head_sizes(who)
    color = HAIRS[who.hair_color]
    if who.hair == "long":
        shape = union(head.grown(0.045), box(wide + 0.045, 0.24, 0.10).at(0.0, 0.16))
        top, bottom = -tall - 0.045, 0.40
    elif who.hair == "curly":
        curls = [
            circle(0.10).at(float(0.98 * wide * np.cos(a)), float(-0.05 + 0.92 * tall * np.sin(a)))
            for a in np.linspace(0.92 * np.pi, 2.08 * np.pi, 9)
        ]
        shape = union(*curls)
        top, bottom = -0.15 - 0.92 * tall, 0.13
    elif who.hair == "bun" and who.hat == "none":
        shape = union(head.grown(0.02), circle(0.10).at(0.0, -tall - 0.05))
        top, bottom = -tall - 0.15, 0.02
    elif who.hair == "bun":  # a hat pushes it to the side
        shape = union(head.grown(0.02) & half_plane(0, 1, 0.03), circle(0.09).at(0.88 * wide, 0.14))
        top, bottom = HAT_Y, 0.23
    elif who.hair == "short":
        shape = head.grown(0.024)
        top, bottom = -tall - 0.024, 0.03
    else:
        return []
    shape, middle = _below_hat(who, shape, top, bottom)
    return [Layer(shape, color, y=middle, surface="dome", name="hair behind")]


def _hair_before(who: Identity, head: Shape, turn: np.ndarray) -> list[Layer]:
    if who.hair == "bald" or who.hat != "none":
        return []
    wide, tall = head_sizes(who)
    over, top = head.grown(0.022), -tall - 0.022
    if who.hair == "curly":
        shape = union(
            *(
                circle(0.075).at(float(0.8 * wide * np.cos(a)), float(-0.03 + 0.82 * tall * np.sin(a)))
                for a in np.linspace(1.08 * np.pi, 1.92 * np.pi, 6)
            )
        )
        top, bottom = -0.105 - 0.82 * tall, 0.0
    elif who.hair == "long":  # parted in the middle
        forehead = mirrored(ellipse(0.55 * wide, 0.9 * tall), 0.38 * wide).at(0.0, 0.62 * tall)
        shape, bottom = over - forehead, 0.0
    elif who.hair == "bun":  # combed back
        shape, bottom = over - ellipse(0.98 * wide, 1.05 * tall).at(0.0, 0.36 * tall), -0.06
    else:  # parted on one side
        shape, bottom = over - ellipse(1.02 * wide, 0.95 * tall).at(0.12 * wide, 0.50 * tall), -0.05
    shape, middle = between(shape, top, bottom)
    return [
        Layer(shape, HAIRS[who.hair_color], x=0.3 * turn, y=middle, surface="bevel", bevel=0.04, name="hair")
    ]


def _hat(who: Identity, wide: float, turn: np.ndarray) -> list[Layer]:
    if who.hat == "none":
        return []
    color = HATS[who.hat]
    dark = _mixed(color, (0, 0, 0), 0.3)
    if who.hat == "cap":
        crown, middle = between(ellipse(wide + 0.03, 0.19), -0.19, 0.0)
        visor = ellipse(wide * 0.86, 0.042)
        return [
            Layer(crown, color, y=HAT_Y + middle, surface="bevel", bevel=0.06, name="cap"),
            Layer(visor, dark, x=2.2 * turn, y=HAT_Y + 0.008, lift=0.02, name="visor"),
        ]
    if who.hat == "beanie":
        crown, middle = between(ellipse(wide + 0.035, 0.24), -0.24, 0.0)
        band = box(wide + 0.035, 0.042, 0.03)
        return [
            Layer(crown, color, y=HAT_Y + middle, surface="bevel", bevel=0.07, name="beanie"),
            Layer(band, dark, y=HAT_Y, surface="bevel", bevel=0.03, name="band"),
        ]
    crown = box(0.19, 0.13, 0.06)
    return [
        Layer(crown, color, y=HAT_Y - 0.10, surface="bevel", bevel=0.05, name="crown"),
        Layer(ellipse(wide + 0.13, 0.05), dark, x=turn, y=HAT_Y, lift=0.02, surface="bevel", name="brim"),
    ]


def _glasses(who: Identity, x: np.ndarray) -> list[Layer]:
    if who.glasses == "none":
        return []
    apart = EYES_APART * who.eyes
    lens = circle(0.083) if who.glasses == "round" else box(0.085, 0.066, 0.012)
    bridge = capsule(-(apart - 0.08), 0.0, apart - 0.08, 0.0, 0.009)
    frame = union(pair(lens.hollow(0.022), apart), bridge)
    return [
        Layer(frame, (30, 30, 36), x=x, y=EYES_Y, outline=0, surface="flat", name=f"{who.glasses} glasses")
    ]
