"""Which words are said in a sound, by an independent recogniser: Whisper tiny.en, loaded once per process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sora2.media import resample_audio
from sora2.metrics.networks.whisper import words_heard

#: Whisper's own rate.
SAMPLE_RATE = 16000


def recognise(audio: Tensor, sample_rate: int, vocabulary: Sequence[str] | None = None) -> list[str]:
    """The words heard in audio (channels, S) of float samples in [-1, 1], in lower case and in order.

    vocabulary: words that the recogniser is told beforehand; it may hear others. None: it is told nothing.
    The same samples give the same words. Count what was heard with `sora2.toybox.speech.recognise.recognised`.

    Raises:
        MetricError: the weights are missing. SpeechError: faster-whisper is.
    """
    mono = resample_audio(audio.mean(dim=0, keepdim=True).to(torch.float32), sample_rate, SAMPLE_RATE)[0]
    return words_heard(mono.numpy(), () if vocabulary is None else vocabulary)
