"""What both codecs of sound promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sora2.codecs import CodecError
from sora2.codecs.base import build_codec
from tests.codecs.conftest import SMALL_AUDIO, SMALL_SPECTRAL, shake

CONFIGS = {"audio_vae": SMALL_AUDIO, "spectral_vae": SMALL_SPECTRAL}


@pytest.fixture(params=list(CONFIGS))
def config(request):
    return CONFIGS[request.param]


@pytest.fixture
def codec(config):
    return shake(build_codec(config))


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 3300])
def test_odd_lengths_are_padded_and_cut(codec, samples):
    audio = torch.randn(2, 2, samples) * 0.1
    latent = codec.encode(audio)
    assert latent.shape == (2, 12, -(-samples // 640))
    assert codec.decode(latent, samples).shape == audio.shape
    assert codec.decode(latent).shape[2] == latent.shape[2] * 640


def test_mono(config):
    codec = shake(build_codec(replace(config, channels=1)))
    audio = torch.randn(1, 1, 1280) * 0.1
    assert codec.decode(codec.encode(audio), 1280).shape == audio.shape
    with pytest.raises(CodecError, match="1, samples"):
        codec.encode(torch.randn(1, 2, 1280))


def test_decoding_is_deterministic_though_it_shapes_noise(codec):
    latent = torch.randn(1, 12, 4)
    first = codec.decode(latent)
    torch.manual_seed(99)
    assert torch.equal(first, codec.decode(latent))


def test_stereo_image_is_symmetric_in_the_linear_path(config):
    """Equal channels have no side signal: the linear path keeps a centred sound centred."""
    torch.manual_seed(0)
    codec = build_codec(replace(config, noise=False))
    mono = torch.randn(1, 1, 640 * 40).cumsum(-1) / 100
    centred = mono.expand(1, 2, -1)
    codec.initialize_linear(centred)
    decoded = codec.decode_raw(codec.posterior(centred)[0])
    assert (decoded[:, 0] - decoded[:, 1]).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("config", "changes", "word"),
    [
        (SMALL_AUDIO, {"channels": 6}, "channels=6"),
        (SMALL_AUDIO, {"strides": (5,)}, "encoder_widths needs 2"),
        (SMALL_SPECTRAL, {"channels": 6}, "channels=6"),
        (SMALL_SPECTRAL, {"fft": 500}, "fft=500"),
        (SMALL_SPECTRAL, {"fft": 128}, "frame_hop=128, at least twice"),
    ],
)
def test_impossible_configs_are_named(config, changes, word):
    with pytest.raises(CodecError, match=word):
        type(config)(**changes)


def test_samples_beyond_the_latent_are_an_error(codec):
    with pytest.raises(CodecError, match="samples=700"):
        codec.decode(torch.zeros(1, 12, 1), 700)
