"""What a corruption is: a name, a scale of severities with a neutral point, and a function of a clip."""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sora2.metrics.values import MetricError
from sora2.toybox import ToyboxConfig, get_scene
from sora2.types import Clip


@dataclass(frozen=True)
class Subject:
    """A clip to be damaged, and another one whose sound or prompt may be put in its place."""

    clip: Clip
    donor: Clip | None = None

    @classmethod
    def of(cls, clip: Clip, donor: Clip | None = None) -> Subject:
        return cls(clip, donor)

    @property
    def truth(self) -> dict[str, Any]:
        return self.clip.meta["truth"]

    @property
    def config(self) -> ToyboxConfig:
        """The toybox that made the clip."""
        t = self.truth
        names = ("seed", "split", "frames", "height", "width", "fps", "sample_rate", "channels")
        return ToyboxConfig(scenes=(t["scene"],), **{n: t[n] for n in names})

    @property
    def scene(self) -> Any:
        return get_scene(self.truth["scene"])

    def rng(self, salt: str) -> np.random.Generator:
        """Random numbers of this clip and use: the same for all severities, so that only the severity differs."""
        return np.random.default_rng([zlib.crc32(salt.encode()), zlib.crc32(self.clip.key.encode())])


@dataclass(frozen=True)
class Corrupted:
    """A damaged clip, and the truth that it is measured against where that is not the clip's own."""

    clip: Clip
    truth: dict[str, Any]


#: A function of (subject, severity) to a clip, or to a clip with another truth.
Function = Callable[[Subject, float], Clip | Corrupted]


@dataclass(frozen=True)
class Corruption:
    """One kind of damage."""

    name: str
    unit: str
    severities: tuple[float, ...]  # ascending, `neutral` among them
    neutral: float  # the severity that changes nothing
    streams: frozenset[str]  # what it damages: "video", "audio", "truth"
    description: str
    function: Function
    scenes: tuple[str, ...] = ()  # that it can damage; empty: any clip

    def apply(self, subject: Subject, severity: float) -> Corrupted:
        """The damaged clip; the clip itself, untouched, at the neutral severity."""
        if severity == self.neutral:
            return Corrupted(subject.clip, subject.truth)
        result = self.function(subject, severity)
        return result if isinstance(result, Corrupted) else Corrupted(result, subject.truth)

    def sides(self) -> list[list[float]]:
        """Severities in order of damage, from the neutral one outwards, on each side that has any."""
        below = [s for s in reversed(self.severities) if s <= self.neutral]
        above = [s for s in self.severities if s >= self.neutral]
        return [side for side in (above, below) if len(side) > 1]

    def applies_to(self, clip: Clip) -> bool:
        """Whether the clip has what is to be damaged."""
        if self.scenes and clip.meta["truth"]["scene"] not in self.scenes:
            return False
        needed = self.streams - {"truth"}
        return all(getattr(clip, stream) is not None for stream in needed)


_CORRUPTIONS: dict[str, Corruption] = {}


def corruption(
    name: str,
    *,
    unit: str,
    severities: Sequence[float],
    neutral: float,
    streams: Iterable[str],
    scenes: Iterable[str] = (),
) -> Callable[[Function], Function]:
    """Register the decorated function. The first paragraph of its docstring is the description."""
    if name in _CORRUPTIONS:
        raise MetricError(f"corruption {name!r} is registered twice")
    if neutral not in severities or list(severities) != sorted(severities):
        raise MetricError(f"corruption {name!r}: severities must ascend and hold the neutral {neutral}")

    def register(function: Function) -> Function:
        text = " ".join((function.__doc__ if function.__doc__ else "").split("\n\n")[0].split())
        _CORRUPTIONS[name] = Corruption(
            name,
            unit,
            tuple(float(s) for s in severities),
            float(neutral),
            frozenset(streams),
            text,
            function,
            tuple(scenes),
        )
        return function

    return register


def all_corruptions() -> dict[str, Corruption]:
    """Every registered corruption by name."""
    from sora2.metrics import corruptions

    for module in sorted(pkgutil.iter_modules(corruptions.__path__), key=lambda m: m.name):
        importlib.import_module(f"{corruptions.__name__}.{module.name}")
    return dict(_CORRUPTIONS)


def select_corruptions(names: Iterable[str] | None = None) -> dict[str, Corruption]:
    """The named corruptions, all when None.

    Raises:
        MetricError: an unknown name; the message lists the known ones.
    """
    known = all_corruptions()
    wanted = list(known) if names is None else list(names)
    unknown = [n for n in wanted if n not in known]
    if unknown:
        raise MetricError(f"unknown corruption {', '.join(unknown)}: choose from {', '.join(known)}")
    return {n: known[n] for n in wanted}
