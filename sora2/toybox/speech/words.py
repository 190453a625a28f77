"""The fixed vocabulary of the talking faces: short words that sound unlike each other."""

from __future__ import annotations

from sora2.toybox.speech.backend import SpeechError

VOCABULARY: tuple[str, ...] = (
    "apple", "banana", "chocolate", "coffee", "dragon", "elephant", "family", "forest", "garden", "happy",
    "hello", "kitchen", "machine", "monkey", "morning", "music", "orange", "paper", "pencil", "pizza",
    "potato", "purple", "rainbow", "river", "robot", "summer", "tiger", "tomorrow", "window", "yellow",
)  # fmt: skip


def check_words(words: tuple[str, ...]) -> None:
    """Raise `SpeechError` unless there are one to four words, all of the vocabulary."""
    if not 1 <= len(words) <= 4:
        raise SpeechError(f"words={list(words)} must be one to four words")
    for word in words:
        if word not in VOCABULARY:
            raise SpeechError(f"word {word!r} is not in the vocabulary: choose from {', '.join(VOCABULARY)}")
