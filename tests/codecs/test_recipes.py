from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from sora2.codecs import CodecError, load_codec
from sora2.codecs.discriminators import AudioDiscriminator
from sora2.config import ConfigError
from sora2.errors import UserError
from sora2.toybox import Toybox, ToyboxConfig
from sora2.train.codec_recipes import (
    AudioCodecRecipe,
    AudioLossConfig,
    VideoCodecRecipe,
    VideoLossConfig,
)
from sora2.train.compose import compose_config
from sora2.train.recipe import Progress
from tests.codecs.conftest import SMALL_AUDIO, SMALL_VIDEO

HALFWAY = Progress(50, 100)


@pytest.fixture(scope="module")
def batch():
    clips = Toybox(ToyboxConfig(frames=9, height=32, width=32)).clips(range(2))
    return {
        "video": torch.stack([c.pixels() for c in clips]),
        "audio": torch.stack([c.audio for c in clips]),
        "keys": [c.key for c in clips],
    }


def build(modality, **weights):
    torch.manual_seed(0)
    if modality == "video":
        return VideoCodecRecipe(SMALL_VIDEO, VideoLossConfig(**weights))
    return AudioCodecRecipe(SMALL_AUDIO, AudioLossConfig(**weights))


def train(recipe, batch, steps, lr=3e-3):
    """Steps of Adam per optimizer group; the first and last total of "main"."""
    generator = torch.Generator().manual_seed(0)
    optimizers = {name: torch.optim.Adam(params, lr=lr) for name, params in recipe.optimizer_groups().items()}
    totals = []
    for _ in range(steps):
        outputs = recipe.losses(batch, generator, HALFWAY)
        assert outputs.keys() == optimizers.keys()
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            outputs[name].total.backward()
            optimizer.step()
        totals.append(outputs["main"].total.item())
    return totals


@pytest.mark.parametrize("modality, key", [("video", "mse"), ("audio", "relative")])
def test_a_recipe_overfits_one_batch(modality, key, batch):
    recipe = build(modality)
    recipe.initialized.fill_(True)  # from random weights, without the linear start
    generator = torch.Generator().manual_seed(0)
    before = recipe.losses(batch, generator, HALFWAY)["main"].named[key]
    train(recipe, batch, 120, lr=1e-2 if modality == "video" else 3e-3)
    after = recipe.losses(batch, generator, HALFWAY)["main"].named[key]
    assert after < (0.5 * before if modality == "video" else before - 0.3)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_losses_are_a_function_of_the_generator(modality, batch):
    def total(seed):
        recipe = build(modality)
        return recipe.losses(batch, torch.Generator().manual_seed(seed), HALFWAY)["main"].total.item()

    assert total(1) == total(1)
    assert total(1) != total(2)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_the_total_is_the_weighted_sum_of_what_is_logged(modality, batch):
    recipe = build(modality, kl=0.5)
    output = recipe.losses(batch, torch.Generator().manual_seed(0), HALFWAY)["main"]
    expected = sum(getattr(recipe.loss, name) * value for name, value in output.named.items())
    assert output.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(not value.requires_grad for value in output.named.values())


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_adversary_begins_in_time_and_each_side_moves_only_its_own_weights(modality, batch):
    recipe = build(modality, adversarial=0.1, features=0.1, adversarial_start=0.5)
    generator = torch.Generator().manual_seed(0)
    early = recipe.losses(batch, generator, Progress(10, 100))
    assert "adversarial" not in early["main"].named
    assert early["discriminator"].total == 0
    late = recipe.losses(batch, generator, HALFWAY)
    assert {"adversarial", "features"} <= late["main"].named.keys()
    late["main"].total.backward()
    assert all(p.grad is None for p in recipe.discriminator.parameters())
    recipe.zero_grad()
    late["discriminator"].total.backward()
    assert all(p.grad is None for p in recipe.model.parameters())
    train(recipe, batch, 2)


