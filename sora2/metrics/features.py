"""Named descriptions of a clip, whose distributions are compared between sets.

Each is a function of `Evidence` to a vector of fixed length, or (for `events`) to lists. None of them is a published
embedding, so no distance on them may be called FVD or FAD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.events import heard_events, seen_events
from sora2.metrics.evidence import Evidence
from sora2.metrics.spectra import log_mel
from sora2.metrics.values import MetricError, Unmeasurable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """One description."""

    name: str
    needs: tuple[str, ...]
    describe: Callable[[Evidence], Any]

    def __call__(self, evidence: Evidence) -> Any | None:
        """The description as plain numbers; None for a clip that has none."""
        if not all(evidence.offers(need) for need in self.needs):
            return None
        try:
            found = self.describe(evidence)
        except Unmeasurable:
            return None
        return found.tolist() if isinstance(found, np.ndarray) else found


_FEATURES: dict[str, Feature] = {}


def feature(
    name: str, needs: Iterable[str]
) -> Callable[[Callable[[Evidence], Any]], Callable[[Evidence], Any]]:
    """Register the decorated function as a named description."""

    def register(function: Callable[[Evidence], Any]) -> Callable[[Evidence], Any]:
        if name in _FEATURES:
            raise MetricError(f"feature {name!r} is registered twice")
        _FEATURES[name] = Feature(name, tuple(needs), function)
        return function

    return register


def get_feature(name: str) -> Feature:
    return _FEATURES[name]


@feature("motion", ("video",))
def motion(evidence: Evidence) -> Array:
    """(8,) balls, presence, speed and its spread, gravity, contacts per second, strength of contacts, radius."""
    tracks = evidence.tracks
    if not tracks:
        return np.zeros(8)
    scale, fps = evidence.pixels_per_unit, evidence.clip.fps
    speed = np.concatenate([np.linalg.norm(np.diff(t.xy, axis=0), axis=1) for t in tracks]) * fps / scale
    speed = speed[np.isfinite(speed)]
    contacts = evidence.motion.contacts
    gravity = evidence.motion.gravity / scale
    return np.array(
        [
            len(tracks),
            np.mean([t.presence for t in tracks]),
            speed.mean() if len(speed) else 0.0,
            speed.std() if len(speed) else 0.0,
            np.clip(gravity, -20, 20) if np.isfinite(gravity) else 0.0,
            len(contacts) / evidence.clip.seconds,
            np.mean([c.strength for c in contacts]) / scale if contacts else 0.0,
            np.mean([t.radius for t in tracks]) / scale,
        ]
    )


@feature("flow_histogram", ("video",))
def flow_histogram(evidence: Evidence) -> Array:
    """(12,) shares of pixels by speed (4 classes) times direction (still, sideways, vertical), square root."""
    flow = evidence.flow * (evidence.clip.fps / evidence.pixels_per_unit)
    if not len(flow):
        raise Unmeasurable("one frame")
    speed = np.linalg.norm(flow, axis=-1)
    bins = np.digitize(speed, (0.1, 0.5, 1.5))
    way = np.where(speed < 0.1, 0, np.where(np.abs(flow[..., 0]) > np.abs(flow[..., 1]), 1, 2))
    counts = np.bincount((bins * 3 + way).ravel(), minlength=12)
    return np.sqrt(counts / counts.sum())


@feature("colour_layout", ("video",))
def colour_layout(evidence: Evidence) -> Array:
    """(24,) mean and standard deviation in time of the colour of each quarter of the picture."""
    video = evidence.clip.video.numpy()
    frames, height, width, _ = video.shape
    h, w = height // 2, width // 2
    quarters = [
        video[:, a * h : (a + 1) * h, b * w : (b + 1) * w].mean(axis=(1, 2)) for a in (0, 1) for b in (0, 1)
    ]
    colour = np.stack(quarters, axis=1).reshape(frames, 12)
    return np.concatenate([colour.mean(axis=0), colour.std(axis=0)])


@feature("log_mel", ("audio",))
def log_mel_statistics(evidence: Evidence) -> Array:
    """(32,) mean and standard deviation in time of 16 log-mel bands, channels averaged."""
    mel = log_mel(evidence.sound, evidence.clip.sample_rate, bands=16).mean(axis=0)
    return np.concatenate([mel.mean(axis=0), mel.std(axis=0)])


@feature("events", ("video", "audio"))
def events(evidence: Evidence) -> dict[str, list[Any]]:
    """Impacts seen and sounds heard, to be matched across clips."""
    found: dict[str, list[Any]] = {}
    for name, detect in (("seen", seen_events), ("heard", heard_events)):
        try:
            e = detect(evidence)
            found[name] = [e.seconds.tolist(), e.weight.tolist(), e.certain.tolist()]
        except Unmeasurable:
            found[name] = [[], [], []]
    return found
