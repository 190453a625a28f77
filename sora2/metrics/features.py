"""Named descriptions of a clip, whose distributions are compared between sets.

Each is a function of `Evidence` to a vector of fixed length, or to lists that are matched across clips. None of them is
what FID, FVD or FAD are defined on, so no distance on them may be called so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.events import heard_events, seen_events
from sora2.metrics.evidence import Evidence
from sora2.metrics.identity import enrolled, face_of, own, voice_of
from sora2.metrics.networks import published, whisper
from sora2.metrics.networks.front_ends import vggish_examples
from sora2.metrics.networks.image import image_features
from sora2.metrics.networks.sound import mono
from sora2.metrics.spectra import log_mel
from sora2.metrics.transcripts import spoken_words
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


@feature("whisper_encoder", ("audio",))
def whisper_encoder(evidence: Evidence) -> Array:
    """(384,) mean over time of the encoder of Whisper tiny.en, on the clip alone (not padded to 30 s)."""
    return whisper.encoder_mean(mono(evidence.sound, evidence.clip.sample_rate))


@feature("efficientnet_lite0", ("video",))
def efficientnet_lite0(evidence: Evidence) -> Array:
    """(1280,) last feature map of EfficientNet-Lite0 (ImageNet), mean over it and over three frames of the clip."""
    video = evidence.clip.video.numpy()
    return image_features(video[np.unique(np.linspace(0, len(video) - 1, 3).round().astype(int))]).mean(
        axis=0
    )


@feature("face", ("video", "enrolment"))
def face(evidence: Evidence) -> dict[str, list[float]]:
    """Face of the clip, and of its enrolment."""
    return {
        "own": own(evidence, "video", face_of).tolist(),
        "enrolled": enrolled(evidence, "video", face_of).tolist(),
    }


@feature("voice", ("audio", "enrolment"))
def voice(evidence: Evidence) -> dict[str, list[float]]:
    """Voice of the clip, and of its enrolment."""
    return {
        "own": own(evidence, "audio", voice_of).tolist(),
        "enrolled": enrolled(evidence, "audio", voice_of).tolist(),
    }


@feature("mouth", ("video", "audio"))
def mouth(evidence: Evidence) -> dict[str, Any]:
    """Opening of the mouth per frame and envelope of the voice, to be matched across clips."""
    if evidence.truth is not None and not spoken_words(evidence.truth)[0]:
        raise Unmeasurable("nobody is asked to speak")
    opening = [float(v) if np.isfinite(v) else None for v in evidence.mouth]
    return {"opening": opening, "envelope": evidence.envelope.tolist(), "fps": evidence.clip.fps}


@feature("videomae", ("video",))
def videomae(evidence: Evidence) -> Array:
    """(D,) mean of the last states of VideoMAE."""
    return published.video_embedding(evidence.clip.video.numpy())


@feature("i3d", ("video",))
def i3d(evidence: Evidence) -> Array:
    """(400,) logits of I3D (Kinetics-400) for the whole clip, as FVD takes them."""
    video = evidence.clip.video.permute(3, 0, 1, 2)[None].float()  # (1, 3, T, H, W)
    return published.run_script("i3d", video, True, True, True)[0].double().numpy()


@feature("vggish", ("audio",))
def vggish(evidence: Evidence) -> Array:
    """(128,) mean over spans of 0.96 s of VGGish."""
    examples = vggish_examples(mono(evidence.sound, evidence.clip.sample_rate))
    return published.run_script("vggish", examples).double().mean(dim=0).numpy()
