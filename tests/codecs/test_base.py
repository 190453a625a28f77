from __future__ import annotations

import json

import pytest
import torch

from sora2.codecs import CodecError, load_codec
from sora2.codecs.load import read_info
from sora2.weights import dequantize, quantize


@pytest.mark.parametrize("kind", ["video_vae", "audio_vae"])
def test_save_and_load_give_the_same_codec(kind, request, tmp_path):
    codec = request.getfixturevalue(kind)
    channels = codec.latent_channels
    codec.set_statistics(torch.linspace(-1, 1, channels), torch.linspace(0.5, 2, channels))
    codec.save(tmp_path / "codec", info={"samples": 5})
    loaded = load_codec(tmp_path / "codec")
    assert loaded.fingerprint() == codec.fingerprint()
    assert read_info(tmp_path / "codec") == {"samples": 5}
    x = torch.rand(1, 3, 5, 16, 16) if kind == "video_vae" else torch.rand(1, 2, 1280)
    with torch.no_grad():
        assert torch.equal(loaded.encode(x), codec.encode(x))


def test_fingerprint_sees_weights_statistics_and_config(video_vae):
    before = video_vae.fingerprint()
    video_vae.latent_std[0] += 0.5
    with_statistics = video_vae.fingerprint()
    with torch.no_grad():
        video_vae.encoder_in.weight[0, 0] += 0.01
    assert len({before, with_statistics, video_vae.fingerprint()}) == 3


@pytest.mark.parametrize("kind", ["video_vae", "audio_vae"])
def test_fingerprint_is_that_of_the_latents(kind, request):
    """Another decoder reads the same latents; anything else makes other ones."""
    codec = request.getfixturevalue(kind)
    before = codec.fingerprint()
    x = torch.rand(1, 3, 5, 16, 16) if kind == "video_vae" else torch.rand(1, 2, 1280)
    with torch.no_grad():
        latent = codec.encode(x)
        for name, tensor in codec.state_dict().items():
            if codec.is_decoder(name):
                tensor.add_(0.1)
        assert codec.fingerprint() == before and torch.equal(codec.encode(x), latent)
        for name, tensor in codec.state_dict().items():
            if not codec.is_decoder(name):
                tensor.add_(0.1)
                assert codec.fingerprint() != before, name
                assert not torch.equal(codec.encode(x, True, torch.Generator().manual_seed(0)), latent), name
                tensor.sub_(0.1)


def test_half_precision_storage_is_stable(video_vae, tmp_path):
    """Saving what was loaded changes nothing, so the fingerprint on disk can be relied on."""
    video_vae.save(tmp_path / "a", dtype=torch.float16)
    first = load_codec(tmp_path / "a")
    first.save(tmp_path / "b", dtype=torch.float16)
    assert load_codec(tmp_path / "b").fingerprint() == first.fingerprint()


@pytest.mark.parametrize("kind", ["video_vae", "audio_vae"])
def test_weights_of_8_bits_are_near_small_and_stable(kind, request, tmp_path):
    """A step of each row's own scale at most, a quarter of the bytes, and no bit moves when saved again."""
    codec = request.getfixturevalue(kind)
    full = codec.save(tmp_path / "full") / "model.safetensors"
    small = codec.save(tmp_path / "small", dtype=torch.int8) / "model.safetensors"
    first = load_codec(small.parent)
    assert small.stat().st_size < 0.5 * full.stat().st_size  # names and biases weigh in codecs this small
    stored = first.state_dict()
    for name, value in codec.state_dict().items():
        if name.startswith("latent_"):
            assert torch.equal(stored[name], value), name
        elif value.ndim >= 2:
            step = value.flatten(1).abs().amax(1) / 127
            error = (stored[name] - value).flatten(1).abs().amax(1)
            assert bool((error <= 0.51 * step + 1e-7).all()), name
    first.save(tmp_path / "again", dtype=torch.int8)
    again = load_codec(tmp_path / "again")
    assert all(torch.equal(again.state_dict()[n], t) for n, t in stored.items())
    assert again.fingerprint() == first.fingerprint()


def test_any_peak_is_kept_from_nothing_to_subnormal():
    weight = torch.tensor([[0.0, 0.0], [1e-6, -3e-7], [2e-4, 1e-4], [3.0, -1.0]])
    integers, peaks = quantize(weight)
    back = dequantize(integers, peaks)
    assert back.isfinite().all() and torch.equal(back[0], weight[0])
    assert torch.allclose(back, weight, rtol=0.06, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(quantize(back), (integers, peaks), strict=True))


def test_statistics_normalise_the_latents(video_vae):
    torch.manual_seed(0)
    video = torch.rand(8, 3, 9, 16, 16) * 2 - 1
    raw = video_vae.posterior(video)[0].detach().transpose(0, 1).flatten(1)
    video_vae.set_statistics(raw.mean(1), raw.std(1))
    latent = video_vae.encode(video).detach().transpose(0, 1).flatten(1)
    assert torch.allclose(latent.mean(1), torch.zeros(6), atol=1e-3)
    assert torch.allclose(latent.std(1), torch.ones(6), atol=1e-3)
    assert torch.equal(video_vae.spread, torch.ones(6))


def test_tracked_statistics_converge_to_those_of_the_data(video_vae):
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.linspace(-2, 2, 6), torch.linspace(0.2, 3, 6)
    for _ in range(900):
        raw = torch.randn(4, 6, 3, 4, 4, generator=generator)
        video_vae.track_statistics(raw * std.view(-1, 1, 1, 1) + mean.view(-1, 1, 1, 1))
    assert torch.allclose(video_vae.latent_mean, mean, atol=0.1)
    assert torch.allclose(video_vae.latent_std, std, rtol=0.1)


def test_posterior_draws_are_seeded_and_scatter_around_the_mean(video_vae):
    video = torch.rand(1, 3, 5, 16, 16)
    draws = [
        video_vae.encode(video, sample=True, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_channel_without_variance_is_refused(video_vae):
    with pytest.raises(CodecError, match="no variance"):
        video_vae.set_statistics(torch.zeros(6), torch.zeros(6))


class TestBrokenFolders:
    def test_missing_folder(self, tmp_path):
        with pytest.raises(CodecError, match=r"nowhere does not exist.*never initialised at random"):
            load_codec(tmp_path / "nowhere")

    def test_missing_weights(self, video_vae, tmp_path):
        video_vae.save(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(CodecError, match=r"no model\.safetensors"):
            load_codec(tmp_path)

    def test_missing_config(self, tmp_path):
        with pytest.raises(CodecError, match=r"no config\.json"):
            load_codec(tmp_path)

    def test_truncated_weights(self, video_vae, tmp_path):
        video_vae.save(tmp_path)
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(CodecError, match="does not hold the weights"):
            load_codec(tmp_path)

    def test_weights_of_another_size(self, video_vae, tmp_path):
        video_vae.save(tmp_path)
        stored = json.loads((tmp_path / "config.json").read_text())
        stored["config"]["decoder_width"] = 24
        (tmp_path / "config.json").write_text(json.dumps(stored))
        with pytest.raises(CodecError, match="does not hold the weights"):
            load_codec(tmp_path)

    def test_unknown_kind(self, video_vae, tmp_path):
        video_vae.save(tmp_path)
        stored = json.loads((tmp_path / "config.json").read_text())
        stored["kind"] = "smell_vae"
        (tmp_path / "config.json").write_text(json.dumps(stored))
        with pytest.raises(CodecError, match="smell_vae"):
            load_codec(tmp_path)
