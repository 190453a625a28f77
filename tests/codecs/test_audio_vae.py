from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sora2.codecs import AudioVAE, AudioVAEConfig, CodecError
from tests.codecs.conftest import SMALL_AUDIO, shake


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 3300])
def test_odd_lengths_are_padded_and_cut(audio_vae, samples):
    audio = torch.randn(2, 2, samples) * 0.1
    latent = audio_vae.encode(audio)
    assert latent.shape == (2, 12, -(-samples // 640))
    assert audio_vae.decode(latent, samples).shape == audio.shape
    assert audio_vae.decode(latent).shape[2] == latent.shape[2] * 640


def test_mono():
    codec = shake(AudioVAE(replace(SMALL_AUDIO, channels=1)))
    audio = torch.randn(1, 1, 1280) * 0.1
    assert codec.decode(codec.encode(audio), 1280).shape == audio.shape
    with pytest.raises(CodecError, match="1, samples"):
        codec.encode(torch.randn(1, 2, 1280))


def test_decoding_is_deterministic_though_it_shapes_noise(audio_vae):
    latent = torch.randn(1, 12, 4)
    first = audio_vae.decode(latent)
    torch.manual_seed(99)
    assert torch.equal(first, audio_vae.decode(latent))


def test_stereo_image_is_symmetric_in_the_linear_path():
    """Equal channels have no side signal: the linear path keeps a centred sound centred."""
    torch.manual_seed(0)
    codec = AudioVAE(replace(SMALL_AUDIO, noise=False))
    mono = torch.randn(1, 1, 640 * 40).cumsum(-1) / 100
    centred = mono.expand(1, 2, -1)
    codec.initialize_linear(centred)
    decoded = codec.decode_raw(codec.posterior(centred)[0])
    assert (decoded[:, 0] - decoded[:, 1]).abs().max() < 1e-3


@pytest.mark.parametrize(
    "changes, word",
    [({"channels": 6}, "channels=6"), ({"strides": (5,)}, "encoder_widths needs 2")],
)
def test_impossible_configs_are_named(changes, word):
    with pytest.raises(CodecError, match=word):
        AudioVAEConfig(**changes)


def test_samples_beyond_the_latent_are_an_error(audio_vae):
    with pytest.raises(CodecError, match="samples=700"):
        audio_vae.decode(torch.zeros(1, 12, 1), 700)
