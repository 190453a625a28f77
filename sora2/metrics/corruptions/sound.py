"""Damage to the sound as a signal."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import torch
from scipy.signal import resample
from torchaudio.functional import phase_vocoder

from sora2.media import read_clip
from sora2.metrics.corruptions.registry import Corrupted, Subject, corruption
from sora2.metrics.values import MetricError
from sora2.types import Clip

#: Level (dBFS) at which an added sound is not there.
NONE_DB = -120.0


def _with(subject: Subject, sound: np.ndarray) -> Clip:
    """The clip with another sound (channels, S)."""
    return subject.clip.replace(audio=torch.from_numpy(np.clip(sound, -1, 1).astype(np.float32)))


def _sound(subject: Subject) -> np.ndarray:
    return subject.clip.audio.numpy().astype(np.float64)


@corruption(
    "audio shift",
    unit="ms",
    severities=(-500, -300, -200, -100, -60, -30, 0, 30, 60, 100, 200, 300, 500),
    neutral=0,
    streams=("audio",),
)
def audio_shift(subject: Subject, milliseconds: float) -> Clip:
    """The sound later (positive) or earlier, silence filling in."""
    sound = subject.clip.audio
    n = round(milliseconds / 1000 * subject.clip.sample_rate)
    moved = torch.zeros_like(sound)
    moved[:, max(0, n) : sound.shape[1] + min(0, n)] = sound[:, max(0, -n) : sound.shape[1] - max(0, n)]
    return subject.clip.replace(audio=moved)


@corruption(
    "wrong audio", unit="of the clip", severities=(0, 0.25, 0.5, 0.75, 1), neutral=0, streams=("audio",)
)
def wrong_audio(subject: Subject, share: float) -> Clip:
    """The last part of the sound is that of another clip."""
    if subject.donor is None or subject.donor.audio is None:
        raise MetricError("wrong audio: needs a second clip with sound")
    own, other = _sound(subject), subject.donor.audio.numpy().astype(np.float64)
    samples, channels = own.shape[1], own.shape[0]
    other = np.resize(other, (channels, samples)) if other.shape != own.shape else other
    start = round((1 - share) * samples)
    return _with(subject, np.concatenate([own[:, :start], other[:, start:]], axis=1))


@corruption("pitch shift", unit="semitones", severities=(0, 2, 4, 8, 12), neutral=0, streams=("audio",))
def pitch_shift(subject: Subject, semitones: float) -> Clip:
    """The sound higher at the same pace (phase vocoder)."""
    ratio, size, hop = 2 ** (semitones / 12), 512, 64
    sound = subject.clip.audio
    window = torch.hann_window(size)
    spectrum = torch.stft(sound, size, hop, window=window, return_complex=True)
    advance = torch.linspace(0, torch.pi * hop, size // 2 + 1)[:, None]
    longer = phase_vocoder(spectrum, 1 / ratio, advance)
    stretched = torch.istft(longer, size, hop, window=window)  # as many times longer as the pitch is to rise
    return _with(subject, resample(stretched.numpy(), sound.shape[1], axis=1))


@corruption("channels swapped", unit="", severities=(0, 0.25, 0.5, 0.75, 1), neutral=0, streams=("audio",))
def channels_swapped(subject: Subject, share: float) -> Clip:
    """Left and right exchanged, by degrees; half-way is mono."""
    sound = _sound(subject)
    return _with(subject, (1 - share) * sound + share * sound[::-1])


@corruption("stereo narrowed", unit="", severities=(0, 0.25, 0.5, 0.75, 1), neutral=0, streams=("audio",))
def stereo_narrowed(subject: Subject, share: float) -> Clip:
    """Both channels towards their mean; 1 is mono."""
    sound = _sound(subject)
    return _with(subject, (1 - share) * sound + share * sound.mean(axis=0, keepdims=True))


@corruption(
    "sound noise",
    unit="dBFS",
    severities=(NONE_DB, -60, -50, -40, -30, -20),
    neutral=NONE_DB,
    streams=("audio",),
)
def sound_noise(subject: Subject, level: float) -> Clip:
    """White noise added."""
    sound = _sound(subject)
    return _with(
        subject, sound + 10 ** (level / 20) * subject.rng("sound noise").standard_normal(sound.shape)
    )


@corruption("clipping", unit="dB", severities=(0, 6, 12, 18, 24, 30), neutral=0, streams=("audio",))
def clipping(subject: Subject, gain: float) -> Clip:
    """Amplified into full scale."""
    return _with(subject, _sound(subject) * 10 ** (gain / 20))


@corruption(
    "dc offset", unit="of full scale", severities=(0, 0.01, 0.02, 0.05, 0.1), neutral=0, streams=("audio",)
)
def dc_offset(subject: Subject, offset: float) -> Clip:
    """A constant added."""
    return _with(subject, _sound(subject) + offset)


@corruption("clicks", unit="1/s", severities=(0, 1, 2, 4, 8), neutral=0, streams=("audio",))
def clicks(subject: Subject, rate: float) -> Clip:
    """Single samples of 0.25 of full scale at random moments."""
    sound, rng = _sound(subject), subject.rng("clicks")
    count = round(rate * subject.clip.audio_seconds)
    where = rng.permutation(sound.shape[1] - 64)[:count] + 32
    sound[:, where] += 0.25 * rng.choice([-1, 1], count)
    return _with(subject, sound)


@corruption(
    "hum", unit="dBFS", severities=(NONE_DB, -60, -50, -40, -30, -20), neutral=NONE_DB, streams=("audio",)
)
def hum(subject: Subject, level: float) -> Clip:
    """50 Hz with two harmonics added."""
    sound = _sound(subject)
    t = np.arange(sound.shape[1]) / subject.clip.sample_rate
    wave = sum(np.sin(2 * np.pi * 50 * k * t + k) / k for k in (1, 2, 3))
    return _with(subject, sound + 10 ** (level / 20) * wave / np.sqrt(np.mean(wave**2)))


@corruption(
    "sound seam", unit="dBFS", severities=(NONE_DB, -50, -40, -30, -20), neutral=NONE_DB, streams=("audio",)
)
def sound_seam(subject: Subject, level: float) -> Clip:
    """White noise from the middle on, as where two chunks with other backgrounds meet."""
    sound = _sound(subject)
    half = sound.shape[1] // 2
    noise = subject.rng("sound seam").standard_normal((len(sound), sound.shape[1] - half))
    sound[:, half:] += 10 ** (level / 20) * noise
    return _with(subject, sound)


@corruption(
    "audio compression",
    unit="kbit/s",
    severities=(-128, -64, -32, -24, -16),
    neutral=-128,
    streams=("audio",),
)
def audio_compression(subject: Subject, rate: float) -> Clip:
    """AAC at so many kbit/s, both channels together (shown as negative: fewer is worse)."""
    return subject.clip.replace(audio=recode(subject.clip, -1000 * rate))


@corruption("wrong prompt", unit="", severities=(0, 1), neutral=0, streams=("truth",))
def wrong_prompt(subject: Subject, share: float) -> Corrupted:
    """The clip is measured against what the prompt of another clip asks for."""
    if subject.donor is None:
        raise MetricError("wrong prompt: needs a second clip")
    return Corrupted(subject.clip, subject.donor.meta["truth"])


def recode(clip: Clip, bits_per_second: float) -> torch.Tensor:
    """The sound (channels, S) through AAC."""
    buffer = io.BytesIO()
    layout = "mono" if len(clip.audio) == 1 else "stereo"
    options = {"movie_timescale": str(clip.sample_rate)}
    with av.open(buffer, mode="w", format="mp4", options=options) as container:
        stream = container.add_stream("aac", rate=clip.sample_rate, layout=layout)
        stream.bit_rate = round(bits_per_second)
        for start in range(0, clip.audio.shape[1], 4096):
            block = np.ascontiguousarray(clip.audio[:, start : start + 4096].float().numpy())
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = (
                clip.sample_rate,
                start,
                Fraction(1, clip.sample_rate),
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    channels, samples = clip.audio.shape
    back = read_clip(buffer.getvalue(), video=False, channels=channels).audio[:, :samples]
    return torch.nn.functional.pad(back, (0, samples - back.shape[1]))
