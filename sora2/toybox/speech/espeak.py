"""espeak-ng: a small formant synthesiser that tells when each phoneme begins."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from sora2.toybox.speech.backend import Span, SpeechError, Utterance, Voice, trimmed

#: Speaker -> (voice of espeak-ng, its pitch parameter at low, middle and high).
SPEAKERS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("en-us", (30, 50, 70)),
    ("en-us+m3", (30, 50, 70)),
    ("en-us+m7", (30, 50, 70)),
    ("en-us+f2", (35, 50, 70)),
    ("en-us+f4", (35, 50, 70)),
    ("en-us+Annie", (35, 50, 70)),
    ("en-us+klatt3", (30, 50, 70)),
    ("en-us+Alex", (30, 50, 70)),
)
_WORKER = Path(__file__).with_name("espeak_worker.py")
#: A word takes milliseconds; a hung synthesiser must not hang the generator.
_LIMIT_SECONDS = 60


class EspeakBackend:
    """espeak-ng through the library that the package `espeakng-loader` ships."""

    name = "espeak"

    def __init__(self) -> None:
        _files()

    def fingerprint(self) -> str:
        return f"espeak {importlib.metadata.version('espeakng-loader')} {SPEAKERS}"

    def speak(self, words: tuple[str, ...], voice: Voice) -> Utterance:
        speaker, pitches = SPEAKERS[voice.number]
        return speak_text(words, speaker, pitches[voice.pitch], voice.words_per_minute)


def speak_text(words: tuple[str, ...], speaker: str, pitch: int, words_per_minute: int) -> Utterance:
    """`words` by any voice of espeak-ng ("en-us+f2"); pitch 0 to 99."""
    text = " ".join(words)
    request = {"text": text, "voice": speaker, "pitch": pitch, "rate": words_per_minute}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(_WORKER), *_files()],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise SpeechError(f"could not speak {text!r} with {speaker!r}: {done.stderr.decode().strip()}")
    head, sound = done.stdout.split(b"\n", 1)
    told = json.loads(head)
    rate = told["sample_rate"]
    audio = np.frombuffer(sound, np.int16) / 32768
    phonemes, starts = _phonemes(told["events"], rate)
    end = phonemes[-1].end
    offsets = np.cumsum([0, *(len(word) + 1 for word in words)])  # of each word in the text
    begins = [starts[int(offset)] for offset in offsets[:-1]]
    spans = [
        Span(word, start, stop) for word, start, stop in zip(words, begins, [*begins[1:], end], strict=True)
    ]
    return trimmed(audio, rate, phonemes, spans)


def _phonemes(events: list[list], sample_rate: int) -> tuple[list[Span], dict[int, float]]:
    """The sounding phonemes, and for each letter offset at which a word begins the time of its first phoneme."""
    marks = [(name, sample / sample_rate) for kind, sample, name in events if kind == "phoneme"]
    spans = [Span(name, start, end) for (name, start), (_, end) in itertools.pairwise(marks) if name]
    starts: dict[int, float] = {}
    word = 0
    for kind, sample, name in events:
        if kind == "word":
            word = name
        elif name:
            starts.setdefault(word, sample / sample_rate)
    return [span for span in spans if span.end > span.start], starts


@functools.cache
def _files() -> tuple[str, str]:
    """Paths of the library and of its data."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise SpeechError(
            "speech needs espeak-ng, which is not installed: pip install 'sora2[toybox]' (or leave the scene "
            "'talk' out of scenes=...)"
        ) from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
