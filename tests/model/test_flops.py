"""Counts that are reported to people equal what the real module has and does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from sora2.config import from_mapping
from sora2.kernels import Rule
from sora2.model import PRESETS, ModelError, Transformer, TransformerConfig, build
from sora2.model.config import AttentionConfig
from sora2.model.flops import attention_pairs, batch_forward_flops, count_parameters, forward_flops, memory
from sora2.types import AudioShape, Batch, Modality, VideoShape, clean_modality

TINY = TransformerConfig(width=32, depth=2, heads=2, video_width=8, audio_width=6, text_width=10)
SHARED = replace(TINY, shared_ffn=True, shared_modulation=True)
TIMED = replace(TINY, timed_text=3)
VIDEO, AUDIO = VideoShape(9, 32, 32, 8.0, channels=2), AudioShape(samples=16 * 640, sample_rate=16000)


def _batch(size=3):
    def noisy(n, width, positions):
        level = torch.rand(size, 1).expand(size, n)
        return Modality(
            torch.randn(size, n, width), positions.expand(size, n, 3), level, torch.ones(size, n).bool()
        )

    return Batch(
        text=clean_modality(torch.randn(size, 5, 10), torch.zeros(5, 3)),
        reference_audio=clean_modality(torch.randn(size, 2, 6), torch.zeros(2, 3)),
        video=noisy(12, 8, VIDEO.positions()),
        audio=noisy(16, 6, AUDIO.positions()),
    )


@pytest.mark.parametrize("config", [TINY, SHARED, TIMED])
def test_forward_flops_equal_the_counter(config):
    batch = _batch()
    # PyTorch's counter knows matrix products, and not the flash kernel of the CPU.
    model = Transformer(replace(config, attention=AttentionConfig(dense_backend="matmul")))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    assert batch_forward_flops(config, batch) == counter.get_total_flops()


def test_attention_is_counted_by_the_tiles_of_each_layer():
    batch = _batch()
    tokens, window = 35, Rule((1, 1, 1))
    attention = AttentionConfig(layers=(window, Rule()), tile=(1, 2, 2), flat_tile=8)
    config = replace(TINY, attention=attention)
    batch = batch.replace(video_shape=VIDEO)
    pairs = attention_pairs(config, batch)
    seen_by_video = tokens - VIDEO.tokens + 4  # everything else, and its own frame
    assert pairs == [12 * seen_by_video + (tokens - 12) * tokens, tokens**2]
    dense = batch_forward_flops(TINY, batch)
    saved = 3 * 4 * TINY.width * (tokens**2 - pairs[0])
    assert batch_forward_flops(config, batch) == dense - saved
    one = replace(TINY, attention=replace(attention, layers=(Rule(top_k=1),)))
    assert attention_pairs(one, batch)[0] == tokens * (tokens - 12 + 4)


def test_flops_from_token_counts_alone():
    tokens = {"text": 5, "reference_audio": 2, "video": 12, "audio": 16}
    levels = {"text": 1, "reference_audio": 1, "video": 3, "audio": 3}
    assert forward_flops(TINY, tokens, 3, levels=levels) == batch_forward_flops(TINY, _batch())


@pytest.mark.parametrize("config", [TINY, SHARED, TIMED, *PRESETS.values()])
def test_parameter_count_is_that_of_the_module(config):
    assert count_parameters(config) == sum(p.numel() for p in build(config, device="meta").parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("xs", 3),
        ("s", 10.5),
        ("m", 33),
        ("b", 133),
        ("l", 461),
        ("xl", 1290),
        ("2b", 2140),
        ("5b", 5140),
        ("14b", 14230),
    ],
)
def test_presets_have_the_stated_sizes(name, millions):
    assert count_parameters(PRESETS[name]) == pytest.approx(millions * 1e6, rel=0.05)


def test_unknown_preset_is_named():
    with pytest.raises(ModelError, match="'huge' is unknown; use one of xs, s, m"):
        build("huge")


def test_activation_estimate_is_close_to_what_the_forward_keeps():
    batch = _batch()
    config = replace(TINY, width=64, depth=4)
    model, kept = Transformer(config), {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model(batch)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    measured = sum(size for pointer, size in kept.items() if pointer not in weights)
    tokens = {"text": 5, "reference_audio": 2, "video": 12, "audio": 16}
    estimate = memory(config, tokens, 3, activation_bytes=4).activations
    assert estimate == pytest.approx(measured, rel=0.25)
    assert out


def test_memory_adds_up():
    m = memory(PRESETS["14b"], {"video": 30000}, 1)
    assert m.weights == 6 * count_parameters(PRESETS["14b"])  # float32 and the bf16 copy
    assert m.total == m.weights + m.gradients + m.optimizer + m.activations


def test_what_is_spread_takes_its_share_of_each_device():
    tokens, config = {"video": 30000}, PRESETS["14b"]
    alone, spread = memory(config, tokens), memory(config, tokens, shards=32, checkpointing=True)
    assert spread.optimizer == pytest.approx(alone.optimizer / 32)
    assert spread.gradients == pytest.approx(alone.gradients / 32)
    blocks_here = 2 * 4 + 2  # float32 of the one that runs and of the next, and its bf16 copy
    part = alone.gradients / 32
    assert spread.weights == pytest.approx(part + blocks_here * count_parameters(config) / config.depth)
    inputs = 2 * config.depth * config.width * 30000
    assert spread.activations == pytest.approx(alone.activations / config.depth + inputs)


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_configuration_group_holds_the_presets(name):
    values = yaml.safe_load((Path(__file__).parents[2] / "configs" / "model" / f"{name}.yaml").read_text())
    widths = {f"{group}_width": PRESETS[name].token_width(group) for group in ("video", "audio", "text")}
    spreads = {f"{group}_spread": () for group in ("video", "audio")}
    own = widths | spreads
    assert {key: values[key] for key in own} == dict.fromkeys(own)  # the codecs' own
    assert from_mapping(TransformerConfig, values | own) == PRESETS[name]
