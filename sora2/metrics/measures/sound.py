"""Artifacts of the sound."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyloudnorm
from numpy.typing import NDArray
from scipy.signal import lfilter

from sora2.metrics.damage import BROKEN_LAW, FALSE_SOUND, LOST_SOUND, MOVED_SOUND
from sora2.metrics.evidence import Evidence
from sora2.metrics.gates import clipped_share
from sora2.metrics.onsets import band_matrix, prediction_filter
from sora2.metrics.registry import metric
from sora2.metrics.values import Unmeasurable

Array = NDArray[np.float64]

FRAME_SECONDS = 0.03
#: A residual this many times its robust deviation, that is over within 2 ms, is a click.
CLICK_DEVIATIONS = 14.0
#: Least amplitude of a click's residual (full scale 1).
CLICK_AMPLITUDE = 0.004
#: Clicks this close (seconds) to an event are its own attack.
EVENT_SECONDS = 0.012
#: Frequencies of the mains, and how many of their harmonics are looked at.
MAINS_HZ, HARMONICS = (50.0, 60.0), 3
#: Loudness below the gate of BS.1770 has no value.
QUIETEST_LUFS = -70.0


#: All that adds to the sound or takes from it.
NOISY = (*FALSE_SOUND, *LOST_SOUND, *MOVED_SOUND, "dc offset", "hum", "audio compression")


def _audio(
    name: str,
    unit: str,
    tolerance: float,
    answers_to: tuple[str, ...],
    also: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    """A metric of the sound alone, less is better, with a paired twin."""
    return metric(
        name,
        unit=unit,
        direction=options.pop("direction", "lower"),
        needs=("audio",),
        tolerance=tolerance,
        answers_to=answers_to,
        also=also,
        paired=True,
        **options,
    )


@_audio("clipping", "%", 0.1, ("clipping",), ("sounds removed",))
def clipping(evidence: Evidence) -> float:
    """Samples in runs of at least 3 at full scale."""
    return 100 * clipped_share(_heard(evidence))


@_audio("dc_offset", "%", 1.0, ("dc offset",), ("sounds removed", "clipping"))
def dc_offset(evidence: Evidence) -> float:
    """Mean of the wave, larger of the channels, of full scale."""
    return 100 * float(np.abs(_heard(evidence).mean(axis=1)).max())


@_audio("clicks", "1/s", 0.5, ("clicks",), (*FALSE_SOUND, *MOVED_SOUND, *BROKEN_LAW, "sounds removed"))
def clicks(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Clicks per second outside events: outliers of the linear prediction residual after which the sound goes on as
    before. An impact rings; its attack, and all that the truth or the picture explains, is no click."""
    sound, rate = _heard(evidence), evidence.clip.sample_rate
    found: set[int] = set()
    explained = _event_seconds(evidence)
    for channel in sound:
        for sample in _outliers(channel, rate):
            if not len(explained) or np.abs(explained - sample / rate).min() > EVENT_SECONDS:
                found.add(round(sample / (0.005 * rate)))
    return len(found) / (sound.shape[1] / rate), {"clicks": len(found)}


@_audio("hum", "dB", 20.0, ("hum",), ("sounds removed",))
def hum(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """How far 50 or 60 Hz and its two next harmonics stand out from the spectrum around them, mean over the three,
    at least 0. What truly hums is not known to it."""
    sound, rate = _heard(evidence), evidence.clip.sample_rate
    if sound.shape[1] < rate:
        raise Unmeasurable("less than a second of sound")
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.shape[1]), axis=1)) ** 2
    power = spectrum.sum(axis=0) + 1e-12
    hertz = np.fft.rfftfreq(sound.shape[1], 1 / rate)
    best, which = 0.0, 0.0
    for mains in MAINS_HZ:
        stands = []
        for k in range(1, HARMONICS + 1):
            distance = np.abs(hertz - k * mains)
            line, around = power[distance <= 1.0].max(), np.median(power[(distance > 3) & (distance < 15)])
            stands.append(10 * np.log10(line / around))
        if np.mean(stands) > best:
            best, which = float(np.mean(stands)), mains
    return best, {"hertz": which}


@_audio("noise_floor", "dBFS", -25.0, ("sound noise",), NOISY, best=-90.0, claimed="twin")
def noise_floor(evidence: Evidence) -> float:
    """Level of the quietest tenth of 30 ms frames; at least -90 dBFS, which 16 bits end at."""
    power = _frames(evidence)
    return float(max(-90.0, 10 * np.log10(np.quantile(power, 0.1) + 1e-12)))


