"""Whose voice is it? The GE2E speaker encoder (Wan et al. 2018) with the weights that Resemblyzer ships.

The network (3 LSTM layers of 256, a linear layer, ReLU, unit length) and its front end (40 mel bands of power, 25 ms
windows every 10 ms) are written out here, for that package's own needs libraries that nothing else does.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchaudio.transforms import MelSpectrogram

from sora2.metrics.values import MetricError, Unmeasurable
from sora2.metrics.weights import find_weights

#: Frames of 10 ms in one pass, and between two passes.
FRAMES, STEP = 160, 80
#: Blocks of 30 ms that are so much below the loudest one, dB, are not speech; loudness is raised to -30 dBFS.
BLOCK, SPEECH_DB, LOUDNESS = 480, 30.0, 10 ** (-30 / 20)
#: Less speech than this tells nobody, blocks.
FEWEST_BLOCKS = 8


class SpeakerEncoder(nn.Module):
    """(B, frames, 40) mel power -> (B, 256) of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(mel)  # (3, B, 256)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def voice_embedding(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """(256,) of unit length of the speech in (S,) at 16 kHz; short speech is repeated to 1.6 s.

    Raises:
        Unmeasurable: there is too little of it.
    """
    speech = speech_of(sound)
    speech = speech * max(1.0, LOUDNESS / float(np.sqrt((speech**2).mean())))
    mel = _front_end()(torch.from_numpy(speech)).T  # (frames, 40)
    if len(mel) < FRAMES:
        mel = mel.repeat(-(-FRAMES // len(mel)), 1)[:FRAMES]
    passes = torch.stack([mel[i : i + FRAMES] for i in range(0, len(mel) - FRAMES + 1, STEP)])
    with torch.no_grad():
        mean = _encoder(find_weights("resemblyzer"))(passes).mean(dim=0)
    return nn.functional.normalize(mean, dim=0).double().numpy()


def speech_of(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """The blocks that are not silent, and their neighbours."""
    blocks = sound[: len(sound) // BLOCK * BLOCK].reshape(-1, BLOCK)
    level = 10 * np.log10((blocks**2).mean(axis=1) + 1e-12)
    kept = level > level.max(initial=-np.inf) - SPEECH_DB
    kept = np.convolve(kept, np.ones(3), "same") > 0
    if kept.sum() < FEWEST_BLOCKS:
        raise Unmeasurable("there is too little speech to know a voice by")
    return np.ascontiguousarray(blocks[kept].ravel())


@functools.cache
def _front_end() -> MelSpectrogram:
    return MelSpectrogram(
        16000, n_fft=400, hop_length=160, n_mels=40, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )


@functools.lru_cache(maxsize=1)
def _encoder(path: Path) -> SpeakerEncoder:
    encoder = SpeakerEncoder()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        encoder.load_state_dict({k: v for k, v in state.items() if not k.startswith("similarity_")})
    except (KeyError, RuntimeError) as error:
        raise MetricError(f"{path} holds no GE2E speaker encoder of Resemblyzer: {error}") from error
    return encoder.eval()
