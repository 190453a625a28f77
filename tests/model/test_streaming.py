"""A film computed chunk by chunk through a cache is the film computed at once."""

from dataclasses import replace

import pytest
import torch

from sora2.kernels import Rule
from sora2.model import ModelError, Transformer, TransformerConfig
from sora2.model.cache import KVCache
from sora2.model.config import AttentionConfig
from sora2.model.streaming import Film, Stream
from sora2.types import AudioShape, Batch, Modality, VideoShape, clean_modality
from tests.model.tiny import awake

VIDEO = VideoShape(25, 32, 32, 8.0, channels=2)  # 7 x 2 x 2 tokens, 3.125 s
AUDIO = AudioShape(samples=78 * 640, sample_rate=16000)
B, TEXT, CHUNK = 2, 5, 0.5
RULES = {
    "dense": (Rule(),),
    "window": (Rule((3, 1, 1), 0.2, 0.3), Rule()),
    "top_k": (Rule(top_k=2),),
}


def _model(*rules, depth=3):
    config = TransformerConfig(
        width=32, depth=depth, heads=2, video_width=8, audio_width=6, text_width=10, level_features=16, level_width=16,
        attention=AttentionConfig(chunk_seconds=CHUNK, layers=rules, tile=(1, 1, 2), flat_tile=4),
    )  # fmt: skip
    model = Transformer(config, torch.Generator().manual_seed(0)).requires_grad_(False)
    return awake(model, torch.Generator().manual_seed(1))


def _modality(shape, width, seed):
    latent = torch.randn(B, shape.tokens, width, generator=torch.Generator().manual_seed(seed))
    return clean_modality(latent, shape.positions())


def _film_batch(text=True):
    words = torch.randn(B, TEXT, 10, generator=torch.Generator().manual_seed(4))
    mask = torch.ones(B, TEXT, dtype=torch.bool)
    mask[0, 3:] = False
    return Batch(
        video=_modality(VIDEO, 8, 2),
        audio=_modality(AUDIO, 6, 3),
        text=clean_modality(words, torch.zeros(TEXT, 3), mask) if text else None,
        video_shape=VIDEO,
        audio_shape=AUDIO,
    )


def _levels(batch, index, now=0.6, later=0.9):
    """The whole film while chunk `index` is sampled: finished before it, noise behind it."""

    def level(m: Modality):
        chunk = (m.positions[..., 0] / CHUNK).floor()
        return m.replace(noise_level=torch.where(chunk < index, 0.0, torch.where(chunk == index, now, later)))

    return batch.replace(video=level(batch.video), audio=level(batch.audio))


def test_chunks_hold_every_token_once_and_in_time():
    film = Film.of(_film_batch(), _model(Rule()).config.attention)
    for name, shape in (("video", VIDEO), ("audio", AUDIO)):
        index = torch.cat([c.tokens[name] for c in film.chunks])
        assert torch.equal(index.sort().values, torch.arange(shape.tokens))
        for c in film.chunks:
            seconds = shape.positions()[c.tokens[name], 0]
            assert bool(((seconds / CHUNK).floor() == c.index).all())
    assert any(len(c.tokens["video"]) == 0 for c in film.chunks)  # sound outlasts the last frame's centre


@pytest.mark.parametrize("rules", list(RULES))
@pytest.mark.parametrize("text", [True, False])
def test_streaming_equals_the_full_computation(rules, text):
    model, batch = _model(*RULES[rules], depth=1 if rules == "top_k" else 2), _film_batch(text)
    film = Film.of(batch, model.config.attention)
    stream = Stream(model, model.config, film, batch)
    for chunk in film.chunks:
        for now in (0.9, 0.3):  # as many steps as the sampler likes, none leaves a trace
            whole = _levels(batch, chunk.index, now)
            got, want = stream(chunk.take(whole)), chunk.of(model(whole))
            for name in want:
                torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-5)
        stream.advance(chunk.take(_levels(batch, chunk.index + 1)))