def test_a_frozen_network_gives_the_perceptual_term(batch):
    torch.manual_seed(0)
    recipe = AudioCodecRecipe(
        SMALL_AUDIO, AudioLossConfig(features=1.0), perceptual=AudioDiscriminator(2, width=4)
    )
    output = recipe.losses(batch, torch.Generator().manual_seed(0), HALFWAY)["main"]
    assert output.named["features"] > 0
    assert recipe.optimizer_groups().keys() == {"main"}


def test_sound_is_asked_for_the_samples_of_its_foreground(batch):
    """And for the spectra of what the latent determines, of those clips whose foreground is clear."""
    recipe = build("audio", clear_mel=1.0, attack=1.0)
    quiet, noise = batch["audio"], 0.1 * torch.randn(batch["audio"].shape)
    metas = [{"truth": {}}, {"truth": {"rolls": [1]}}]
    loud = batch | {"audio": quiet + noise, "foreground": quiet, "metas": metas}
    exact = recipe.terms(quiet, noise, loud)
    assert exact["relative"] < -3 and exact["log_mel"] < 1e-3 and exact["clear_mel"] < 1e-6
    assert recipe.terms(quiet + noise, None, loud)["relative"] > exact["relative"] + 1
    first, second = (quiet + noise * torch.tensor(wrong)[:, None, None] for wrong in ([1.0, 0.0], [0.0, 1.0]))
    for name in ("clear_mel", "attack"):
        assert recipe.terms(first, None, loud)[name] > 0.01
        assert recipe.terms(second, None, loud)[name] < 1e-6  # that clip rolls
    unknown = loud | {"metas": [{}, {}]}
    assert not {"clear_mel", "attack"} & recipe.terms(quiet, noise, unknown).keys()
    without = recipe.terms(quiet, None, batch)
    assert without["relative"] < -3 and "clear_mel" not in without


def test_first_batch_sets_the_linear_path_once(batch):
    recipe = build("video")
    generator = torch.Generator().manual_seed(0)
    first = recipe.losses(batch, generator, HALFWAY)["main"].named["mse"]
    variance = batch["video"].var()
    assert first < 0.3 * variance, "the untrained codec should already be a good linear one"
    weights = recipe.model.linear_encoder.weight.clone()
    recipe.losses(batch, generator, HALFWAY)
    assert torch.equal(weights, recipe.model.linear_encoder.weight)
    assert bool(recipe.state_dict()["initialized"])


def test_export_holds_averaged_weights_and_measured_statistics(batch, tmp_path):
    recipe = build("audio")
    train(recipe, batch, 3)
    averaged = {f"model.{n}": torch.full_like(p, 0.125) for n, p in recipe.model.named_parameters()}
    kept = recipe.model.encoder_in.weight.clone()
    recipe.export(tmp_path / "codec", averaged, {"samples_seen": 6})
    assert torch.equal(kept, recipe.model.encoder_in.weight), "an export must not disturb training"
    codec = load_codec(tmp_path / "codec")
    assert torch.equal(codec.encoder_in.weight, torch.full_like(kept, 0.125))
    assert torch.allclose(codec.latent_std, recipe.model.latent_std)
    assert not torch.equal(codec.latent_std, torch.ones_like(codec.latent_std))


def test_a_batch_without_the_modality_is_an_error():
    with pytest.raises(CodecError, match="no 'audio'"):
        build("audio").losses({"video": torch.zeros(1, 3, 5, 16, 16)}, torch.Generator(), HALFWAY)


def test_flops_grow_with_the_clip():
    recipe = build("video")
    small, large = (recipe.forward_flops({"video": torch.zeros(1, 3, f, 16, 16)}) for f in (5, 9))
    assert math.isclose(large / small, 3 / 2, rel_tol=0.1)


