"""How well a codec gives back what it was given: four numbers per clip, each in its own unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sora2.codecs.losses import log_mel, magnitudes

#: Onset shift: half width of the compared window, largest shift looked for, and an isolation that keeps events apart.
ONSET_WINDOW_SECONDS = 0.05
ONSET_REACH_SECONDS = 0.03
ONSET_ISOLATION_SECONDS = 0.12


def psnr(reference: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures of one shape; 100 for identical ones."""
    error = (reference.float() - other.float()).square().mean()
    return float(10 * torch.log10(255**2 / error.clamp_min(255**2 * 1e-10)))


def si_sdr(reference: Tensor, other: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB over all channels of (channels, S).

    Le Roux et al. 2019, https://arxiv.org/abs/1811.02508. NaN where the reference is silent.
    """
    x, y = reference.flatten().double(), other.flatten().double()
    power = x.square().sum()
    if power <= 1e-10 * x.numel():
        return float("nan")
    projected = (x @ y) / power * x
    ratio = projected.square().sum() / (y - projected).square().sum().clamp_min(1e-20)
    return float(10 * torch.log10(ratio.clamp_min(1e-20)))


def log_mel_distance(reference: Tensor, other: Tensor, sample_rate: int) -> float:
    """Mean absolute difference in dB of 64-band log-mel magnitudes (window 1024, hop 256) of (channels, S).

    Magnitudes are floored at about 60 dB under a full-scale sine, so that silence does not count as distance.
    """
    a, b = (log_mel(magnitudes(x, 1024), 1024, 64, sample_rate, floor=1e-2) for x in (reference, other))
    return float((a - b).abs().mean() * (20 / torch.log(torch.tensor(10.0))))


def onset_shifts(
    reference: Tensor,
    other: Tensor,
    sample_rate: int,
    onset_seconds: Sequence[float],
    mixture: Tensor | None = None,
) -> list[float]:
    """Milliseconds by which each isolated onset moved, positive for later; (channels, S) all.

    The shift is the peak of the normalised cross-correlation of the two envelopes' rises, in steps of 0.5 ms, which
    is 0 for a sound and itself also where it grows louder after the onset, as a word does. An onset without
    another within `ONSET_ISOLATION_SECONDS` is measured; one that is inaudible in the reference is left out, and one
    that does not rise twice as much as `mixture`, in which it is heard (None: the reference), did in the tenth of a
    second before it: noise hides it.
    """
    times = sorted(onset_seconds)
    step = sample_rate // 2000
    rises = [_rise(x, step) for x in (reference, other)]
    heard = rises[0] if mixture is None else _rise(mixture, step)
    before, gap = (round(seconds * sample_rate / step) for seconds in (0.11, 0.01))
    half = round(ONSET_WINDOW_SECONDS * sample_rate / step)
    reach = round(ONSET_REACH_SECONDS * sample_rate / step)
    loud = float(rises[0].max()) * 0.05
    shifts = []
    for i, time in enumerate(times):
        neighbours = times[max(0, i - 1) : i] + times[i + 1 : i + 2]
        centre = round(time * sample_rate / step)
        low, high = centre - half - reach, centre + half + reach
        isolated = all(abs(time - t) >= ONSET_ISOLATION_SECONDS for t in neighbours)
        if not isolated or low < 0 or high >= rises[0].numel():
            continue
        window = rises[0][centre - half : centre + half]
        if window.max() <= loud or window.max() <= 1e-5:
            continue
        if window.max() <= 2 * heard[max(0, centre - before) : centre - gap].max():
            continue
        around = rises[1][low:high].view(1, 1, -1)
        scores = F.conv1d(around, window.view(1, 1, -1)).flatten()
        energy = F.conv1d(around.square(), torch.ones(1, 1, window.numel())).flatten()
        scores = scores / energy.clamp_min(1e-12).sqrt()
        shifts.append((int(scores.argmax()) - reach) * step / sample_rate * 1000)
    return shifts


def _rise(audio: Tensor, step: int) -> Tensor:
    """Positive change of the root-mean-square envelope, one value per `step` samples."""
    power = audio.float().square().mean(0)
    window = 8 * step  # 4 ms, long enough to bridge a period of the lowest tones
    power = F.pad(power.view(1, 1, -1), (window - step, 0))
    envelope = F.avg_pool1d(power, window, stride=step).flatten().clamp_min(0).sqrt()
    return envelope.diff(prepend=envelope[:1]).clamp_min(0)
