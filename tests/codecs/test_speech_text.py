"""Quoted speech, spelled out beside its caption."""

from __future__ import annotations

import pytest
import torch

from sora2.codecs import CodecError, build_text_encoder
from sora2.codecs.quotes import (
    natural_seconds,
    other_words,
    quoted,
    spoken,
    with_natural_times,
    with_times,
    without_times,
)
from sora2.codecs.speech_text import MARKS
from sora2.codecs.text import reads_times, text_modality

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


def test_what_finds_no_room_beside_speech_is_known():
    encoder = build_text_encoder("minilm+speech", 16)
    assert encoder.unread('a face says "<0.1>hello<0.5>"') == ""
    left = encoder.unread('a face says "one two three four five"')
    assert left == 'four five" three four five'  # 8 tokens of the caption, and 8 letters, are read
    left = encoder.unread('a very long caption of a sad and tired old face in the rain, "hello"')
    assert left.endswith('in the rain, "hello"') and not left.startswith("a very")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('says "<0.3>river<0.7> <1>music<1.5>"', [("river", 0.3, 0.7), ("music", 1.0, 1.5)]),
        ('says "<0.3>river <1>music<1.5>"', [("river", 0.3, 1.0), ("music", 1.0, 1.5)]),
        ('says "<1>ab abcd<2.2>"', [("ab", 1.0, 1.4), ("abcd", 1.4, 2.2)]),
        ('says "<1>four"', [("four", 1.0, 1.44)]),
        ('says "well" and “<2>you<2.5>”', [("well",), ("you", 2.0, 2.5)]),
    ],
)
def test_times_in_quotes_are_those_of_the_words_between_them(text, words):
    assert quoted(text) == [w for w, *_ in words]
    for word, (_, *span) in zip(spoken(text), words, strict=True):
        assert (word.span or ()) == pytest.approx(tuple(span))
    plain = without_times(text)
    assert "<" not in plain and quoted(plain) == quoted(text)
    assert all(word.span is None for word in spoken(plain))


def test_times_that_go_backwards_are_refused():
    with pytest.raises(CodecError, match=r"<1.2> comes after <1.5>.*seconds that rise"):
        spoken('says "<1.5>river<1.2>"')


def test_letters_lie_within_their_word_and_a_caption_lies_nowhere(spelling):
    tokens, mask, seconds = spelling.encode_timed(['a face says "<0.5>ab<0.9>" twice', 'says "ab"'])
    letters = tokens[..., spelling.width - MARKS :].any(dim=2)
    assert seconds[letters].tolist() == pytest.approx([0.6, 0.8, 0, 0])
    assert not seconds[~letters].any()
    plain, plain_mask = spelling.encode(['a face says "ab" twice', 'says "ab"'])
    assert torch.equal(plain, tokens) and torch.equal(plain_mask, mask)
    placed = text_modality(spelling, ['a face says "<0.5>ab<0.9>" twice'])
    assert placed.positions[..., 0].max() == pytest.approx(0.8) and not placed.positions[..., 1:].any()


def test_known_times_are_put_into_the_caption_of_those_words_and_no_other():
    said = [("river", 0.31, 0.72), ("music", 0.85, 1.3), ("river", 2.4, 2.8)]  # said again later
    text = with_times(SAID, said)
    assert [w.letters for w in spoken(text)] == ["river", "music"]
    assert [w.span for w in spoken(text)] == [(0.31, 0.72), (0.85, 1.3)]
    assert without_times(text) == SAID
    assert with_times("a face", said) == "a face"
    assert with_times('says "music river"', said) == 'says "music river"'
    two = with_times('he says "river", she says "music"', said)
    assert without_times(two) == 'he says "river", she says "music"' and spoken(two)[1].span == (0.85, 1.3)


@pytest.mark.parametrize("seconds", [0.5, 2.06, 10.0])
def test_words_that_nobody_has_timed_are_said_at_a_natural_pace_or_as_fast_as_they_must(seconds):
    words = spoken(with_natural_times(SAID, seconds))
    spans = [word.span for word in words]
    assert all(a < b for a, b in spans) and spans[0][1] < spans[1][0]
    assert 0 < spans[0][0] <= 0.6 and spans[-1][1] <= seconds
    assert (spans[0][1] - spans[0][0] == pytest.approx(natural_seconds(["river"]), abs=0.02)) == (
        seconds > 1.2
    )
    timed = 'says "<1>river"'
    assert with_natural_times(timed, seconds) == timed and with_natural_times("rain", seconds) == "rain"


def test_other_words_take_the_times_of_those_they_replace():
    text = with_times(SAID, [("river", 0.31, 0.72), ("music", 0.85, 1.3)])
    other = other_words(text, ["tiger"])
    assert [(w.letters, w.span) for w in spoken(other)] == [("tiger", (0.31, 0.72)), ("tiger", (0.85, 1.3))]
    assert other_words(SAID, ["one", "two", "three"]) == SAID.replace("river music", "one two")


def test_its_fingerprint_and_its_errors(spelling):
    assert spelling.fingerprint() != build_text_encoder("minilm", 64).fingerprint()
    assert spelling.fingerprint() != build_text_encoder("minilm+speech", 32).fingerprint()
    letters = build_text_encoder("minilm+letters", 64)
    assert letters.fingerprint() not in (spelling.fingerprint(), letters.base.fingerprint())
    assert torch.equal(letters.encode([SAID])[0], spelling.encode([SAID])[0])
    assert not reads_times(letters) and reads_times(spelling)
    with pytest.raises(CodecError, match="max_tokens=2"):
        build_text_encoder("bytes+speech", 2)
    with pytest.raises(CodecError, match="'gpt'"):
        build_text_encoder("gpt+speech")
