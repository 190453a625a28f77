"""What is to be said, spelled out and placed in time: a text encoder whose captions bring their quoted speech along.

A sentence encoder knows what words mean; which sounds they are made of, in which order and when, it was never asked. So
a caption such as `a face says "<0.31>river <0.85>music<1.30>"` becomes the tokens of another encoder, which sees it
without the times, and then one token per byte of what is in quotes: which byte it is, of which word, at which place in
it. Times are seconds, in angle brackets as those within a WebVTT cue: one before a word is when it begins, one after it
when it ends. They place the letters: to attention they lie where the sound of that second lies. A word without a time
has no place, and the model chooses.

`NAME+letters` is such an encoder of letters without times, for data that do not know them, `NAME+speech` one with both.
What they are worth is a study: `sora2 study speech`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.codecs.base import CodecError
from sora2.codecs.text import TextEncoder

#: Straight and curly quotes, guillemets. An apostrophe is not a quote.
QUOTED = re.compile(r'"([^"]*)"|[“„]([^“”]*)[“”]|«([^»]*)»')
_TIME = re.compile(r"<(\d+(?:\.\d+)?)>")
#: Words, and bytes of a word, that are told apart by their number; later ones count as the last.
WORDS, LETTERS = 32, 16
#: Of each of the three marks: a token is then about as long as one of MiniLM.
SIZE = 4.0
#: Numbers that a token has beyond those of the caption's encoder.
MARKS = 256 + WORDS + LETTERS

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
    """The words in quotes of a text, in order, with their times."""
    found: list[Word] = []
    for parts in QUOTED.findall(text):
        pieces = _TIME.split("".join(parts).lower())  # words, then time and words again and again
        found += [Word(letters) for letters in pieces[0].split()]
        times = [float(time) for time in pieces[1::2]]
        for number, (time, piece) in enumerate(zip(times, pieces[2::2], strict=True)):
            words = piece.split()
            end = times[number + 1] if number + 1 < len(times) else time + natural_seconds(words)
            found += _share(words, time, max(time, end))
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
    asked, given = quoted(text), list(spans)[: len(quoted(text))]
    if not asked or list(map(_bare, asked)) != [_bare(word) for word, _, _ in given]:
        return text
    times = iter(given)

    def mark(quote: re.Match[str]) -> str:
        timed = [(word, *next(times)[1:]) for word in quoted(quote[0])]
        return f'"{" ".join(f"<{a:.2f}>{word}<{b:.2f}>" for word, a, b in timed)}"'

    return QUOTED.sub(mark, text)


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


class LetterTextEncoder(nn.Module):
    """The tokens of `base`, then one per byte of quoted speech: (zeros, one-hot byte, of the word, of the place in it).

    Of `max_tokens` speech may take half; a caption that does not fit beside it loses its end. Times in captions are
    not read.
    """

    mark = "letters"

    def __init__(self, base: TextEncoder) -> None:
        super().__init__()
        if base.max_tokens < 4:
            raise CodecError(
                f"max_tokens={base.max_tokens}: a caption and its speech need room for at least 4 tokens"
            )
        self.base = base
        self.max_tokens: int = base.max_tokens
        self.width: int = base.width + MARKS

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        return self._encode(texts)[:2]

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        tokens, mask = self.base.encode([without_times(text) for text in texts])  # (B, L', D'), (B, L')
        rows, places = [], []
        for caption, kept, text in zip(tokens, mask, texts, strict=True):
            speech, seconds = self._spell(spoken(text))  # (n, D - D'), (n,)
            caption = caption[kept][: self.max_tokens - len(speech)]
            row = F.pad(caption, (0, MARKS))
            rows.append(torch.cat([row, F.pad(speech.to(row), (self.width - MARKS, 0))]))  # (L, D)
            places.append(F.pad(seconds, (len(caption), 0)))  # (L,)
        longest = max(map(len, rows), default=0)
        found = torch.zeros(len(rows), longest, self.width).to(tokens)  # (B, L, D)
        when = torch.zeros(len(rows), longest)
        for i, (words, seconds) in enumerate(zip(rows, places, strict=True)):
            found[i, : len(words)], when[i, : len(words)] = words, seconds
        lengths = torch.tensor([len(words) for words in rows], device=mask.device)
        return found, torch.arange(longest, device=mask.device) < lengths[:, None], when

    def _spell(self, words: list[Word]) -> tuple[Tensor, Tensor]:
        """(n, MARKS) and their seconds (n,), n at most half of the tokens."""
        marks, seconds = [], []
        for number, word in enumerate(words):
            letters = word.letters.encode()
            for place, byte in enumerate(letters):
                marks.append((byte, min(number, WORDS - 1), min(place, LETTERS - 1)))
                start, end = word.span or (0.0, 0.0)
                seconds.append(start + (end - start) * (place + 0.5) / len(letters))
        most = self.max_tokens // 2
        parts = torch.tensor(marks[:most], dtype=torch.long).reshape(-1, 3).unbind(1)
        sizes = (256, WORDS, LETTERS)
        which = SIZE * torch.cat([F.one_hot(p, n) for p, n in zip(parts, sizes, strict=True)], dim=1)
        return which.float(), torch.tensor(seconds[:most])

    def fingerprint(self) -> str:
        return f"{self.base.fingerprint()}+{self.mark}-{WORDS}-{LETTERS}"


class SpeechTextEncoder(LetterTextEncoder):
    """Letters whose words have a time are placed at their second."""

    mark = "speech"

    def encode_timed(self, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """As `encode`, and on the host seconds (B, L) of the tokens that have a time, 0 of the others."""
        return self._encode(texts)
