"""Which synthesiser speaks: espeak-ng, unless the environment names the files of another."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from sora2.toybox.speech.backend import SpeechBackend, SpeechError
from sora2.toybox.speech.cache import CachedBackend, default_folder
from sora2.toybox.speech.espeak import EspeakBackend
from sora2.toybox.speech.kokoro import KokoroBackend

#: "espeak", or "kokoro:FOLDER". An environment variable, so that worker processes agree.
VARIABLE = "SORA2_SPEECH"


def speech_backend() -> SpeechBackend:
    """The backend that `$SORA2_SPEECH` names (espeak-ng when it is not set), with its cache."""
    return _backend(os.environ.get(VARIABLE, "espeak"), default_folder())


@functools.lru_cache(maxsize=4)
def _backend(choice: str, folder: Path) -> SpeechBackend:
    kind, _, files = choice.partition(":")
    if kind == "espeak" and not files:
        return CachedBackend(EspeakBackend(), folder)
    if kind == "kokoro" and files:
        return CachedBackend(KokoroBackend(Path(files)), folder)
    raise SpeechError(f"{VARIABLE}={choice!r} is unknown: use 'espeak' or 'kokoro:FOLDER'")
