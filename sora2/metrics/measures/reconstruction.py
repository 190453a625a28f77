"""How close is a clip to the one it should reproduce? For codecs, and for any row with a reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from sora2.metrics.evidence import Evidence
from sora2.metrics.matching import match
from sora2.metrics.onsets import SILENCE, detect_onsets
from sora2.metrics.registry import metric
from sora2.metrics.spectra import log_mel, si_sdr
from sora2.metrics.values import Unmeasurable

#: PSNR of pictures that are equal to the last bit, which has no finite value.
HIGHEST_PSNR = 100.0
#: Codecs pad sound to whole frames; a larger difference of length is a defect, not padding.
LENGTH_SLACK_SECONDS = 0.05


@metric("video_psnr", unit="dB", direction="higher", needs=("video", "reference"), tolerance=30)
def video_psnr(evidence: Evidence) -> float:
    """Peak signal to noise ratio of all pixels of the clip against its reference, 8-bit range."""
    clip, reference = evidence.clip, evidence.reference
    if reference.video is None:
        raise Unmeasurable("the reference has no video")
    if clip.video.shape != reference.video.shape:
        raise Unmeasurable(
            f"the reference has another size: {tuple(reference.video.shape)} against {tuple(clip.video.shape)}"
        )
    error = clip.video.numpy().astype(np.float32) - reference.video.numpy().astype(np.float32)
    mean_square = float(np.mean(error**2))
    return min(HIGHEST_PSNR, 10 * np.log10(255**2 / mean_square)) if mean_square > 0 else HIGHEST_PSNR


@metric("audio_si_sdr", unit="dB", direction="higher", needs=("audio", "reference"), tolerance=10)
def audio_si_sdr(evidence: Evidence) -> float:
    """Scale-invariant signal to distortion ratio of the sound against its reference."""
    return si_sdr(*_sounds(evidence))


@metric("log_mel_distance", unit="", direction="lower", needs=("audio", "reference"), tolerance=0.5)
def log_mel_distance(evidence: Evidence) -> float:
    """Mean absolute difference of log mel amplitudes (64 bands, natural logarithm) against the reference."""
    sound, target = _sounds(evidence)
    rate = evidence.clip.sample_rate
    return float(np.abs(log_mel(sound, rate) - log_mel(target, rate)).mean())


@metric(
    "onset_shift",
    unit="ms",
    direction="lower",
    needs=("audio", "reference"),
    tolerance=10,
    statistic="median",
)
def onset_shift(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Median distance of the clip's onsets from those of the reference, pairs within 50 ms; half must have a pair."""
    _, target = _sounds(evidence)
    expected = detect_onsets(target, evidence.clip.sample_rate).seconds
    if not len(expected):
        raise Unmeasurable("nothing begins to sound in the reference")
    rows, columns = match(expected, evidence.onsets.seconds, 0.050)
    if len(rows) < 0.5 * len(expected):
        raise Unmeasurable(f"{len(expected) - len(rows)} of {len(expected)} onsets of the reference are lost")
    shift = evidence.onsets.seconds[columns] - expected[rows]
    return 1e3 * float(np.median(np.abs(shift))), {
        "pairs": len(rows),
        "signed_ms": 1e3 * float(np.median(shift)),
    }


def _sounds(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """(sound, reference) (channels, S) of one length."""
    clip, reference = evidence.clip, evidence.reference
    if reference.audio is None:
        raise Unmeasurable("the reference has no sound")
    if (clip.sample_rate, len(clip.audio)) != (reference.sample_rate, len(reference.audio)):
        raise Unmeasurable(
            f"the reference has {len(reference.audio)} channels at {reference.sample_rate} Hz, "
            f"the clip {len(clip.audio)} at {clip.sample_rate} Hz"
        )
    if abs(clip.audio_seconds - reference.audio_seconds) > LENGTH_SLACK_SECONDS:
        raise Unmeasurable(
            f"the sound is {clip.audio_seconds:.2f} s long, that of the reference {reference.audio_seconds:.2f} s"
        )
    samples = min(clip.audio.shape[1], reference.audio.shape[1])
    sound, target = (a[:, :samples].numpy().astype(np.float64) for a in (clip.audio, reference.audio))
    if not np.isfinite(sound).all():
        raise Unmeasurable("the sound has values that are not finite")
    if np.abs(target).max(initial=0.0) < SILENCE:
        raise Unmeasurable("the reference is silent")
    return sound, target
