"""Utterances are made once: kept in memory and on disk, both within a bound.

The key names everything that the sound depends on, so a cached utterance equals a fresh one. Files are written
whole or not at all, and any number of threads and processes may share the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import platformdirs

from sora2.atomic import write_atomic
from sora2.toybox.speech.backend import Span, SpeechBackend, Utterance, Voice

T = TypeVar("T")

#: Folder of the cache, when it is not the user's cache folder.
FOLDER_VARIABLE = "SORA2_SPEECH_CACHE"
DISK_BYTES = 256 << 20
#: Of each cache in memory: about 190 words. A clip asks for each of its words several times, the next clip for others
#: (there are 6480 of word, voice, pitch and rate), so a larger one is not faster and only keeps a generator growing.
MEMORY_BYTES = 8 << 20
#: What a span takes beside the sound.
_SPAN_BYTES = 320
#: The folder is measured at the first write of a process and then after so many.
_WRITES_BETWEEN_CHECKS = 256
#: Part of every key: change it when trimming or storing changes.
_FORMAT = 1
#: Temporary names differ between processes, not between threads.
_WRITING = threading.Lock()


class BoundedMemory(Generic[T]):
    """The most recently used values, up to a number of bytes. Safe in threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._held: OrderedDict[object, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], T], size: Callable[[T], int]) -> T:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
        value = make()  # outside the lock: others need not wait; equal calls make equal values
        with self._lock:
            if key not in self._held:
                self._held[key] = (value, size(value))
                self.used += size(value)
                while self.used > self.limit and len(self._held) > 1:
                    _, (_, freed) = self._held.popitem(last=False)
                    self.used -= freed
        return value


class CachedBackend:
    """A backend that remembers. `folder` None keeps utterances in memory alone."""

    def __init__(
        self,
        backend: SpeechBackend,
        folder: Path | None,
        disk_bytes: int = DISK_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.backend = backend
        self.name = backend.name
        self.folder = folder
        self.disk_bytes = disk_bytes
        self._memory: BoundedMemory[Utterance] = BoundedMemory(memory_bytes)
        self._fingerprint = backend.fingerprint()
        self._writes = 0

    def fingerprint(self) -> str:
        return self._fingerprint

    def speak(self, words: tuple[str, ...], voice: Voice) -> Utterance:
        return self._memory.get((words, voice), lambda: self._from_disk(words, voice), _bytes_of)

    def _from_disk(self, words: tuple[str, ...], voice: Voice) -> Utterance:
        if self.folder is None:
            return self.backend.speak(words, voice)
        key = json.dumps([_FORMAT, self._fingerprint, words, asdict(voice)])
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        found = load_utterance(path)
        if found is None:
            found = self.backend.speak(words, voice)
            with _WRITING:
                save_utterance(found, path)
                self._writes += 1
                if self._writes % _WRITES_BETWEEN_CHECKS == 1:
                    shrink(self.folder, self.disk_bytes)
        return found


def _bytes_of(utterance: Utterance) -> int:
    return utterance.audio.nbytes + _SPAN_BYTES * (len(utterance.phonemes) + len(utterance.words))


def default_folder() -> Path:
    """Where utterances are kept: `$SORA2_SPEECH_CACHE`, or the user's cache folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("sora2")) / "speech"


def save_utterance(utterance: Utterance, path: Path) -> None:
    """An .npz of 16-bit samples and the times, written atomically."""
    times = {
        "sample_rate": utterance.sample_rate,
        "phonemes": [[s.name, s.start, s.end] for s in utterance.phonemes],
        "words": [[s.name, s.start, s.end] for s in utterance.words],
    }
    samples = np.rint(utterance.audio * 32767).astype(np.int16)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, audio=samples, times=np.array(json.dumps(times)))

    write_atomic(path, write)


def load_utterance(path: Path) -> Utterance | None:
    """What `save_utterance` wrote, or None where there is no whole file."""
    try:
        with np.load(path) as held:
            times = json.loads(str(held["times"]))
            audio = (held["audio"] / 32767).astype(np.float32)
    except (FileNotFoundError, zipfile.BadZipFile):
        return None  # evicted by another process, or damaged: it is made again, and is the same
    spans = {name: tuple(Span(*span) for span in times[name]) for name in ("phonemes", "words")}
    return Utterance(audio, times["sample_rate"], spans["phonemes"], spans["words"])


def shrink(folder: Path, limit: int) -> None:
    """Delete the oldest utterances until at most `limit` bytes are left."""
    found = []
    for path in folder.glob("*.npz"):
        try:
            found.append((path.stat().st_mtime, path.stat().st_size, path))
        except FileNotFoundError:
            continue  # another process was faster
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
