"""What is to be said, spelled out and placed in time: a text encoder whose captions bring their quoted speech along.

A sentence encoder knows what words mean; which sounds they are made of, in which order and when, it was never asked. So
a caption such as `a face says "<0.31>river <0.85>music<1.30>"` (`quotes.py`) becomes the tokens of another encoder,
which sees it without the times, and then one token per byte of what is in quotes: which byte it is, of which word, at
which place in it. Times place the letters: to attention they lie where the sound of that second lies. A word without a
time has no place, and the model chooses.

`NAME+letters` is such an encoder of letters without times, for data that do not know them, `NAME+speech` one with both.
What they are worth is a study: `sora2 study speech`.
"""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.codecs.base import CodecError
from sora2.codecs.quotes import Word, spoken, without_times
from sora2.codecs.text import TextEncoder

#: Words, and bytes of a word, that are told apart by their number; later ones count as the last.
WORDS, LETTERS = 32, 16
#: Of each of the three marks: a token is then about as long as one of MiniLM.
SIZE = 4.0
#: Numbers that a token has beyond those of the caption's encoder.
MARKS = 256 + WORDS + LETTERS


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

    def unread(self, text: str, tokens: int | None = None) -> str:
        most = self.max_tokens if tokens is None else min(tokens, self.max_tokens)
        words = spoken(text)
        spelled = list(accumulate(len(word.letters.encode()) for word in words))
        room = self.max_tokens // 2
        unsaid = [word.letters for word, letters in zip(words, spelled, strict=True) if letters > room]
        caption = self.base.unread(without_times(text), most - min(room, spelled[-1] if spelled else 0))
        return " ".join(part for part in (caption, *unsaid) if part)

    def fingerprint(self) -> str:
        return f"{self.base.fingerprint()}+{self.mark}-{WORDS}-{LETTERS}"


class SpeechTextEncoder(LetterTextEncoder):
    """Letters whose words have a time are placed at their second."""

    mark = "speech"

    def encode_timed(self, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """As `encode`, and on the host seconds (B, L) of the tokens that have a time, 0 of the others."""
        return self._encode(texts)
