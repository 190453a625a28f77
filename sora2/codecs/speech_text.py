"""What is to be said, spelled out: a text encoder whose captions bring the letters of their quoted speech along.

A sentence encoder knows what words mean; which sounds they are made of, and in which order, it was never asked. So a
caption such as `a face says "river music"` becomes the tokens of another encoder and then one token per byte of what
is in quotes, that says which byte it is, of which word, at which place in it. A network hears the words of its captions
sooner with them than without (`sora2 study speech`).
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.codecs.base import CodecError
from sora2.codecs.text import TextEncoder

#: Straight and curly quotes, guillemets. An apostrophe is not a quote.
QUOTED = re.compile(r'"([^"]*)"|[“„]([^“”]*)[“”]|«([^»]*)»')
#: Words, and bytes of a word, that are told apart by their number; later ones count as the last.
WORDS, LETTERS = 32, 16
#: Numbers that a token has beyond those of the caption's encoder.
MARKS = 256 + WORDS + LETTERS
#: Of each of the three marks: a token is then about as long as one of MiniLM.
SIZE = 4.0


def quoted(text: str) -> list[str]:
    """The words in quotes, lower case, in order: `says "Hello you"` -> ["hello", "you"]."""
    return " ".join("".join(parts) for parts in QUOTED.findall(text)).lower().split()


def other_words(text: str, words: list[str]) -> str:
    """`text` with `words` in its first quotes, whatever is there, and nothing in later ones."""
    left = [" ".join(words)]
    return QUOTED.sub(lambda _: f'"{left.pop() if left else ""}"', text)


class SpeechTextEncoder(nn.Module):
    """The tokens of `base`, then one per byte of quoted speech: (zeros, one-hot byte, of the word, of the place in it).

    Of `max_tokens` speech may take half; a caption that does not fit beside it loses its end.
    """

    def __init__(self, base: TextEncoder) -> None:
        super().__init__()
        if base.max_tokens < 4:
            raise CodecError(
                f"max_tokens={base.max_tokens}: a caption and its speech need room for at least 4 tokens"
            )
        self.base = base
        self.max_tokens: int = base.max_tokens
        self.width: int = base.width + MARKS

    @torch.no_grad()
    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        tokens, mask = self.base.encode(texts)  # (B, L', D'), (B, L')
        rows = []
        for caption, kept, text in zip(tokens, mask, texts, strict=True):
            speech = self._spell(quoted(text)).to(caption)  # (n, D - D')
            caption = caption[kept][: self.max_tokens - len(speech)]
            rows.append(torch.block_diag(caption, speech) if len(speech) else self._widen(caption))
        found = torch.zeros(len(rows), max(map(len, rows), default=0), self.width).to(tokens)  # (B, L, D)
        for row, words in zip(found, rows, strict=True):
            row[: len(words)] = words
        lengths = torch.tensor([len(words) for words in rows], device=mask.device)
        return found, torch.arange(found.shape[1], device=mask.device) < lengths[:, None]

    def _spell(self, words: list[str]) -> Tensor:
        """(n, MARKS), n at most half of the tokens."""
        marks = [
            (byte, min(word, WORDS - 1), min(place, LETTERS - 1))
            for word, letters in enumerate(words)
            for place, byte in enumerate(letters.encode())
        ][: self.max_tokens // 2]
        parts = torch.tensor(marks, dtype=torch.long).reshape(-1, 3).unbind(1)
        sizes = (256, WORDS, LETTERS)
        return SIZE * torch.cat([F.one_hot(p, n) for p, n in zip(parts, sizes, strict=True)], dim=1)

    def _widen(self, caption: Tensor) -> Tensor:
        return F.pad(caption, (0, self.width - caption.shape[1]))

    def fingerprint(self) -> str:
        return f"{self.base.fingerprint()}+speech-{WORDS}-{LETTERS}"
