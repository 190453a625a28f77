"""What a text has in quotes, and when it is said: `a face says "<0.31>river <0.85>music<1.30>"`.

Times are seconds, in angle brackets as those within a WebVTT cue: one before a word is when it begins, one after it
when it ends. Pure functions of strings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

from sora2.codecs.base import CodecError

#: Straight and curly quotes, guillemets. An apostrophe is not a quote.
QUOTED = re.compile(r'"([^"]*)"|[“„]([^“”]*)[“”]|«([^»]*)»')
_TIME = re.compile(r"<(\d+(?:\.\d+)?)>")
#: How long an English word takes that nobody has timed: seconds, and seconds a letter more; and what lies between two.
WORD_SECONDS, LETTER_SECONDS, GAP_SECONDS = 0.34, 0.025, 0.10
#: Silence at both ends at least; the first word begins after this share of what is left, at most so many seconds late.
MARGIN, LEAD, LATEST = 0.06, 0.3, 0.5


@dataclass(frozen=True)
class Word:
    """Something said: lower case, and from when to when in seconds, or None."""

    letters: str
    span: tuple[float, float] | None = None


def spoken(text: str) -> list[Word]:
    """The words in quotes of a text, in order, with their times.

    Raises:
        CodecError: times within quotes that go backwards.
    """
    found: list[Word] = []
    for parts in QUOTED.findall(text):
        pieces = _TIME.split("".join(parts).lower())  # words, then time and words again and again
        found += [Word(letters) for letters in pieces[0].split()]
        times = [float(time) for time in pieces[1::2]]
        for first, second in pairwise(times):
            if second < first:
                raise CodecError(
                    f"{text!r}: <{second:g}> comes after <{first:g}>, but times in quotes are seconds that rise"
                )
        for number, (time, piece) in enumerate(zip(times, pieces[2::2], strict=True)):
            words = piece.split()
            end = times[number + 1] if number + 1 < len(times) else time + natural_seconds(words)
            found += _share(words, time, end)
    return found


def _share(words: list[str], start: float, end: float) -> list[Word]:
    """Words that share a stretch of time, each as much as it has letters."""
    total, at, result = sum(map(len, words)), start, []
    for letters in words:
        until = at + (end - start) * len(letters) / total
        result.append(Word(letters, (at, until)))
        at = until
    return result


def quoted(text: str) -> list[str]:
    """The words in quotes, lower case, in order: `says "Hello you"` -> ["hello", "you"]."""
    return [word.letters for word in spoken(text)]


def without_times(text: str) -> str:
    """`text` without the times in its quotes."""

    def strip(quote: re.Match[str]) -> str:
        inner = "".join(part or "" for part in quote.groups())
        return f'"{" ".join(_TIME.sub(" ", inner).split())}"' if _TIME.search(inner) else quote[0]

    return QUOTED.sub(strip, text)


def other_words(text: str, words: Sequence[str]) -> str:
    """`text` with its quoted words exchanged for `words`, in order and from the first again; times stay."""
    more = cycle(words)

    def exchange(quote: re.Match[str]) -> str:
        return re.sub(r"[^\s<>\"“”„«»]+(?![^<]*>)", lambda _: next(more), quote[0])

    return QUOTED.sub(exchange, text)


def say(text: str, words: Sequence[str]) -> str:
    """`text` with `words` in quotes behind it, unless it quotes something."""
    return text if quoted(text) else ", ".join(part for part in (text, f'says "{" ".join(words)}"') if part)


def with_times(text: str, spans: Sequence[tuple[str, float, float]]) -> str:
    """`text` with the times of its quoted words, given as (word, start, end); as it is where those are others."""
    asked = quoted(text)
    given = spans[: len(asked)]
    if not asked or list(map(_bare, asked)) != [_bare(word) for word, _, _ in given]:
        return text
    times = iter(given)

    def mark(quote: re.Match[str]) -> str:
        return f'"{" ".join(_timed(word, *next(times)[1:]) for word in quoted(quote[0]))}"'

    return QUOTED.sub(mark, text)


def said_between(text: str, start: float, end: float) -> str:
    """`text` for the stretch from `start` to `end` of its clip: what has a time is said then, on a clock that begins
    there, or is not in it. Words without times stay."""

    def cut(quote: re.Match[str]) -> str:
        if not _TIME.search(quote[0]):
            return quote[0]
        said = []
        for word in spoken(quote[0]):
            if word.span is None:
                said.append(word.letters)
            elif word.span[0] < end and word.span[1] > start:
                said.append(_timed(word.letters, *(max(0.0, time - start) for time in word.span)))
        return f'"{" ".join(said)}"'

    return QUOTED.sub(cut, text)


def _timed(word: str, start: float, end: float) -> str:
    """As it stands in quotes."""
    return f"<{start:.2f}>{word}<{end:.2f}>"


def _bare(word: str) -> str:
    """Without case and punctuation."""
    return re.sub(r"[\W_]", "", word.lower())


def natural_seconds(words: Sequence[str]) -> float:
    """How long somebody takes to say `words`."""
    pauses = GAP_SECONDS * max(0, len(words) - 1)
    return sum(WORD_SECONDS + LETTER_SECONDS * len(word) for word in words) + pauses


def with_natural_times(text: str, seconds: float) -> str:
    """`text` with times for its quoted words in a clip of so many seconds, where it has none at all.

    They are said as fast as one speaks, or faster where they would not fit.
    """
    words = spoken(text)
    if not words or any(word.span for word in words):
        return text
    letters = [word.letters for word in words]
    needed = natural_seconds(letters)
    room = max(0.0, seconds - 2 * MARGIN)
    pace = min(1.0, room / needed)
    at = MARGIN + min(LATEST, LEAD * max(0.0, room - needed))
    spans = []
    for word in letters:
        length = pace * natural_seconds([word])
        spans.append((word, at, at + length))
        at += length + pace * GAP_SECONDS
    return with_times(text, spans)
