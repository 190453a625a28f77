"""What the listener at the camera hears of passing vehicles: 1/r, pan and Doppler along the true line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from sora2.toybox.engine import ENGINES, engine_sound, horn_sound, rolling_noise
from sora2.toybox.scenes.street_traffic import Vehicle

#: Root mean square, before panning, of each kind at `REFERENCE_METRES`; the horn's amplitude there.
LOUDNESS: Mapping[str, float] = MappingProxyType({"car": 0.16, "truck": 0.21, "motorbike": 0.19})
HORN_LOUDNESS, HORN_SECONDS = 0.11, 0.35
REFERENCE_METRES = 10.0
#: Houses stand between the listener and what is farther along the road: it fades out between these metres.
FADE_METRES = (110.0, 160.0)


def vehicle_level(distance: np.ndarray) -> np.ndarray:
    """Factor on `LOUDNESS` at a distance in metres: 1/r."""
    return REFERENCE_METRES / distance


def add_vehicle(
    audio: np.ndarray, vehicle: Vehicle, noise: np.ndarray, width: float, sample_rate: int
) -> None:
    """Add one vehicle to audio (channels, S) in place; `noise` is a table of `rolling_noise_table`.

    `width` is that of the picture in world units: what is seen at its left edge sounds from the left.
    """
    channels, samples = audio.shape
    line = vehicle.pass_by()
    first, last = sorted(
        line.closest_seconds + sign * FADE_METRES[1] / max(abs(line.speed), 0.1) for sign in (-1, 1)
    )
    start = max(0, math.ceil(line.heard_seconds(first) * sample_rate))
    stop = min(samples, math.floor(line.heard_seconds(last) * sample_rate))
    if stop <= start:
        return
    emitted = line.emitted_seconds(np.arange(start, stop) / sample_rate)
    along = line.along(emitted)
    tyres = ENGINES[vehicle.kind].tyres
    sound = np.float32(math.sqrt(1 - tyres * tyres)) * engine_sound(vehicle.kind, emitted)
    sound += np.float32(tyres) * rolling_noise(noise, emitted, sample_rate)
    sound *= np.float32(LOUDNESS[vehicle.kind])
    if vehicle.horn_seconds is not None:
        horn = horn_sound(vehicle.kind, emitted, vehicle.horn_seconds, vehicle.horn_seconds + HORN_SECONDS)
        sound += np.float32(HORN_LOUDNESS) * horn
    level = vehicle_level(np.sqrt(line.closest_metres**2 + along * along))
    far = np.abs(along)
    if far[0] > FADE_METRES[0] or far[-1] > FADE_METRES[0]:
        share = np.clip((FADE_METRES[1] - far) / (FADE_METRES[1] - FADE_METRES[0]), 0, 1)
        level = level * np.sin(0.5 * math.pi * share) ** 2
    sound *= level.astype(np.float32)
    if channels == 1:
        audio[0, start:stop] += sound
        return
    pan = np.clip(2 * vehicle.picture_x(along, width / 2) / width - 1, -1, 1).astype(np.float32)
    angle = (pan + 1) * np.float32(math.pi / 4)
    audio[0, start:stop] += np.cos(angle) * sound
    audio[1, start:stop] += np.sin(angle) * sound
