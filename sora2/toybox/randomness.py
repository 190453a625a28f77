"""Random streams keyed by what they are for, so that a new draw in one place moves no other."""

from __future__ import annotations

import zlib
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def stream(seed: int, split: str, scene: str, index: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose ("parameters", "caption", "ambience" ...) of one clip."""
    words = [seed, index, *(zlib.crc32(name.encode()) for name in (split, scene, purpose))]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def pick(rng: np.random.Generator, choices: tuple[T, ...]) -> T:
    """One of `choices`, uniformly."""
    return choices[int(rng.integers(len(choices)))]
