"""Which words are said in a sound, by an independent recogniser: Whisper tiny.en, loaded once per process."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from numpy.typing import ArrayLike

from sora2.metrics.weights import find_weights
from sora2.toybox.speech.recognise import WordRecogniser

#: Name of the recogniser's weights in `sora2.metrics.weights`.
WEIGHTS = "whisper-tiny-en"


def recognise(audio: ArrayLike, sample_rate: int, vocabulary: Sequence[str] | None = None) -> list[str]:
    """The words heard in audio (channels, S) or (S,) of float samples in [-1, 1], in lower case and in order.

    vocabulary: words that the recogniser is told beforehand; it may hear others. None: it is told nothing.
    The same samples give the same words. Count what was heard with `sora2.toybox.speech.recognise.recognised`.

    Raises:
        MetricError: the weights are missing. SpeechError: faster-whisper is.
    """
    return _recogniser(() if vocabulary is None else tuple(vocabulary)).words(audio, sample_rate)


@functools.lru_cache(maxsize=2)
def _recogniser(vocabulary: tuple[str, ...]) -> WordRecogniser:
    return WordRecogniser(find_weights(WEIGHTS), vocabulary)
