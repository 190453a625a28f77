"""The sound of a ball that rolls: band-limited noise whose level follows the speed exactly."""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.fft

from sora2.toybox.config import ToyboxConfig
from sora2.toybox.physics import Roll, Trajectories
from sora2.toybox.sound import pan_position

#: Root mean square at one world unit per second, before panning.
ROLL_LEVEL = 0.07
#: Rolls slower than this at both ends, or shorter, are not heard and not in the truth.
SILENT_ROLL_SPEED, SHORTEST_ROLL_SECONDS = 0.04, 0.02
#: Hz between which each material rumbles.
BANDS = {"rubber": (70.0, 320.0), "wood": (160.0, 900.0), "metal": (500.0, 2800.0)}
FADE_SECONDS = 0.002


def audible_rolls(world: Trajectories) -> list[Roll]:
    """Rolls that are heard, neighbours in time kept apart: each has one acceleration."""
    return [
        roll
        for roll in world.rolls()
        if roll.stop_seconds - roll.start_seconds >= SHORTEST_ROLL_SECONDS
        and max(abs(roll.start_speed), abs(roll.stop_speed)) >= SILENT_ROLL_SPEED
    ]


def roll_level(speed: np.ndarray) -> np.ndarray:
    """Root mean square of the sound at a speed along the ground (world units per second)."""
    return ROLL_LEVEL * np.abs(speed)


def add_roll(
    audio: np.ndarray,
    roll: Roll,
    world: Trajectories,
    material: str,
    config: ToyboxConfig,
    rng: np.random.Generator,
) -> None:
    """Add one roll to audio (channels, S) in place; zero before its start and after its end."""
    rate = config.sample_rate
    first = math.ceil(roll.start_seconds * rate)
    last = min(audio.shape[1], math.floor(roll.stop_seconds * rate))
    if last - first < 2:
        return
    seconds = np.arange(first, last) / rate
    share = (seconds - roll.start_seconds) / (roll.stop_seconds - roll.start_seconds)
    speed = roll.start_speed + (roll.stop_speed - roll.start_speed) * share
    edge = np.minimum(seconds - roll.start_seconds, roll.stop_seconds - seconds) / FADE_SECONDS
    size = scipy.fft.next_fast_len(last - first, real=True)
    band = _band(material, size, rate)
    spectrum = rng.standard_normal((band.size, 2), np.float32).view(np.complex64)[..., 0]
    noise = scipy.fft.irfft(spectrum * band, size)[: last - first]
    noise *= 1 / math.sqrt(float(np.mean(np.square(noise))) + 1e-20)
    noise = noise * (roll_level(speed) * np.minimum(edge, 1)).astype(np.float32)
    if audio.shape[0] == 1:
        audio[0, first:last] += noise
        return
    every = max(1, round(0.01 * rate))  # the place changes slowly: pan every 10 ms
    knots = np.append(seconds[::every], seconds[-1])
    places = world.at(knots)[roll.ball, 0]
    pans = np.array([pan_position(float(x), config.world_size[0]) for x in places])
    angle = (np.interp(seconds, knots, pans) + 1) * (math.pi / 4)
    audio[0, first:last] += noise * np.cos(angle).astype(np.float32)
    audio[1, first:last] += noise * np.sin(angle).astype(np.float32)


@functools.lru_cache(maxsize=32)
def _band(material: str, size: int, sample_rate: int) -> np.ndarray:
    low, high = BANDS[material]
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / sample_rate), 1.0)
    return (1 / (1 + (low / frequency) ** 4) / (1 + (frequency / high) ** 4)).astype(np.float32)
