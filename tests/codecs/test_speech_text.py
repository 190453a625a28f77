"""Quoted speech, spelled out beside its caption."""

from __future__ import annotations

import pytest
import torch

from sora2.codecs import CodecError, build_text_encoder
from sora2.codecs.speech_text import MARKS, quoted

SAID = 'a face says "river music" in front of hills'


@pytest.fixture(scope="module")
def spelling():
    return build_text_encoder("minilm+speech", 64)


def spelled(encoder, text: str) -> str:
    tokens, mask = encoder.encode([text])
    marks = tokens[0][mask[0]][:, encoder.width - MARKS :]
    return bytes(marks[marks.any(dim=1)][:, :256].argmax(dim=1).tolist()).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SAID, ["river", "music"]),
        ("“Hello YOU” she says, then “what?”", ["hello", "you", "what?"]),
        ("il dit « bonjour » et „tschüs“", ["bonjour", "tschüs"]),
        ("it's a dog's life, nothing is said", []),
        ('an open " is no quote', []),
        ('""', []),
    ],
)
def test_what_is_in_quotes_is_spelled_out(spelling, text, words):
    assert quoted(text) == words
    assert spelled(spelling, text) == "".join(words)


def test_the_caption_is_as_without_speech_and_a_silent_one_is_the_encoders_own(spelling):
    plain = build_text_encoder("minilm", 64)
    for text, letters in ((SAID, 10), ("rain at night", 0), ("", 0)):
        (own, kept), (tokens, mask) = plain.encode([text]), spelling.encode([text])
        caption = int(kept.sum())
        assert int(mask.sum()) == caption + letters
        assert torch.allclose(tokens[0, :caption, : plain.width], own[0, :caption], atol=1e-5)
        assert not tokens[0, :caption, plain.width :].any()
        assert not tokens[0, caption:, : plain.width].any()


def test_order_of_words_and_letters_is_told(spelling):
    def marks(text: str) -> set[tuple[float, ...]]:
        tokens, mask = spelling.encode([text])
        return {tuple(t.tolist()) for t in tokens[0][mask[0]][:, spelling.width - MARKS :] if t.any()}

    assert marks('"ab cd"') != marks('"cd ab"')
    assert marks('"ab cd"') != marks('"abcd"')
    assert len(marks('"aaa aaa"')) == 6


def test_padding_and_neighbours_do_not_change_a_text(spelling):
    alone, alone_mask = spelling.encode([SAID])
    both, mask = spelling.encode(["rain", SAID])
    assert mask.sum(1).tolist()[1] == int(alone_mask.sum())
    assert torch.allclose(both[1][mask[1]], alone[0][alone_mask[0]], atol=1e-4)
    assert not both[~mask].any()


def test_speech_takes_half_of_the_tokens_at_most_and_goes_before_the_caption():
    encoder = build_text_encoder("minilm+speech", 16)
    tokens, mask = encoder.encode(
        ['a very long caption of a face, of which one hears "one two three four five"']
    )
    assert tokens.shape == (1, 16, encoder.width) and mask.all()
    assert int(tokens[0, :, encoder.width - MARKS :].any(dim=1).sum()) == 8
    assert spelled(encoder, f'{"word " * 30} "hello"') == "hello"


def test_its_fingerprint_and_its_errors(spelling):
    assert spelling.fingerprint() != build_text_encoder("minilm", 64).fingerprint()
    assert spelling.fingerprint() != build_text_encoder("minilm+speech", 32).fingerprint()
    with pytest.raises(CodecError, match="max_tokens=2"):
        build_text_encoder("bytes+speech", 2)
    with pytest.raises(CodecError, match="'gpt'"):
        build_text_encoder("gpt+speech")
