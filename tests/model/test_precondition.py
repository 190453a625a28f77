"""The linear guess that the network completes: best for Gaussian data, exact at both ends, in every layout."""

from dataclasses import replace

import pytest
import torch

from sora2.kernels import Rule
from sora2.model import ModelError, Transformer, TransformerConfig
from sora2.model.config import AttentionConfig
from sora2.model.precondition import Precondition
from sora2.types import Batch, Modality, VideoShape
from tests.model.tiny import awake

SPREAD = (4.0, 1.0, 0.25, 0.05)


@pytest.mark.parametrize("t", [0.02, 0.3, 0.7, 1.0])
def test_factors_are_those_of_the_best_linear_guess(t):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(200_000, 4, generator=generator) * torch.tensor(SPREAD)
    noise = torch.randn(200_000, 4, generator=generator)
    x, v = (1 - t) * clean + t * noise, noise - clean
    f = Precondition.of(torch.full((1, 1), t), SPREAD, 4)
    skip = (x * v).mean(0) / x.square().mean(0)
    left = v - f.skip[0, 0] * x
    assert torch.allclose(f.skip[0, 0], skip, rtol=0.02, atol=0.02)
    assert torch.allclose(f.out[0, 0], left.std(0), rtol=0.02, atol=0.01)
    assert torch.allclose((x * f.into[0, 0]).std(0), torch.ones(4), atol=0.01)


def test_tokens_have_the_numbers_of_a_channel_together():
    """As `VideoShape.tokenize` lays them out."""
    shape = VideoShape(5, 32, 32, 8.0, channels=4)
    latent = torch.tensor(SPREAD).view(4, 1, 1, 1).expand(shape.latent_shape)
    f = Precondition.of(torch.ones(1, 1), SPREAD, shape.token_width)
    assert torch.allclose(f.out[0, 0], shape.tokenize(latent)[0])  # at level 1 the factor is the spread


CONFIG = TransformerConfig(
    width=32, depth=2, heads=2, video_width=16, audio_width=4, text_width=10, level_features=16, level_width=16,
    video_spread=SPREAD,
)  # fmt: skip
VIDEO = VideoShape(9, 64, 64, 8.0, channels=4)  # 3 x 4 x 4 tokens


def batch():
    g = torch.Generator().manual_seed(1)
    n = VIDEO.tokens
    level = torch.rand(2, 1, generator=g).expand(2, n).clone()
    level[:, :4] = 0.0
    mask = torch.ones(2, n, dtype=torch.bool)
    mask[1, -3:] = False
    latent = torch.randn(2, n, 16, generator=g)
    return Batch(video=Modality(latent, VIDEO.positions().expand(2, n, 3), level, mask), video_shape=VIDEO)


def _awake(config):
    return awake(Transformer(config, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(2))


def test_an_untrained_network_makes_the_linear_guess_and_padding_nothing():
    b = batch()
    v = Transformer(CONFIG, torch.Generator().manual_seed(0))(b)["video"]
    f = Precondition.of(b.video.noise_level, SPREAD, 16)
    assert torch.allclose(v[b.video.mask], (f.skip * b.video.latent)[b.video.mask])
    assert bool((v[1, -3:] == 0).all()) and bool(torch.isfinite(v).all())
    assert torch.allclose(v[0, 0], -b.video.latent[0, 0])  # a clean token: nothing is known of its noise


def test_an_attention_pattern_that_hides_nothing_changes_nothing():
    """Its video tokens lie in tile order: factors and latents must go along."""
    wide = AttentionConfig(layers=(Rule(window=(99, 99, 99)),), tile=(2, 2, 2))
    plain, tiled = _awake(CONFIG), _awake(replace(CONFIG, attention=wide))
    torch.testing.assert_close(plain(batch())["video"], tiled(batch())["video"], rtol=1e-4, atol=1e-4)


def test_without_spreads_the_network_answers_with_the_velocity():
    plain = _awake(replace(CONFIG, video_spread=()))
    b = batch()
    louder = b.replace(video=b.video.replace(latent=b.video.latent * 3))
    assert not torch.allclose(plain(b)["video"], plain(louder)["video"])
    assert bool((Transformer(replace(CONFIG, video_spread=()))(b)["video"] == 0).all())


@pytest.mark.parametrize("spread", [(1.0, 1.0, 1.0), (1.0, 0.0)])
def test_a_spread_that_does_not_fit_is_named(spread):
    with pytest.raises(ModelError, match="video_spread"):
        replace(CONFIG, video_spread=spread)
