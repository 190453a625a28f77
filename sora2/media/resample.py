"""Sample-rate conversion and channel mixing of waveforms."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.transforms import Resample

from sora2.media.errors import MediaError

#: Filter of torchaudio's resampler: zero crossings on each side, and cut-off as a share of the Nyquist rate.
ZERO_CROSSINGS = 16
ROLLOFF = 0.97
#: Rates whose reduced fraction needs a larger polyphase filter bank than this are resampled point by point.
LARGEST_FILTER_BANK = 2_000_000
_POINTS_AT_ONCE = 16384

#: Gains of a downmix to left and right, by channel name (ITU-R BS.775-3, table 2; no effects channel).
_HALF_POWER = math.sqrt(0.5)
_LEFT_RIGHT = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (_HALF_POWER, _HALF_POWER),
    "LFE": (0.0, 0.0),
    "LFE2": (0.0, 0.0),
    "BL": (_HALF_POWER, 0.0),
    "BR": (0.0, _HALF_POWER),
    "SL": (_HALF_POWER, 0.0),
    "SR": (0.0, _HALF_POWER),
    "BC": (0.5, 0.5),
    "FLC": (1.0, 0.0),
    "FRC": (0.0, 1.0),
    "DL": (1.0, 0.0),
    "DR": (0.0, 1.0),
}
#: Channel order where only their number is known (the order of WAVE and of ffmpeg's default layouts).
_DEFAULT_NAMES = {
    3: ("FL", "FR", "LFE"),
    4: ("FL", "FR", "FC", "BC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}


def resample_audio(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Band-limited resampling: (..., S) at `from_rate` -> (..., ceil(S * to_rate / from_rate)) at `to_rate`.

    Hann-windowed sinc interpolation (torchaudio); sample k of the result is the sound at k / to_rate seconds,
    so nothing is delayed. Rates without a small common ratio (44101 Hz -> 16000 Hz) use the same filter,
    evaluated per sample.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise MediaError(f"sample rates must be positive, got {from_rate} -> {to_rate}")
    if from_rate == to_rate or audio.shape[-1] == 0:
        return audio
    common = math.gcd(from_rate, to_rate)
    old, new = from_rate // common, to_rate // common
    width = math.ceil(ZERO_CROSSINGS * old / (min(old, new) * ROLLOFF))
    if new * (old + 2 * width) > LARGEST_FILTER_BANK:
        return resample_by_points(audio, from_rate, to_rate)
    return _resampler(from_rate, to_rate)(audio)


@lru_cache(maxsize=32)
def _resampler(from_rate: int, to_rate: int) -> Resample:
    return Resample(from_rate, to_rate, lowpass_filter_width=ZERO_CROSSINGS, rolloff=ROLLOFF)


def resample_by_points(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """`resample_audio` for any two rates: the filter is evaluated for each output sample."""
    samples = audio.shape[-1]
    cutoff = ROLLOFF * min(from_rate, to_rate) / from_rate  # cycles per two input samples
    reach = math.ceil(ZERO_CROSSINGS / cutoff)
    flat = torch.nn.functional.pad(audio.reshape(-1, samples), (reach, reach + 1))  # (C, S + 2 reach + 1)
    taps = torch.arange(-reach, reach + 1)
    pieces = []
    total = -(-samples * to_rate // from_rate)
    for first in range(0, total, _POINTS_AT_ONCE):
        k = torch.arange(first, min(total, first + _POINTS_AT_ONCE), dtype=torch.int64)
        whole = k * from_rate // to_rate  # input sample at or before the output sample
        fraction = (k * from_rate - whole * to_rate).double() / to_rate
        distance = (taps[None] - fraction[:, None]) * cutoff  # (K, taps) in zero crossings
        window = (
            torch.cos(distance.clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS) * math.pi / ZERO_CROSSINGS / 2) ** 2
        )
        weights = (torch.sinc(distance) * window * cutoff).to(audio.dtype)
        near = flat[:, (whole[:, None] + taps[None] + reach)]  # (C, K, taps)
        pieces.append((near * weights).sum(-1))
    return torch.cat(pieces, dim=-1).reshape(*audio.shape[:-1], total)


def to_channels(audio: Tensor, channels: int, names: tuple[str, ...] | None = None) -> Tensor:
    """(C, S) -> (channels, S) with `channels` 1 or 2.

    Mono is copied to both sides, stereo is averaged to mono. Surround is mixed by ITU-R BS.775-3 with gains
    scaled so that they sum to one, which cannot clip. `names` are the channel names ("FL", "FC" ...); without
    them the common order for that number of channels is assumed.

    Raises:
        MediaError: a channel layout with no known downmix.
    """
    if channels not in (1, 2):
        raise MediaError(f"channels={channels} must be 1 (mono) or 2 (stereo)")
    given = audio.shape[0]
    if given == channels:
        return audio
    if given == 1:
        return audio.expand(2, -1).contiguous()
    if given > 2:
        audio = _downmix(names if names is not None else _DEFAULT_NAMES.get(given, ()), audio) @ audio
    return audio if channels == 2 else audio.mean(0, keepdim=True)


def _downmix(names: tuple[str, ...], audio: Tensor) -> Tensor:
    """(2, C) gains of left and right for channels of these names."""
    if len(names) != audio.shape[0] or not all(name in _LEFT_RIGHT for name in names):
        raise MediaError(
            f"no downmix for {audio.shape[0]} channels {names}: convert the soundtrack to stereo or 5.1 first"
        )
    gains = torch.tensor([_LEFT_RIGHT[name] for name in names], dtype=audio.dtype).T
    return gains / gains.sum(1).max()
