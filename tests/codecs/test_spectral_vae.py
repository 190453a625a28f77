from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sora2.codecs import CodecError, SpectralVAE, SpectralVAEConfig, load_codec
from sora2.codecs.spectral_vae import _OverlapAdd
from sora2.config import ConfigError
from sora2.train.codec_problem import codec_config, loader_config
from sora2.train.codec_recipes import AudioCodecRecipe, AudioLossConfig
from sora2.train.compose import compose_config
from sora2.train.recipe import Progress
from tests.codecs.conftest import SMALL_AUDIO, shake


def test_a_spectrum_gives_its_samples_back(audio_vae):
    """Without the bin at half the sample rate, which no frame carries."""
    audio = torch.randn(2, 2, 16000, dtype=torch.float64).cumsum(-1) / 100  # little at the top
    audio -= audio.mean(-1, keepdim=True)
    codec = audio_vae.double()
    samples = codec._hops(audio)
    spectrum = codec._spectrum(samples)
    back = codec._samples(spectrum.real, spectrum.imag, codec.window)
    assert (back - samples).norm() < 2e-3 * samples.norm()


def test_the_gradient_of_overlapping_frames():
    window = torch.hann_window(16, dtype=torch.float64).sqrt()
    frames = torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _OverlapAdd.apply(x, window, 4), frames)


def test_a_longer_sound_has_the_noise_of_a_shorter_one(audio_vae):
    """The noise belongs to the moment: latents out of the decoder's reach of the end are heard the same."""
    latent = torch.randn(1, 12, 14)
    short, long = audio_vae.decode_parts(latent[..., :12])[1], audio_vae.decode_parts(latent)[1]
    same = 6 * 640
    assert torch.allclose(short[..., :same], long[..., :same], atol=1e-6)
    assert not torch.allclose(short[..., -640:], long[..., 11 * 640 : 12 * 640], atol=1e-6)


def test_noise_in_shorter_frames_begins_later_and_is_as_loud(audio_vae):
    """Another decoder of the same latents: its noise can begin within 8 ms where that of whole frames takes 32."""
    with torch.no_grad():
        audio_vae.noise_gain.weight.zero_()
        audio_vae.noise_gain.bias.fill_(-3.0)
    short = SpectralVAE(replace(SMALL_AUDIO, noise_parts=4))
    short.load_state_dict(audio_vae.state_dict())
    assert short.fingerprint() == audio_vae.fingerprint()
    (expected, whole), (same, parts) = (
        c.decode_parts(torch.randn(1, 12, 25) * 0) for c in (audio_vae, short)
    )
    assert torch.equal(expected, same) and whole.shape == parts.shape
    assert parts.std().item() == pytest.approx(whole.std().item(), rel=0.05)
    level = torch.zeros(1, 2, 20, 64)  # frames of 128 samples, 32 apart
    level[:, :, 9] = 1
    heard = short._samples(level, level, short.noise_window)[0].abs().amax(0).nonzero()
    assert heard.min() >= 9 * 32 - 48 and heard.max() < 9 * 32 + 80
    with pytest.raises(CodecError, match="noise_parts=3 must divide"):
        SpectralVAEConfig(noise_parts=3)


def test_it_learns_as_a_recipe_and_comes_back_from_disk(tmp_path):
    torch.manual_seed(0)
    recipe = AudioCodecRecipe(SMALL_AUDIO, AudioLossConfig())
    batch = {"audio": torch.randn(2, 2, 6400) * 0.05}
    optimizer = torch.optim.AdamW(recipe.model.parameters(), lr=3e-3)
    totals = []
    for step in range(25):
        output = recipe.losses(batch, torch.Generator().manual_seed(step), Progress(50, 100))["main"]
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        totals.append(float(output.total.detach()))
    assert totals[-1] < totals[0] - 0.5
    recipe.export(tmp_path, {f"model.{n}": p.detach() for n, p in recipe.model.named_parameters()}, {})
    codec = load_codec(tmp_path)
    assert isinstance(codec, SpectralVAE) and codec.config == SMALL_AUDIO
    back = codec.decode(codec.encode(batch["audio"]), 6400)
    assert back.shape == batch["audio"].shape and torch.isfinite(back).all()


def test_the_shipped_experiment_trains_this_codec():
    config = codec_config(compose_config(["experiment=codec_audio"]))
    assert config.model == replace(SpectralVAEConfig(), noise_parts=4)


def test_a_loss_of_foregrounds_needs_them():
    config = compose_config(["experiment=codec_audio", "data.streams=[audio]"])
    with pytest.raises(ConfigError, match=r"data\.streams=\[audio,foreground\]"):
        loader_config(config)


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 3300])
def test_odd_lengths_are_padded_and_cut(audio_vae, samples):
    codec = audio_vae
    audio = torch.randn(2, 2, samples) * 0.1
    latent = codec.encode(audio)
    assert latent.shape == (2, 12, -(-samples // 640))
    assert codec.decode(latent, samples).shape == audio.shape
    assert codec.decode(latent).shape[2] == latent.shape[2] * 640


def test_mono():
    codec = shake(SpectralVAE(replace(SMALL_AUDIO, channels=1)))
    audio = torch.randn(1, 1, 1280) * 0.1
    assert codec.decode(codec.encode(audio), 1280).shape == audio.shape
    with pytest.raises(CodecError, match="1, samples"):
        codec.encode(torch.randn(1, 2, 1280))


def test_decoding_is_deterministic_though_it_shapes_noise(audio_vae):
    codec = audio_vae
    latent = torch.randn(1, 12, 4)
    first = codec.decode(latent)
    torch.manual_seed(99)
    assert torch.equal(first, codec.decode(latent))


def test_stereo_image_is_symmetric_in_the_linear_path():
    """Equal channels have no side signal: the linear path keeps a centred sound centred."""
    torch.manual_seed(0)
    codec = SpectralVAE(replace(SMALL_AUDIO, noise=False))
    mono = torch.randn(1, 1, 640 * 40).cumsum(-1) / 100
    centred = mono.expand(1, 2, -1)
    codec.initialize_linear(centred)
    decoded = codec.decode_raw(codec.posterior(centred)[0])
    assert (decoded[:, 0] - decoded[:, 1]).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"channels": 6}, "channels=6"),
        ({"fft": 500}, "fft=500"),
        ({"fft": 128}, "frame_hop=128, at least twice"),
    ],
)
def test_impossible_configs_are_named(changes, word):
    with pytest.raises(CodecError, match=word):
        SpectralVAEConfig(**changes)


def test_samples_beyond_the_latent_are_an_error(audio_vae):
    codec = audio_vae
    with pytest.raises(CodecError, match="samples=700"):
        codec.decode(torch.zeros(1, 12, 1), 700)