def test_a_limited_history_is_the_film_that_begins_there():
    """Without text only differences of time count: forgetting old chunks equals never having had them, and the clock
    that is set back changes nothing."""
    model, batch = _model(Rule(), depth=1), _film_batch(text=False)
    film = Film.of(batch, model.config.attention)
    stream = Stream(model, model.config, film, batch, history_seconds=3 * CHUNK)
    for position, chunk in enumerate(film.chunks):
        whole = _levels(batch, chunk.index)
        got = stream(chunk.take(whole))
        oldest = film.chunks[max(0, position - 2)].index

        def begins_there(m, first=oldest):
            return m.replace(mask=(m.positions[..., 0] / CHUNK).floor() >= first)

        late = whole.replace(video=begins_there(whole.video), audio=begins_there(whole.audio))
        for name, want in chunk.of(model(late)).items():
            torch.testing.assert_close(got[name], want, rtol=1e-4, atol=1e-4)
        stream.advance(chunk.take(_levels(batch, chunk.index + 1)))
    assert stream.clock == pytest.approx((len(film.chunks) - 3) * CHUNK)
    assert (
        stream.cache.capacity < VIDEO.tokens + AUDIO.tokens
    )  # memory is that of the history, not of the film


def test_the_clock_of_a_deep_cache_can_be_set_back():
    """Keys turned back in the cache are the keys of the same film begun later."""
    model, batch = _model(Rule()), _film_batch(text=False)
    film = Film.of(batch, model.config.attention)
    caches = []
    for shift in (0.0, 2.0):
        cache = KVCache(model.config, B, 200)
        for chunk in film.chunks[:2]:
            part = chunk.take(batch)
            moved = {
                n: m.replace(positions=m.positions + torch.tensor([shift, 0.0, 0.0]))
                for n, m in part.modalities().items()
            }
            model(part.replace(**moved), cache)
            cache.commit()
        cache.set_back(0, shift)
        caches.append(cache)
    for layer in range(3):
        torch.testing.assert_close(caches[0].buffers[layer], caches[1].buffers[layer], rtol=1e-4, atol=1e-4)


def test_the_buffer_is_written_in_place():
    model, batch = _model(Rule()), _film_batch()
    film = Film.of(batch, model.config.attention)
    stream = Stream(model, model.config, film, batch)
    where = {layer: buffer.data_ptr() for layer, buffer in stream.cache.buffers.items()}
    for chunk in film.chunks:
        stream(chunk.take(batch))
        stream.advance(chunk.take(batch))
    assert where == {layer: buffer.data_ptr() for layer, buffer in stream.cache.buffers.items()}
    assert stream.cache.length == stream.cache.capacity == TEXT + VIDEO.tokens + AUDIO.tokens


def test_what_cannot_be_streamed_is_refused():
    model, batch = _model(Rule()), _film_batch()
    both_ways = replace(model.config, attention=AttentionConfig())
    with pytest.raises(ModelError, match="only a causal model streams"):
        Film.of(batch, both_ways.attention)
    with pytest.raises(ModelError, match="needs a causal model"):
        KVCache(both_ways, B, 10)
    late = batch.video.replace(positions=batch.video.positions + torch.tensor([0.0, 1.0]).view(2, 1, 1))
    with pytest.raises(ModelError, match="one clock"):
        Film.of(batch.replace(video=late), model.config.attention)
    told, film = replace(model.config, timed_text=3), Film.of(batch, model.config.attention)
    Stream(model, told, film, batch)  # of text without times there is nothing to tell
    said = batch.replace(text=batch.text.replace(positions=batch.text.positions + 0.5))
    with pytest.raises(ModelError, match=r"text with a time.*model.timed_text"):
        Stream(model, told, film, said)
    with pytest.raises(ModelError, match="do not fit"):
        model(batch.replace(text=None), KVCache(model.config, B, 10))
