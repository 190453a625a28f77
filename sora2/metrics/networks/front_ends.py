"""What published networks of sound are given, written out from their papers and code."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import melscale_fbanks

from sora2.metrics.values import Unmeasurable

Sound = NDArray[np.float32]


def vggish_examples(sound: Sound) -> torch.Tensor:
    """(S,) at 16 kHz -> (N, 1, 96, 64): log-mel of 0.96 s each (Hershey et al. 2017): 25 ms periodic Hann windows every
    10 ms, magnitudes of 512 points, 64 HTK bands from 125 to 7500 Hz, log(x + 0.01).

    Raises:
        Unmeasurable: less than 0.96 s.
    """
    x = torch.from_numpy(sound)
    frames = x.unfold(0, 400, 160) * torch.hann_window(400) if len(x) >= 400 else torch.zeros(0, 400)
    if len(frames) < 96:
        raise Unmeasurable("VGGish needs 0.96 s of sound")
    mel = torch.log(torch.fft.rfft(frames, 512).abs() @ _vggish_bands() + 0.01)  # (frames, 64)
    count = len(mel) // 96
    return mel[: 96 * count].reshape(count, 1, 96, 64)


@functools.cache
def _vggish_bands() -> torch.Tensor:
    return melscale_fbanks(257, 125.0, 7500.0, 64, 16000, mel_scale="htk")


def imagebind_mel(sound: Sound) -> torch.Tensor:
    """(S,) at 16 kHz -> (3, 1, 128, 204): three spans of 2 s (Girdhar et al. 2023), Kaldi filter banks of 128 bands
    every 10 ms, less -4.268, over 9.138; a shorter sound is padded with silence."""
    span = 32000
    starts = np.linspace(0, max(0, len(sound) - span), 3).round().astype(int)
    found = []
    for start in starts:
        piece = torch.from_numpy(np.ascontiguousarray(sound[start : start + span]))[None]
        mel = fbank(
            piece - piece.mean(),
            htk_compat=True,
            sample_frequency=16000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_length=25,
            frame_shift=10,
        ).T  # (128, frames)
        mel = torch.nn.functional.pad(mel, (0, max(0, 204 - mel.shape[1])))[:, :204]
        found.append((mel + 4.268) / 9.138)
    return torch.stack(found)[:, None]
