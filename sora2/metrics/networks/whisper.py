"""An independent ear, Whisper tiny.en (Radford et al. 2022) through CTranslate2: words, and states of its encoder."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.weights import find_weights

WEIGHTS = "whisper-tiny-en"
#: Frames of 10 ms that the encoder takes at most.
MOST_FRAMES = 3000


def words_heard(sound: NDArray[np.float32], vocabulary: Sequence[str] = ()) -> list[str]:
    """Words in (S,) at 16 kHz (see `sora2.metrics.networks.sound.mono`), lower case, in order.

    vocabulary: words that the recogniser is told beforehand, as one tells a person whom one asks; it may hear others.
    Single short words are hard for a model of sentences; with the list they are not. Empty: free transcription.

    Raises:
        MetricError: the weights or faster-whisper are missing.
    """
    segments, _ = _whisper(find_weights(WEIGHTS)).transcribe(
        sound,
        language="en",
        beam_size=1,
        temperature=0.0,
        initial_prompt=", ".join(sorted(vocabulary)) + "." if vocabulary else None,
        max_new_tokens=32,
        condition_on_previous_text=False,
        without_timestamps=True,
    )
    return re.findall(r"[a-z]+", " ".join(segment.text for segment in segments).lower())


def encoder_mean(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """(384,) mean over time of the encoder's last states of (S,) at 16 kHz, 30 s at most, without padding."""
    import ctranslate2
    from faster_whisper.feature_extractor import FeatureExtractor

    mel = FeatureExtractor(feature_size=80)(sound, padding=0)[None, :, :MOST_FRAMES]  # (1, 80, frames)
    network = _whisper(find_weights(WEIGHTS)).model
    states = network.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel, np.float32)))
    return np.array(states, np.float64)[0].mean(axis=0)


@functools.lru_cache(maxsize=1)
def _whisper(folder: Path) -> Any:
    from faster_whisper import WhisperModel

    # one thread: clips are spread over processes
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
