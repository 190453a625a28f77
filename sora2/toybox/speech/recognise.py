"""An independent ear: which words of the vocabulary Whisper hears in a clip.

Needs faster-whisper and a CTranslate2 folder of a Whisper model (tiny.en is enough).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from sora2.toybox.speech.backend import SpeechError
from sora2.toybox.speech.words import VOCABULARY

#: Whisper's own rate.
SAMPLE_RATE = 16000


class WordRecogniser:
    """Whisper, told beforehand which words there are, as one tells a person whom one asks.

    Single short words are hard for a model of sentences; with the list they are not. `vocabulary` empty gives
    free transcription.
    """

    def __init__(self, model: Path, vocabulary: Sequence[str] = VOCABULARY, threads: int = 1) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise SpeechError(
                "recognising words needs faster-whisper: pip install faster-whisper==1.2.1"
            ) from error
        if not (Path(model) / "model.bin").is_file():
            raise SpeechError(f"{model} holds no model.bin: give the folder of a CTranslate2 Whisper model")
        self._prompt = ", ".join(sorted(vocabulary)) + "." if vocabulary else None
        self._model = WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=threads)

    @property
    def network(self) -> Any:
        """The `ctranslate2.models.Whisper` itself."""
        return self._model.model

    def words(self, audio: np.ndarray, sample_rate: int) -> list[str]:
        """The words heard in audio (channels, S) or (S,), in lower case."""
        mono = np.atleast_2d(audio).mean(axis=0).astype(np.float64)
        if sample_rate != SAMPLE_RATE:
            shared = np.gcd(sample_rate, SAMPLE_RATE)
            mono = resample_poly(mono, SAMPLE_RATE // shared, sample_rate // shared)
        segments, _ = self._model.transcribe(
            mono.astype(np.float32),
            language="en",
            beam_size=1,
            temperature=0.0,
            initial_prompt=self._prompt,
            max_new_tokens=32,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return re.findall(r"[a-z]+", " ".join(segment.text for segment in segments).lower())


def recognised(spoken: Sequence[str], heard: Sequence[str]) -> int:
    """How many of the spoken words were heard, in their order."""
    matcher = difflib.SequenceMatcher(None, list(spoken), list(heard), autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())
