"""What users of the transformer rely on, as properties of the real module."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from sora2.config import ConfigError, from_mapping, to_mapping
from sora2.kernels import PatternError, Rule
from sora2.model import ModelError, Transformer, TransformerConfig, build, initialize
from sora2.model.config import AttentionConfig, upgrade
from sora2.model.packing import level_runs, pack, plan_segments, tile
from sora2.model.timed_text import SPACING, SPREAD
from sora2.types import AudioShape, Batch, Modality, VideoShape, clean_modality
from tests.model.tiny import awake

TINY = TransformerConfig(
    width=32, depth=2, heads=2, video_width=8, audio_width=6, text_width=10, level_features=16, level_width=16
)
VIDEO = VideoShape(9, 32, 32, 8.0, channels=2)  # 3 x 2 x 2 tokens
AUDIO = AudioShape(samples=16 * 640, sample_rate=16000)
B, TEXT = 2, 5


@pytest.fixture(scope="module")
def model():
    return _awake(Transformer(TINY, torch.Generator().manual_seed(0)))


def _awake(model):
    return awake(model, torch.Generator().manual_seed(1))


def _modality(n, width, positions, seed, level=None):
    g = torch.Generator().manual_seed(seed)
    level = torch.rand(B, 1, generator=g).expand(B, n) if level is None else level
    latent = torch.randn(B, n, width, generator=g)
    return Modality(latent, positions.expand(B, n, 3), level, torch.ones(B, n, dtype=torch.bool))


def _batch(text=True):
    video = _modality(VIDEO.tokens, 8, VIDEO.positions(), 2)
    audio = _modality(AUDIO.tokens, 6, AUDIO.positions(), 3)
    words = torch.randn(B, TEXT, 10, generator=torch.Generator().manual_seed(4))
    return Batch(video=video, audio=audio, text=clean_modality(words, torch.zeros(TEXT, 3)) if text else None)


def _close(a, b, **kwargs):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **({"rtol": 1e-4, "atol": 1e-5} | kwargs))


def test_one_float32_velocity_per_generated_token(model):
    batch = _batch()
    out = model(batch)
    assert {k: tuple(v.shape) for k, v in out.items()} == {"video": (B, 12, 8), "audio": (B, 16, 6)}
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
    assert all(v.dtype == torch.float32 for v in half.values())
    _close(half, out, rtol=0.1, atol=0.1)


def test_weights_may_be_bf16(model):
    low = Transformer(TINY)
    low.load_state_dict(model.state_dict())
    _close(low.bfloat16()(_batch()), model(_batch()), rtol=0.1, atol=0.1)


def test_the_untrained_velocity_is_zero_and_everything_learns():
    model = Transformer(TINY, torch.Generator().manual_seed(0))
    assert all(bool((v == 0).all()) for v in model(_batch()).values())
    _awake(model)
    sum(v.square().sum() for v in model(_batch()).values()).backward()
    idle = {n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)}
    # The last block's text feed-forward cannot reach an output, and no reference is in the batch.
    last = {n for n in idle if n.startswith("blocks.1.ffn.text.")}
    assert idle == last | {"kind.reference_video", "kind.reference_audio"} and len(last) == 2


def test_order_of_tokens_does_not_matter(model):
    batch = _batch()
    order = torch.randperm(VIDEO.tokens, generator=torch.Generator().manual_seed(5))
    v = batch.video
    shuffled = Modality(v.latent[:, order], v.positions[:, order], v.noise_level[:, order], v.mask[:, order])
    out, again = model(batch), model(batch.replace(video=shuffled))
    _close({"video": out["video"][:, order], "audio": out["audio"]}, again)


def test_samples_of_a_batch_do_not_meet(model):
    batch = _batch()
    changed = batch.video.latent.clone()
    changed[1] += 1
    out, again = model(batch), model(batch.replace(video=batch.video.replace(latent=changed)))
    assert torch.equal(out["audio"][0], again["audio"][0])
    assert not torch.allclose(out["audio"][1], again["audio"][1])


def _shifted(batch, seconds, names):
    step = torch.tensor([seconds, 0.0, 0.0])
    return batch.replace(
        **{n: getattr(batch, n).replace(positions=getattr(batch, n).positions + step) for n in names}
    )


def test_only_differences_of_time_count(model):
    batch = _batch(text=False)
    _close(model(batch), model(_shifted(batch, 7.3, ("video", "audio"))), atol=1e-4)
    moved = model(_shifted(batch, 0.04, ("audio",)))
    assert not torch.allclose(model(batch)["video"], moved["video"], atol=1e-3)


def test_text_that_has_a_time_lies_there(model):
    """Only its distance from what is seen and heard counts; where it has none, at the origin, nothing is turned."""
    batch = _batch()
    timed = _shifted(batch, 0.4, ("text",))
    assert not torch.allclose(model(batch)["audio"], model(timed)["audio"], atol=1e-3)
    _close(model(timed), model(_shifted(timed, 7.3, ("text", "video", "audio"))), atol=1e-4)


def test_times_of_text_change_no_tile_of_a_pattern():
    batch = _batch()
    attention = AttentionConfig(layers=(Rule(window=(1, 1, 1)),), tile=(1, 2, 2), flat_tile=4)
    segments = plan_segments(batch)
    own = torch.rand(2, batch.text.tokens, 1) * torch.tensor([1.0, 0.0, 0.0])
    timed = batch.replace(text=batch.text.replace(positions=batch.text.positions + own))
    plain, other = (tile(b, segments, attention)[0] for b in (batch, timed))
    assert torch.equal(plain.order, other.order)


def test_a_batch_with_a_clock_per_sample_equals_single_samples(model):
    batch = _batch()
    offset = torch.tensor([0.0, 1.7])[:, None, None] * torch.tensor([1.0, 0.0, 0.0])
    batch = batch.replace(
        **{
            n: getattr(batch, n).replace(positions=getattr(batch, n).positions + offset)
            for n in ("video", "audio")
        }
    )
    out = model(batch)
    for i in range(B):
        one = model(_take(batch, i))
        _close({k: v[i : i + 1] for k, v in out.items()}, one)


def _take(batch, i):
    fields = ("latent", "positions", "noise_level", "mask")
    return batch.replace(
        **{n: Modality(*(getattr(m, f)[i : i + 1] for f in fields)) for n, m in batch.modalities().items()}
    )


def _pad(m, extra):
    """Padding filled with values that would poison everything they touch."""
    n = m.tokens
    latent = torch.cat([m.latent, torch.full((B, extra, m.latent.shape[2]), float("nan"))], dim=1)
    positions = torch.cat([m.positions, torch.full((B, extra, 3), 50.0)], dim=1)
    level = torch.cat([m.noise_level, torch.ones(B, extra)], dim=1)
    return Modality(latent, positions, level, torch.arange(n + extra).expand(B, -1) < n)


@pytest.mark.parametrize("chunk_seconds", [None, 0.5])
def test_padding_changes_nothing(chunk_seconds):
    attention = AttentionConfig(chunk_seconds=chunk_seconds, flat_tile=5)
    model = _awake(Transformer(replace(TINY, attention=attention), torch.Generator().manual_seed(0)))
    batch = _batch()
    padded = batch.replace(video=_pad(batch.video, 3), audio=_pad(batch.audio, 2), text=_pad(batch.text, 4))
    out, got = model(batch), model(padded)
    assert torch.equal(got["video"][:, VIDEO.tokens :], torch.zeros(B, 3, 8))
    _close(out, {"video": got["video"][:, : VIDEO.tokens], "audio": got["audio"][:, : AUDIO.tokens]})


def test_masked_text_is_absent_text(model):
    batch = _batch()
    masked = batch.replace(text=batch.text.replace(mask=torch.zeros(B, TEXT, dtype=torch.bool)))
    _close(model(masked), model(batch.replace(text=None)))


def test_every_subset_of_modalities_runs(model):
    batch = _batch()
    face = clean_modality(torch.randn(B, 4, 8), torch.zeros(4, 3))
    voice = clean_modality(torch.randn(B, 3, 6), torch.zeros(3, 3))
    full = batch.replace(reference_video=face, reference_audio=voice)
    assert set(model(full)) == {"video", "audio"}
    assert not torch.allclose(model(full)["video"], model(batch)["video"])
    for name in ("video", "audio"):
        assert set(model(batch.replace(**{name: None}))) == {"video", "audio"} - {name}
        gone = getattr(batch, name)
        gone = gone.replace(mask=torch.zeros_like(gone.mask))
        other = {"video": "audio", "audio": "video"}[name]
        got, want = model(batch.replace(**{name: gone})), model(batch.replace(**{name: None}))
        torch.testing.assert_close(got[other], want[other], rtol=1e-4, atol=1e-5)
        assert bool((got[name] == 0).all())


def test_a_reference_is_told_from_the_film(model):
    """The same tokens as reference or as clean film give different answers: the kind embedding is read."""
    batch = _batch().replace(audio=None)
    clean = batch.video.replace(noise_level=torch.zeros(B, VIDEO.tokens))
    a = model(batch.replace(reference_video=clean))["video"]
    with torch.no_grad():
        kinds = model.kind.reference_video.clone()
        model.kind.reference_video.copy_(model.kind.video)
        b = model(batch.replace(reference_video=clean))["video"]
        model.kind.reference_video.copy_(kinds)
    assert not torch.allclose(a, b)


def test_runs_are_the_longest_that_hold_one_level():
    frame = torch.tensor([[0.0, 0.5, 0.5], [0.1, 0.2, 0.3]]).repeat_interleave(
        4, dim=1
    )  # 3 frames of 4 tokens
    assert torch.equal(level_runs(frame), frame[:, ::4])
    assert level_runs(torch.full((2, 12), 0.3)).shape == (2, 1)
    assert level_runs(torch.rand(2, 12)).shape == (2, 12)
    assert level_runs(torch.rand(2, 1)).shape == (2, 1)


@pytest.mark.parametrize("levels", ["clip", "frame", "token", "two_levels"])
def test_levels_by_run_equal_levels_by_token(model, levels, monkeypatch):
    """All ways to lay modulation out give the same values and gradients as every token looking up its own."""
    g = torch.Generator().manual_seed(6)
    runs = {"clip": 1, "frame": 3, "token": 12, "two_levels": 12}[levels]
    level = torch.rand(B, runs, generator=g)
    if levels == "two_levels":  # an in-painted region: few levels in no order
        level = (level > 0.5).float() * 0.7
    batch = _batch()
    batch = batch.replace(video=batch.video.replace(noise_level=level.repeat_interleave(12 // runs, dim=1)))

    def outputs_and_gradients():
        model.zero_grad()
        out = model(batch)
        sum(v.square().mean() for v in out.values()).backward()
        return out, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    out, grads = outputs_and_gradients()
    monkeypatch.setattr("sora2.model.packing.level_runs", lambda level: level)  # every token its own run
    monkeypatch.setattr("sora2.model.packing.lay_out_by_run", lambda *_: False)
    general, general_grads = outputs_and_gradients()
    _close(out, general)
    _close(grads, general_grads)


def test_a_token_is_told_its_own_level(model):
    """Equal latents at equal places and different levels give different velocities."""
    batch = _batch()
    level = torch.full((B, VIDEO.tokens), 0.7)
    level[:, :4] = 0.0  # the first frame is clean
    v = batch.video.replace(noise_level=level)
    out = model(batch.replace(video=v))["video"]
    flat = model(batch.replace(video=batch.video.replace(noise_level=torch.full_like(level, 0.7))))["video"]
    assert not torch.allclose(out[:, :4], flat[:, :4])


def test_block_causal_lets_no_future_into_the_past():
    attention = AttentionConfig(chunk_seconds=0.3, flat_tile=5)
    config = replace(TINY, attention=attention, depth=3)
    model = _awake(Transformer(config, torch.Generator().manual_seed(0)))
    batch = _batch()
    names = ("text", "video", "audio")
    latents = {n: getattr(batch, n).latent.clone().requires_grad_() for n in names}
    batch = batch.replace(**{n: getattr(batch, n).replace(latent=latents[n]) for n in names})
    out = model(batch)
    chunk = {n: (getattr(batch, n).positions[0, :, 0] / 0.3).floor() for n in ("video", "audio")}
    for name, when in chunk.items():
        for c in when.unique():
            loss = out[name][:, when == c].square().sum()
            grads = dict(
                zip(names, torch.autograd.grad(loss, list(latents.values()), retain_graph=True), strict=True)
            )
            assert bool(grads["text"].abs().sum() > 0)
            for other, other_when in chunk.items():
                reached = grads[other].abs().sum((0, 2)) > 0
                assert torch.equal(reached, other_when <= c), (name, int(c), other)


@pytest.mark.parametrize("switch", [{"shared_ffn": True}, {"shared_modulation": True}])
def test_ablations_run_with_fewer_parameters(switch):
    small = _awake(Transformer(replace(TINY, **switch)))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in Transformer(TINY).parameters())
    assert all(bool(v.isfinite().all()) for v in small(_batch()).values())


def test_meta_construction_then_initialisation_equals_direct_construction():
    direct = build(TINY, generator=torch.Generator().manual_seed(3))
    meta = build(TINY, device="meta")
    assert all(p.is_meta for p in meta.parameters()) and not list(meta.buffers())
    placed = initialize(meta.to_empty(device="cpu"), torch.Generator().manual_seed(3))
    for (name, a), (_, b) in zip(direct.named_parameters(), placed.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_initialisation_leaves_no_value_unset():
    model = Transformer(TINY)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float("nan"))
    assert all(bool(p.isfinite().all()) for p in initialize(model).parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, r"heads=3 does not divide model.width=32; use one of \[1, 2, 4\]"),
        ({"heads": 8}, "at least 8"),
        ({"depth": 0}, "model.depth=0"),
        ({"rope_time": [2.0, 1.0]}, "rising"),
        ({"level_features": 15}, "even"),
        ({"text_ffn_ratio": 0.0}, "text_ffn_ratio"),
    ],
)
def test_impossible_configurations_say_why(change, message):
    with pytest.raises(ModelError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_seconds": 0.0}, "chunk_seconds=0.0 must be positive"),
        ({"layers": ()}, "at least one rule"),
        ({"tile": (0, 4, 4)}, "tile"),
        ({"backend": "magic"}, "use one of auto, reference, tiled"),
    ],
)
def test_impossible_attention_says_why(change, message):
    with pytest.raises(ModelError, match=message):
        AttentionConfig(**change)


def test_configuration_survives_plain_values():
    config = replace(TINY, attention=AttentionConfig(0.5, (Rule((3, 1, 1), 0.5), Rule())))
    assert from_mapping(TransformerConfig, to_mapping(config)) == config
    with pytest.raises(ConfigError, match="'hieght'"):
        from_mapping(TransformerConfig, {"hieght": 3})


def test_configurations_of_before_are_read():
    old = {
        "width": 32,
        "heads": 2,
        "pattern": "block_causal",
        "chunk_seconds": 0.3,
        "attention_backend": "sdpa",
    }
    assert from_mapping(TransformerConfig, upgrade(old)).attention == AttentionConfig(
        0.3, dense_backend="sdpa"
    )
    full = from_mapping(TransformerConfig, upgrade({**old, "pattern": "full", "attention_backend": "auto"}))
    assert full.attention == AttentionConfig()
    assert upgrade(to_mapping(full)) == to_mapping(full)


def _with_rules(*rules, **attention):
    attention = AttentionConfig(layers=rules, tile=(1, 1, 2), flat_tile=4, **attention)
    return _awake(Transformer(replace(TINY, attention=attention), torch.Generator().manual_seed(0)))


def test_tile_order_is_not_seen_from_outside(model):
    """A window as wide as the clip is dense attention: same values and gradients, whatever the order inside."""
    level = torch.rand(B, VIDEO.tokens, generator=torch.Generator().manual_seed(7))
    batch = _batch().replace(video_shape=VIDEO)
    batch = batch.replace(video=batch.video.replace(noise_level=level))
    wide = _with_rules(Rule((99, 99, 99)))
    results = []
    for network in (model, wide):
        network.zero_grad()
        out = network(batch)
        sum(v.square().sum() for v in out.values()).backward()
        results.append((out, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}))
    _close(results[0][0], results[1][0])
    _close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


def test_batches_of_one_shape_share_a_pattern_and_what_is_prepared_of_it():
    rule = Rule((3, 1, 1))
    config = _with_rules(rule).config
    whole = _batch().replace(video_shape=VIDEO)
    whole = whole.replace(**{n: clean_modality(m.latent, m.positions) for n, m in whole.modalities().items()})
    first, second = (pack(batch, config).patterns[rule] for batch in (whole, whole.replace(keys=())))
    assert first is second
    hidden = whole.video.mask.clone()
    hidden[0, -1] = False
    padded = pack(whole.replace(video=whole.video.replace(mask=hidden)), config).patterns[rule]
    assert padded is not first and padded.key_rank is not None
    assert pack(whole, config).patterns[rule] is first


def test_a_window_is_what_a_token_can_reach():
    """One layer, windows of one tile: the gradient of a video token reaches its tile, all text, near sound."""
    attention = AttentionConfig(layers=(Rule((1, 1, 1), 0.08),), tile=(1, 1, 2), flat_tile=4)
    network = _awake(
        Transformer(replace(TINY, attention=attention, depth=1), torch.Generator().manual_seed(0))
    )
    batch = _batch().replace(video_shape=VIDEO)
    latents = {n: getattr(batch, n).latent.clone().requires_grad_() for n in ("text", "video", "audio")}
    batch = batch.replace(**{n: getattr(batch, n).replace(latent=x) for n, x in latents.items()})
    loss = network(batch)["video"][:, 6].square().sum()  # frame 1, second row, first column, 0.375 s
    reached = {
        n: (g.abs().sum((0, 2)) > 0).nonzero()[:, 0].tolist()
        for n, g in zip(latents, torch.autograd.grad(loss, list(latents.values())), strict=True)
    }
    # sound in tiles of four tokens: centres of the second lie at 0.18 .. 0.30 s, of the third at 0.34 .. 0.46 s
    assert reached == {"text": list(range(TEXT)), "video": [6, 7], "audio": list(range(4, 12))}


def test_layers_follow_their_rules_in_turn():
    network = _with_rules(Rule((1, 1, 1)), Rule())
    assert [b.attention.rule for b in network.blocks] == [Rule((1, 1, 1)), Rule()]


def test_a_window_without_a_grid_is_refused():
    with pytest.raises(PatternError, match="video_shape"):
        _with_rules(Rule((1, 1, 1)))(_batch())


def test_a_skipped_layer_is_a_layer_that_is_not_there(model):
    batch, lesser = _batch(), deepcopy(model)
    del lesser.blocks[1]
    whole, skipped, without = model(batch), model(batch, skip=(1,)), lesser(batch)
    for n in whole:
        assert torch.equal(skipped[n], without[n]) and not torch.allclose(skipped[n], whole[n], atol=1e-3)
    with pytest.raises(ModelError, match=r"layers \[1, 2\] cannot be skipped: this model has 0 to 1"):
        model(batch, skip=(1, 2))


def test_a_compiled_block_is_one_graph_with_the_same_values():
    model = _awake(Transformer(TINY, torch.Generator().manual_seed(0)))
    batch = _batch()
    out = model(batch)
    for block in model.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    compiled = model(batch)
    _close(out, compiled)
    compiled["video"].sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_foreign_latents_are_named(model):
    batch = _batch()
    wide = batch.audio.replace(latent=torch.randn(B, AUDIO.tokens, 7))
    with pytest.raises(ModelError, match=r"batch.audio.latent is \(2, 16, 7\); expected \(2, N, 6\)"):
        model(batch.replace(audio=wide))


def test_timed_text_is_laid_along_the_sound_and_begins_as_nothing(model):
    """By the definition: of every moment around a sound token, the text weighted by its nearness to it."""
    config = replace(TINY, timed_text=3)
    told = Transformer(config, torch.Generator().manual_seed(0))
    fresh = {n: p for n, p in told.state_dict().items() if n.startswith("timed_text.")}
    told.load_state_dict(model.state_dict() | fresh)
    batch = _batch()
    places = torch.zeros(B, TEXT, 3)
    places[0, 1:, 0] = torch.tensor([0.11, 0.3, 0.35, 0.52])
    places[1, 2, 0] = 0.2
    mask = torch.ones(B, TEXT, dtype=torch.bool)
    mask[0, 4] = False
    timed = batch.replace(text=batch.text.replace(positions=places, mask=mask))
    _close(told(timed), model(timed), rtol=0, atol=0)

    layer = awake(told.timed_text, torch.Generator().manual_seed(1))
    sound = batch.audio.positions
    given = layer(timed.text, sound)  # (B, Na, D)
    expected = torch.zeros_like(given)
    parts = layer.out.weight.unflatten(1, (3, -1))  # (D, 3, RANK)
    for b, t, token in [(0, 0.11, 1), (0, 0.3, 2), (0, 0.35, 3), (1, 0.2, 2)]:
        text = layer.into.weight @ timed.text.latent[b, token]
        for i in range(AUDIO.tokens):
            for m, shift in enumerate((-SPACING, 0.0, SPACING)):
                gap = (float(sound[b, i, 0]) + shift - t) / SPREAD
                expected[b, i] += math.exp(-gap * gap / 2) * (parts[:, m] @ text)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)
    assert bool((layer(batch.text, sound) == 0).all())  # text without times

    _awake(told)
    out = told(timed)
    moved = places.clone()
    moved[1, 2, 0] = 0.4
    _close(told(timed.replace(text=timed.text.replace(latent=timed.text.latent.roll(1, 1), positions=places.roll(1, 1),
        mask=mask.roll(1, 1)))), out)  # fmt: skip
    other = told(timed.replace(text=timed.text.replace(positions=moved)))
    assert torch.equal(other["audio"][0], out["audio"][0]) and not torch.allclose(
        other["audio"][1], out["audio"][1]
    )
    assert {n for n in told.idle_parameters({"video", "audio"}) if n.startswith("timed_text")} == set(fresh)
    assert not {n for n in told.idle_parameters({"text", "audio"}) if n.startswith("timed_text")}
    with pytest.raises(ModelError, match="timed_text=2 must be odd"):
        replace(TINY, timed_text=2)


def test_places_by_index_are_places_in_seconds_at_the_rate_they_stand_for(model):
    """The ablation `rope_fps`: the same at that rate; elsewhere the pictures of a clip lie as if they had it."""
    by_index = Transformer(replace(TINY, rope_fps=VIDEO.fps))
    by_index.load_state_dict(model.state_dict())
    batch = _batch().replace(video_shape=VIDEO, audio_shape=AUDIO)
    _close(by_index(batch), model(batch), rtol=0, atol=0)
    fast = replace(VIDEO, fps=2 * VIDEO.fps)
    sped = batch.replace(
        video=batch.video.replace(positions=fast.positions().expand(B, -1, 3)), video_shape=fast
    )
    _close(by_index(sped), model(batch))
    assert not torch.allclose(model(sped)["video"], model(batch)["video"], atol=1e-3)
    with pytest.raises(ModelError, match=r"rope_fps=8.0 needs batch\.video_shape"):
        by_index(_batch())
    with pytest.raises(ModelError, match="rope_fps=0"):
        replace(TINY, rope_fps=0.0)
