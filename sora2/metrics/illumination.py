"""Which light does the toybox picture stand in? Colours are read as they are under white light.

Backdrops of the toybox are muted, so the right light is the one without which the still picture is greyest. Of moody
pictures, whose finish is cold in every light, and of pictures in daylight nothing is taken away.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sora2.toybox.styles import grade

#: (style, light) of the tints that are tried: lamps of lit styles reach further than those of flat ones.
TINTS = (("cartoon", "dusk"), ("cartoon", "lamp"), ("cinematic", "lamp"))
#: A tint is taken away where that leaves less than this share of the backdrop's colour.
CLEAR = 0.66
#: Brightness (0-255) that a pixel's colour is compared with at least, so that black has none.
DARK = 24.0


def under_white_light(video: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
    """(T, H, W, 3) RGB as it would look in white light, float32 where a tint was taken away, else as it was."""
    still = np.median(video[::4], axis=0).astype(np.float32)  # (H, W, 3)
    tints = [grade(style, light, *video.shape[1:3]) for style, light in TINTS]
    colour = [_colourfulness(still / tint) for tint in tints]
    best = int(np.argmin(colour))
    if colour[best] >= CLEAR * _colourfulness(still):
        return video
    return video.astype(np.float32) / tints[best]


def _colourfulness(picture: NDArray[np.float32]) -> float:
    """Mean over pixels of the spread of the channels, as a share of the brightness."""
    mean = picture.mean(axis=-1)
    return float((picture.std(axis=-1) / (mean + DARK)).mean())
