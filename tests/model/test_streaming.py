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


def _model(*rules, depth=3, **changes):
    config = TransformerConfig(
        width=32, depth=depth, heads=2, video_width=8, audio_width=6, text_width=10, level_features=16, level_width=16,
        attention=AttentionConfig(chunk_seconds=CHUNK, layers=rules, tile=(1, 1, 2), flat_tile=4), **changes,
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


def _said(batch, seconds):
    """Text of which every token has a time, from `seconds` on."""
    place = torch.zeros(B, TEXT, 3)
    place[..., 0] = seconds + 0.1 * torch.arange(TEXT)
    return batch.replace(text=batch.text.replace(positions=place))


def test_a_streamed_film_is_told_text_with_a_time():
    model, batch = _model(Rule(), depth=2, timed_text=3), _said(_film_batch(), 1.3)
    film = Film.of(batch, model.config.attention)
    stream, heard = Stream(model, model.config, film, batch), []
    for chunk in film.chunks:
        whole = _levels(batch, chunk.index)
        got, want = stream(chunk.take(whole)), chunk.of(model(whole))
        for name in want:
            torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-5)
        plain = chunk.of(model(whole.replace(text=_film_batch().text)))
        heard.append(not torch.allclose(plain["audio"], want["audio"], atol=1e-3))
        stream.advance(chunk.take(_levels(batch, chunk.index + 1)))
    assert any(heard)


def test_each_chunk_is_told_what_is_its_own():
    """Of what earlier chunks were told nothing is left but what became of them: where one layer makes the past what it
    is, a chunk is that of a film told so throughout."""
    model, batch = _model(Rule(), depth=1), _film_batch()
    told = [batch, _said(batch, 0.4), batch.replace(text=batch.text.replace(latent=-batch.text.latent))]
    film = Film.of(batch, model.config.attention)
    order = [told[min(at // 2, 2)] for at in range(len(film.chunks))]
    calls = []

    def network(part, cache):
        calls.append(set(part.modalities()))
        return model(part, cache)

    stream, different = Stream(network, model.config, film, order), []
    for chunk, mine in zip(film.chunks, order, strict=True):
        got = stream(chunk.take(batch))
        want = chunk.of(model(mine))
        for name in want:
            torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-5)
        different.append(not torch.allclose(chunk.of(model(batch))["audio"], want["audio"], atol=1e-3))
        stream.advance(chunk.take(batch))
    assert different == [mine is not batch for mine in order]
    assert calls.count({"text"}) == 3  # nothing is told twice


def test_what_is_told_first_may_be_nothing():
    model, batch = _model(Rule(), depth=1), _film_batch()
    silent = batch.replace(text=batch.text.replace(mask=torch.zeros_like(batch.text.mask)))
    film = Film.of(batch, model.config.attention)
    stream = Stream(model, model.config, film, [silent] + [batch] * (len(film.chunks) - 1))
    for chunk, mine in zip(film.chunks, stream.told, strict=True):
        for name, want in chunk.of(model(mine)).items():
            torch.testing.assert_close(stream(chunk.take(batch))[name], want, rtol=1e-4, atol=1e-5)
        stream.advance(chunk.take(batch))


def test_text_with_a_time_is_on_the_clock_that_is_set_back():
    """A film that began later, told then, is the end of one that began before and has been forgotten."""
    model, batch = _model(Rule(), depth=1, timed_text=3), _film_batch()
    film, history = Film.of(batch, model.config.attention), 3 * CHUNK
    order = [_said(batch, 3.0 - film.clock(at, history)) for at in range(len(film.chunks))]
    stream = Stream(model, model.config, film, order, history)
    for position, chunk in enumerate(film.chunks):
        got, oldest = stream(chunk.take(batch)), film.chunks[max(0, position - 2)].index

        def begins_there(m, first=oldest):
            return m.replace(mask=(m.positions[..., 0] / CHUNK).floor() >= first)

        late = _said(batch, 3.0).replace(video=begins_there(batch.video), audio=begins_there(batch.audio))
        for name, want in chunk.of(model(late)).items():
            torch.testing.assert_close(got[name], want, rtol=1e-4, atol=1e-4)
        stream.advance(chunk.take(batch))


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
    film = Film.of(batch, model.config.attention)
    for told in ([batch] * 3, [batch] * (len(film.chunks) - 1) + [batch.replace(text=None)]):
        with pytest.raises(ModelError, match="is told by one batch for each, all of as many tokens"):
            Stream(model, model.config, film, told)
    with pytest.raises(ModelError, match="do not fit"):
        model(batch.replace(text=None), KVCache(model.config, B, 10))
