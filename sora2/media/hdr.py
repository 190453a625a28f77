"""High dynamic range pictures (the default of many phones) shown on the standard range that a `Clip` has.

Transfer curves and primaries: ITU-R BT.2100-2 (PQ, HLG), BT.2087 (BT.2020 to BT.709), BT.2408 (white at 203 cd/m2).
"""

from __future__ import annotations

from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc

#: Light of diffuse white, and the brightest light that is kept apart from what is brighter still, in cd/m2.
WHITE, PEAK = 203.0, 1000.0
#: Below this share of white the tone curve changes nothing.
KNEE = 0.3
DISPLAY_GAMMA = 2.4

_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)


def is_hdr(frame: av.VideoFrame) -> bool:
    return frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def rgb_of(frame: av.VideoFrame) -> np.ndarray:
    """Any decoded picture -> (H, W, 3) uint8 RGB, tone-mapped where it has a high dynamic range."""
    if not is_hdr(frame):
        return frame.to_ndarray(format="rgb24", threads=1)
    signal = frame.to_ndarray(format="rgb48le", threads=1)  # (H, W, 3) uint16, not linear
    if frame.color_trc == ColorTrc.SMPTE2084:
        light = _pq_light()[signal]
    else:
        scene = _hlg_scene()[signal]
        luminance = np.maximum(scene @ _LUMINANCE, 1e-6)[..., None]
        light = PEAK / WHITE * luminance**0.2 * scene  # system gamma 1.2 of a 1000 cd/m2 display
    if frame.color_primaries != ColorPrimaries.BT709:
        light = np.maximum(light @ _TO_BT709.T, 0.0)
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    shown = light * (_tone_curve(brightest) / brightest)
    return (255.0 * shown ** (1 / DISPLAY_GAMMA) + 0.5).astype(np.uint8)


def _tone_curve(light: np.ndarray) -> np.ndarray:
    """Light relative to white -> share of the display's range: the identity up to the knee, then a Moebius
    transform that meets it smoothly and reaches 1 at the peak."""
    peak = PEAK / WHITE
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    light = np.minimum(light, peak)
    bent = (b**2 + 2 * b * KNEE + KNEE**2) / (b - a) * (light + a) / (light + b)
    return np.where(light <= KNEE, light, bent)


@lru_cache(maxsize=1)
def _pq_light() -> np.ndarray:
    """(65536,) float32: light relative to white of each PQ signal (SMPTE ST 2084)."""
    power = (np.arange(65536) / 65535) ** (4096 / (2523 * 128))
    ratio = np.maximum(power - 3424 / 4096, 0) / (2413 / 4096 * 32 - 2392 / 4096 * 32 * power)
    return (10000 / WHITE * ratio ** (16384 / 2610)).astype(np.float32)


@lru_cache(maxsize=1)
def _hlg_scene() -> np.ndarray:
    """(65536,) float32: light of the scene, 0 to 1, of each HLG signal."""
    signal = np.arange(65536) / 65535
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