@pytest.mark.parametrize("modality, key", [("video", "mse"), ("audio", "relative")])
def test_a_frozen_encoder_keeps_every_latent_while_the_decoder_learns(modality, key, batch, tmp_path):
    first = build(modality)
    train(first, batch, 3)
    averaged = {f"model.{name}": p.detach().clone() for name, p in first.model.named_parameters()}
    first.export(tmp_path / "first", averaged, {})
    again = type(first)(first.model.config, type(first.loss)(), freeze_encoder=True)
    with pytest.raises(CodecError, match="init_from"):
        again.losses(batch, torch.Generator().manual_seed(0), HALFWAY)
    again.load_weights(tmp_path / "first")
    before = load_codec(tmp_path / "first")
    terms = [again.losses(batch, torch.Generator().manual_seed(0), HALFWAY)["main"].named[key]]
    train(again, batch, 12)
    terms.append(again.losses(batch, torch.Generator().manual_seed(0), HALFWAY)["main"].named[key])
    assert terms[1] < terms[0]
    again.export(
        tmp_path / "again", {f"model.{n}": p.detach() for n, p in again.model.named_parameters()}, {}
    )
    after = load_codec(tmp_path / "again")
    assert after.fingerprint() == before.fingerprint()
    with torch.no_grad():
        latents = [codec.encode(batch[modality]) for codec in (before, after)]
        assert torch.equal(*latents)
        assert not torch.equal(before.decode(latents[0]), after.decode(latents[1]))


def test_storing_a_frozen_encoder_in_fewer_bits_is_refused_before_training(batch, tmp_path):
    """Its latents would change; once stored in 8 bits it stays what it is."""
    first = build("audio")
    train(first, batch, 2)
    first.model.save(tmp_path / "float")
    frozen = AudioCodecRecipe(SMALL_AUDIO, AudioLossConfig(), freeze_encoder=True, export_dtype=torch.int8)
    with pytest.raises(CodecError, match=r"export_dtype=int8 would round the frozen encoder of .*float16"):
        frozen.load_weights(tmp_path / "float")
    first.model.save(tmp_path / "int8", dtype=torch.int8)
    frozen.load_weights(tmp_path / "int8")
    train(frozen, batch, 2)
    frozen.export(tmp_path / "on", {f"model.{n}": p.detach() for n, p in frozen.model.named_parameters()}, {})
    assert load_codec(tmp_path / "on").fingerprint() == load_codec(tmp_path / "int8").fingerprint()


def test_a_codec_of_before_latents_could_be_balanced_is_a_start_like_another(batch, tmp_path):
    first = build("audio")
    first.export(tmp_path, {f"model.{n}": p.detach() for n, p in first.model.named_parameters()}, {})
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["latent_spread"]
    save_file(tensors, tmp_path / "model.safetensors")
    again = build("audio")
    again.load_weights(tmp_path)
    assert torch.equal(again.model.latent_spread, torch.ones(SMALL_AUDIO.latent_channels))
    assert again.model.fingerprint() == load_codec(tmp_path).fingerprint()


def test_named_layers_start_anew_and_all_others_from_the_folder(batch, tmp_path):
    """A deeper decoder on the weights of a shallower one; what does not fit and is not named is an error."""
    first = build("video")
    train(first, batch, 3)
    first.export(
        tmp_path / "first", {f"model.{n}": p.detach() for n, p in first.model.named_parameters()}, {}
    )
    deeper = replace(SMALL_VIDEO, decoder_fine_blocks=SMALL_VIDEO.decoder_fine_blocks + 1)
    recipe = VideoCodecRecipe(deeper, VideoLossConfig())
    before = {name: value.clone() for name, value in recipe.model.state_dict().items()}
    with pytest.raises(UserError, match=r"init_fresh=\[decoder_fine.1"):
        recipe.load_weights(tmp_path / "first")
    with pytest.raises(UserError, match="begins with 'nothing'"):
        recipe.load_weights(tmp_path / "first", ["nothing"])
    recipe.load_weights(tmp_path / "first", ["decoder_fine.1.", "encoder_in."])
    for name, value in recipe.model.state_dict().items():
        if name.startswith(("decoder_fine.1.", "encoder_in.")):
            assert torch.equal(value, before[name]), name
        else:
            assert torch.allclose(value, first.model.state_dict()[name], rtol=1e-3, atol=1e-4), (
                name
            )  # half precision on disk
    with pytest.raises(ConfigError, match="init_from, which is not set"):
        compose_config(["experiment=codec_video", "init_fresh=[decoder_in]"])