@_audio("loudness", "LUFS", -3.0, (), direction="zero", best=-23.0)
def loudness(evidence: Evidence) -> float:
    """Integrated loudness of ITU-R BS.1770-4, by pyloudnorm; broadcasts aim at -23 (EBU R 128)."""
    sound, rate = _heard(evidence), evidence.clip.sample_rate
    if sound.shape[1] < 0.4 * rate:
        raise Unmeasurable("less than 0.4 s of sound, one block of the measurement")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of silence, which is answered below
        value = float(pyloudnorm.Meter(rate).integrated_loudness(sound.T))
    if not np.isfinite(value) or value < QUIETEST_LUFS:
        raise Unmeasurable(f"quieter than {QUIETEST_LUFS:g} LUFS")
    return value


@_audio(
    "stereo_width",
    "%",
    0.05,
    ("stereo narrowed",),
    (*NOISY, "channels swapped"),
    direction="higher",
    best=10.0,
)
def stereo_width(evidence: Evidence) -> float:
    """Energy in the difference of the channels, of all energy; 0 for mono and for two equal channels."""
    sound = _heard(evidence)
    if len(sound) < 2:
        return 0.0
    left, right = sound[:2]
    side, middle = ((left - right) ** 2).sum(), ((left + right) ** 2).sum()
    return 100 * float(side / max(side + middle, 1e-12))


@_audio("sound_seam", "dB", 8.0, ("sound seam",), ("sounds removed", "wrong audio", "audio shift"))
def sound_seam(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Largest lasting step of the background sound, as where chunks of a long soundtrack meet: change of the level of
    the quietest fifth of frames, 0.4 s after against 0.4 s before, above -80 dBFS, median over 16 bands, so that the
    ring of an impact, which lies in few of them, does not count."""
    sound, rate = _heard(evidence), evidence.clip.sample_rate
    size, window = round(FRAME_SECONDS * rate), round(0.4 / FRAME_SECONDS)
    count = sound.shape[1] // size
    if count < 2 * window:
        raise Unmeasurable("less than 0.8 s of sound")
    frames = sound[:, : count * size].reshape(len(sound), count, size) * np.hanning(size)
    power = (np.abs(np.fft.rfft(frames, axis=-1)) ** 2).mean(axis=0) / size**2  # (F, bins)
    band = power @ band_matrix(power.shape[1], rate).T
    level = 10 * np.log10(np.maximum(band, 1e-8))
    floor = np.quantile(np.lib.stride_tricks.sliding_window_view(level, window, axis=0), 0.2, axis=-1)
    step = np.median(np.abs(floor[window:] - floor[:-window]), axis=1)
    k = int(np.argmax(step))
    return float(step[k]), {"seconds": (k + window) * FRAME_SECONDS}


def _heard(evidence: Evidence) -> Array:
    """(channels, S), not silent."""
    sound = evidence.sound
    if np.abs(sound).max() < 1e-5:
        raise Unmeasurable("the sound is silent")
    return sound


def _frames(evidence: Evidence) -> Array:
    """(F,) mean power of 30 ms frames over the channels."""
    sound = _heard(evidence)
    size = round(FRAME_SECONDS * evidence.clip.sample_rate)
    count = sound.shape[1] // size
    if count < 1:
        raise Unmeasurable("less than 30 ms of sound")
    cut = sound[:, : count * size]
    return (cut.reshape(len(sound), count, size) ** 2).mean(axis=(0, 2))


def _event_seconds(evidence: Evidence) -> Array:
    """Moments that the truth, or else the picture, explains."""
    if evidence.truth is not None and "events" in evidence.truth:
        return np.array([e["onset_seconds"] for e in evidence.truth["events"]])
    if evidence.offers("video"):
        return np.array([c.seconds for c in evidence.motion.contacts])
    return np.zeros(0)


def _outliers(x: Array, rate: int) -> list[int]:
    """Samples at which something comes and is gone within 2 ms."""
    residual = np.abs(_residual(x, round(0.25 * rate)))
    block = round(0.02 * rate)
    count = -(-len(residual) // block)
    padded = np.pad(residual, (0, count * block - len(residual)), mode="edge").reshape(count, block)
    local = np.maximum.reduce([np.roll(np.median(padded, axis=1), k) for k in (-1, 0, 1)])
    limit = np.maximum(CLICK_DEVIATIONS * 1.4826 * np.repeat(local, block)[: len(residual)], CLICK_AMPLITUDE)
    peaks = np.flatnonzero(residual > limit)
    found: list[int] = []
    for p in peaks:
        if found and p - found[-1] < 0.005 * rate:
            continue
        before = x[max(0, p - round(0.010 * rate)) : max(0, p - round(0.001 * rate))]
        after = x[p + round(0.002 * rate) : p + round(0.011 * rate)]
        if len(before) and len(after) and after.std() < 1.5 * before.std() + 0.25 * residual[p]:
            found.append(int(p))
    return found


def _residual(x: Array, length: int) -> Array:
    """What linear prediction, fitted anew every `length` samples, does not explain."""
    result = np.empty_like(x)
    for start in range(0, len(x), length):
        lead = min(start, 32)
        piece = x[start - lead : start + length]
        result[start : start + length] = lfilter(prediction_filter(piece), [1.0], piece)[lead:]
    return result
