"""What a scene hands to the renderer: a backdrop and layers, described in world units, without any style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sora2.toybox.shapes import PerFrame, Shape, length

Color = tuple[int, int, int]  # sRGB, 0-255

#: Thickness of the dark outline that drawn styles give a layer, in world units.
OUTLINE = 1.2 / 64

SURFACES = ("flat", "dome", "bevel")
MATERIALS = ("matte", "wood", "metal", "glow")


@dataclass(frozen=True)
class Backdrop:
    """The still world behind all layers, painted once per clip.

    `paint(x, y, pixel, palette, *arguments)` takes world coordinates x (1, w) and y (h, 1), the size of a pixel
    in world units (make edges that soft), the palette ("flat" for bright drawn styles, "natural" for lit ones),
    and returns (h, w, 3) of 0-255. It must be defined everywhere: a moving camera looks beyond the picture's
    edges. `paint` is a module-level function and `arguments` are hashable, so that pictures can be kept.
    """

    paint: Callable[..., np.ndarray]
    arguments: tuple = ()


@dataclass(frozen=True)
class Layer:
    """One thing, from its shape to how it takes the light. Layers are drawn in order, the nearest last.

    Per-frame values are a number or (T,) for the T instants that `Scene.picture` was asked for.
    """

    shape: Shape
    color: Color
    x: PerFrame = 0.0  # world place of the shape's origin
    y: PerFrame = 0.0
    angle: PerFrame = 0.0  # radians, clockwise on the screen
    size: PerFrame = 1.0  # magnifies the shape
    opacity: PerFrame = 1.0  # 0 hides the layer, fractions let what is behind shine through
    surface: str = "flat"  # "dome": a ball, by its extent; "bevel": flat with a rounded rim
    bevel: float = 0.02  # width of the rounded rim, world units
    material: str = "matte"  # "wood" has grain, "metal" gloss; "glow" is its own light: no shade, no outline
    #: The color is mixed towards `second` by `pattern(u, v)` (0 to 1) of the local coordinates.
    second: Color | None = None
    pattern: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    outline: float = OUTLINE  # 0 for none
    soft: float = 0.0  # width in world units over which the edge fades, beyond one pixel (mist, light beams)
    ground: float | None = None  # y of the floor that takes its contact shadow in lit styles
    lift: float = 0.0  # distance from what is behind: it throws a soft shadow that far in lit styles
    name: str = ""

    @property
    def frames(self) -> int:
        """1 when nothing changes from frame to frame, else T."""
        values = (self.x, self.y, self.angle, self.size, self.opacity)
        return max(self.shape.frames, *(length(value) for value in values))


@dataclass(frozen=True)
class Picture:
    """The world at T instants."""

    backdrop: Backdrop
    layers: Sequence[Layer] = field(default_factory=tuple)
