"""Kokoro: a natural voice (82 M parameters, ONNX), where its files are given.

The folder holds

    *.onnx              one export of Kokoro-82M v1.0 with the inputs tokens, style, speed
    vocab.json          IPA letter -> token number (or Kokoro's config.json, which has it as "vocab")
    voices/NAME.bin     style vectors (510, 1, 256) float32, one file for each name in SPEAKERS

Pronunciation comes from espeak-ng. Times come from the durations that the network itself predicts, in steps of
25 ms: they are an inner value of the published exports, and are asked for as one more output.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from sora2.toybox.speech.backend import Span, SpeechError, Utterance, Voice, trimmed
from sora2.toybox.speech.espeak import speak_text

SAMPLE_RATE = 24000
#: Seconds of one step of the predicted durations.
STEP_SECONDS = 600 / SAMPLE_RATE
#: The sound of a token comes this many steps before its place in the sum of durations: Kokoro's own time stamps
#: take as many from the start token, and energy at stops and vowels agrees.
EARLY_STEPS = 3
#: The predicted steps of each token, inside the exports.
DURATIONS = "/encoder/Clip_output_0"
#: The rate of speech at speed 1, words per minute.
WORDS_PER_MINUTE = 160
#: Speaker -> its three voices, low, middle and high. Names begin with the accent (a, b) and f or m.
SPEAKERS: tuple[tuple[str, str, str], ...] = (
    ("am_onyx", "am_michael", "am_puck"),
    ("am_adam", "am_fenrir", "am_liam"),
    ("bm_george", "bm_lewis", "bm_fable"),
    ("af_alloy", "af_heart", "af_sky"),
    ("af_kore", "af_bella", "af_jessica"),
    ("bf_isabella", "bf_emma", "bf_lily"),
    ("af_nicole", "af_sarah", "af_nova"),
    ("am_echo", "am_eric", "bm_daniel"),
)


class KokoroBackend:
    """Kokoro-82M from a folder of files. Needs onnxruntime, and espeak-ng for the pronunciation."""

    name = "kokoro"

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.model = _only_model(self.folder)
        self.vocabulary = _vocabulary(self.folder)
        self._session: Any = None
        self._lock = threading.Lock()

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in (self.model, *sorted(self.folder.glob("voices/*.bin"))):
            digest.update(path.name.encode())
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return f"kokoro {digest.hexdigest()[:32]} {EARLY_STEPS} {SPEAKERS}"

    def speak(self, words: tuple[str, ...], voice: Voice) -> Utterance:
        told = speak_text(words, "en-us", 50, WORDS_PER_MINUTE)
        tokens, owners = self._tokens(told)
        style = self._style(SPEAKERS[voice.number][voice.pitch])[len(tokens)]
        audio, steps = self._session_of().run(
            ["audio", DURATIONS],
            {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": style.astype(np.float32),
                "speed": np.array([voice.words_per_minute / WORDS_PER_MINUTE], np.float32),
            },
        )
        edges = (np.concatenate([[0.0], np.cumsum(np.ravel(steps))]) - EARLY_STEPS) * STEP_SECONDS
        return _timed(np.ravel(audio).astype(np.float64), edges, owners, told)

    def _tokens(self, told: Utterance) -> tuple[list[int], list[int | None]]:
        """Token numbers, and for each the index of its phoneme (None for the space between words)."""
        tokens: list[int] = []
        owners: list[int | None] = []
        begins = {round(word.start, 6) for word in told.words[1:]}
        for k, phoneme in enumerate(told.phonemes):
            if round(phoneme.start, 6) in begins:
                tokens.append(self._token(" ", phoneme.name))
                owners.append(None)
            for letter in phoneme.name:
                tokens.append(self._token(letter, phoneme.name))
                owners.append(k)
        return tokens, owners

    def _token(self, letter: str, phoneme: str) -> int:
        if letter not in self.vocabulary:
            raise SpeechError(f"{self.folder}: the vocabulary lacks {letter!r} of phoneme {phoneme!r}")
        return self.vocabulary[letter]

    def _style(self, name: str) -> np.ndarray:
        path = self.folder / "voices" / f"{name}.bin"
        if not path.is_file():
            raise SpeechError(f"{path} is missing: copy Kokoro's voice {name} there")
        return np.fromfile(path, np.float32).reshape(-1, 1, 256)

    def _session_of(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = _open(self.model)
            return self._session


def _timed(audio: np.ndarray, edges: np.ndarray, owners: list[int | None], told: Utterance) -> Utterance:
    """Sound with the times of espeak's phonemes and words, by the edges (N + 3,) of [start, tokens, end]."""
    phonemes = []
    for k, phoneme in enumerate(told.phonemes):
        mine = [i + 1 for i, owner in enumerate(owners) if owner == k]
        phonemes.append(Span(phoneme.name, float(edges[mine[0]]), float(edges[mine[-1] + 1])))
    words = []
    for word in told.words:
        inside = [
            new
            for old, new in zip(told.phonemes, phonemes, strict=True)
            if word.start - 1e-6 <= old.start < word.end - 1e-6
        ]
        words.append(Span(word.name, inside[0].start, inside[-1].end))
    return trimmed(audio, SAMPLE_RATE, phonemes, words)


def _open(model: Path) -> Any:
    """An inference session with the durations as a second output, on one thread: equal calls, equal sound."""
    try:
        import onnxruntime
    except ImportError as error:
        raise SpeechError("the Kokoro voices need onnxruntime: pip install onnxruntime==1.32.0") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = model.read_bytes()
    if DURATIONS.encode() not in content:
        raise SpeechError(f"{model} has no inner value {DURATIONS}: use the export of Kokoro-82M v1.0")
    return onnxruntime.InferenceSession(
        content + _one_more_output(DURATIONS), options, providers=["CPUExecutionProvider"]
    )


def _one_more_output(name: str) -> bytes:
    """Bytes that, after those of an ONNX model, add the inner value `name` to the outputs of its graph.

    Protocol buffers merge what follows into what was: ModelProto field 7 (graph), GraphProto field 12 (output),
    ValueInfoProto field 1 (name).
    """

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128  # one byte of length
        return bytes([number << 3 | 2, len(content)]) + content

    return field(7, field(12, field(1, name.encode())))


def _only_model(folder: Path) -> Path:
    found = sorted(folder.glob("*.onnx"))
    if len(found) != 1:
        raise SpeechError(
            f"{folder} must hold one .onnx file of Kokoro and holds {len(found)}: see sora2/toybox/speech/kokoro.py "
            "for the files"
        )
    return found[0]


def _vocabulary(folder: Path) -> dict[str, int]:
    for name in ("vocab.json", "config.json"):
        path = folder / name
        if path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))
            return held.get("vocab", held)
    raise SpeechError(f"{folder} holds neither vocab.json nor config.json: copy Kokoro's there")
