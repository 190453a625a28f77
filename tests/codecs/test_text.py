from __future__ import annotations

import pytest
import torch

from sora2.codecs import CodecError, build_text_encoder


@pytest.fixture(scope="module")
def minilm():
    return build_text_encoder("minilm")


def sentence(encoder, text):
    tokens, mask = encoder.encode([text])
    return (tokens * mask.unsqueeze(-1)).sum(1)[0] / mask.sum()


def test_minilm_knows_what_is_related(minilm):
    ball, sphere, market = (
        sentence(minilm, t)
        for t in ("a red ball bounces", "the crimson sphere is bouncing", "stock market report for friday")
    )
    assert torch.cosine_similarity(ball, sphere, 0) > 0.45
    assert torch.cosine_similarity(ball, market, 0) < 0.2


def test_padding_does_not_change_a_text(minilm):
    short, long = "rain", "two big blue wooden balls bounce in strong gravity"
    alone, alone_mask = minilm.encode([short])
    both, mask = minilm.encode([short, long])
    length = int(alone_mask.sum())
    assert alone.shape[0] == 1 and both.shape[2] == minilm.width == 384
    assert torch.allclose(both[0, :length], alone[0, :length], atol=1e-4)
    assert not mask[0, length:].any() and mask[1].all()
    assert not both[0, length:].any()


def test_long_and_empty_texts(minilm):
    tokens, mask = minilm.encode(["ball " * 200, ""])
    assert tokens.shape[1] == minilm.max_tokens == 24
    assert mask[0].all() and mask[1].sum() == 2


@pytest.mark.parametrize("name", ["minilm", "bytes"])
def test_what_is_not_read_is_known(name):
    """What is read and what is not are the text; the tokens are those of what is read."""
    encoder = build_text_encoder(name, 24)
    text = "a red rubber ball bounces twice on a wooden floor beside a tall tree, " * 2 + "then rain at night"
    left = encoder.unread(text)
    read = text.removesuffix(left)
    assert 0 < len(left) < len(text) and left.endswith("rain at night") and len(read) + len(left) == len(text)
    assert encoder.unread(read.strip()) == "" and encoder.unread("a red ball") == encoder.unread("") == ""
    assert torch.equal(encoder.encode([read.strip()])[0], encoder.encode([text])[0])
    assert len(encoder.unread(text, 10)) > len(left)


def test_bytes_are_told_apart_by_value_and_place():
    encoder = build_text_encoder("bytes", max_tokens=8)
    tokens, mask = encoder.encode(["aba", "é", ""])
    assert tokens.shape == (3, 3, 256 + 8) and encoder.width == 264
    assert mask.sum(1).tolist() == [3, 2, 1]
    assert tokens[0, 0, ord("a")] == 1 and tokens[0, 2, ord("a")] == 1
    assert not torch.equal(tokens[0, 0], tokens[0, 2])
    assert (tokens.sum(-1) == 2 * mask).all()


def test_fingerprints_tell_encoders_apart(minilm):
    names = {minilm.fingerprint(), *(build_text_encoder("bytes", n).fingerprint() for n in (8, 9))}
    assert len(names) == 3


@pytest.mark.parametrize("name, tokens, word", [("gpt", None, "'gpt'"), ("bytes", 1, "max_tokens=1")])
def test_impossible_encoders_are_named(name, tokens, word):
    with pytest.raises(CodecError, match=word):
        build_text_encoder(name, tokens)


def test_a_folder_that_is_no_transformers_checkpoint(tmp_path):
    with pytest.raises(CodecError, match="transformers"):
        build_text_encoder(str(tmp_path))
