from __future__ import annotations

import torch

from sora2.codecs import AudioVAEConfig, SpectralVAE, SpectralVAEConfig, load_codec
from sora2.codecs.spectral_vae import _OverlapAdd
from sora2.commands.train import compose_config
from sora2.train.codec_problem import codec_config
from sora2.train.codec_recipes import AudioCodecRecipe, AudioLossConfig
from sora2.train.recipe import Progress
from tests.codecs.conftest import SMALL_SPECTRAL


def test_a_spectrum_gives_its_samples_back(spectral_vae):
    """Without the bin at half the sample rate, which no frame carries."""
    audio = torch.randn(2, 2, 16000, dtype=torch.float64).cumsum(-1) / 100  # little at the top
    audio -= audio.mean(-1, keepdim=True)
    codec = spectral_vae.double()
    samples = codec._hops(audio)
    spectrum = codec._spectrum(samples)
    back = codec._samples(spectrum.real, spectrum.imag)
    assert (back - samples).norm() < 2e-3 * samples.norm()


def test_the_gradient_of_overlapping_frames():
    window = torch.hann_window(16, dtype=torch.float64).sqrt()
    frames = torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _OverlapAdd.apply(x, window, 4), frames)


def test_a_longer_sound_has_the_noise_of_a_shorter_one(spectral_vae):
    """The noise belongs to the moment: latents out of the decoder's reach of the end are heard the same."""
    latent = torch.randn(1, 12, 14)
    short, long = spectral_vae.decode_parts(latent[..., :12])[1], spectral_vae.decode_parts(latent)[1]
    same = 6 * 640
    assert torch.allclose(short[..., :same], long[..., :same], atol=1e-6)
    assert not torch.allclose(short[..., -640:], long[..., 11 * 640 : 12 * 640], atol=1e-6)


def test_it_learns_as_a_recipe_and_comes_back_from_disk(tmp_path):
    torch.manual_seed(0)
    recipe = AudioCodecRecipe(SMALL_SPECTRAL, AudioLossConfig())
    batch = {"audio": torch.randn(2, 2, 6400) * 0.05}
    optimizer = torch.optim.AdamW(recipe.model.parameters(), lr=3e-3)
    totals = []
    for step in range(25):
        output = recipe.losses(batch, torch.Generator().manual_seed(step), Progress(50, 100))["main"]
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        totals.append(float(output.total))
    assert totals[-1] < totals[0] - 0.5
    recipe.export(tmp_path, {f"model.{n}": p.detach() for n, p in recipe.model.named_parameters()}, {})
    codec = load_codec(tmp_path)
    assert isinstance(codec, SpectralVAE) and codec.config == SMALL_SPECTRAL
    back = codec.decode(codec.encode(batch["audio"]), 6400)
    assert back.shape == batch["audio"].shape and torch.isfinite(back).all()


def test_the_shipped_experiment_trains_this_codec():
    config = codec_config(compose_config(["experiment=codec_audio"]))
    assert isinstance(config.model, SpectralVAEConfig)
    assert isinstance(
        codec_config(compose_config(["experiment=codec_audio", "codec=audio_vae"])).model, AudioVAEConfig
    )
