"""Whisper tiny.en (Radford et al. 2022) through CTranslate2: words, and the states of its encoder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.weights import find_weights
from sora2.toybox.speech.recognise import WordRecogniser

WEIGHTS = "whisper-tiny-en"
#: Frames of 10 ms that the encoder takes at most.
MOST_FRAMES = 3000


def words_heard(sound: NDArray[np.float32], vocabulary: Sequence[str] = ()) -> list[str]:
    """Words in (S,) at 16 kHz, lower case; `vocabulary`: the recogniser is told beforehand that these may occur."""
    return _recogniser(find_weights(WEIGHTS), tuple(vocabulary)).words(sound, 16000)


def encoder_mean(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """(384,) mean over time of the encoder's last states of (S,) at 16 kHz, 30 s at most, without padding."""
    import ctranslate2
    from faster_whisper.feature_extractor import FeatureExtractor

    mel = FeatureExtractor(feature_size=80)(sound, padding=0)[None, :, :MOST_FRAMES]  # (1, 80, frames)
    model = _recogniser(find_weights(WEIGHTS), ()).network
    states = model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel, np.float32)))
    return np.array(states, np.float64)[0].mean(axis=0)


@functools.lru_cache(maxsize=2)
def _recogniser(folder: Path, vocabulary: tuple[str, ...]) -> WordRecogniser:
    return WordRecogniser(folder, vocabulary)
