from __future__ import annotations

import pytest
import torch

from sora2.codecs import CodecError, load_codec
from sora2.codecs.adapters import _optional

diffusers = pytest.importorskip("diffusers")


def test_a_package_that_is_missing_is_named():
    with pytest.raises(CodecError, match=r"pip install no_such_package"):
        _optional("no_such_package", "a codec")


def test_causal_video_vae_of_diffusers(tmp_path):
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.5] * 4,
        latents_std=[2.0] * 4,
    )
    vae.save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    assert (codec.latent_channels, codec.temporal_stride, codec.spatial_stride) == (4, 4, 8)
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        latent = codec.encode(video)
        assert latent.shape == (1, 4, 2, 2, 2)
        raw = vae.eval().encode(video).latent_dist.mode()
        assert torch.allclose(latent, (raw - 0.5) / 2, atol=1e-5)
        assert codec.decode(latent).shape == video.shape
    assert codec.fingerprint() == load_codec(tmp_path).fingerprint()


def test_image_vae_codes_frames_one_by_one(tmp_path):
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.5,
    )
    vae.save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    assert (codec.temporal_stride, codec.spatial_stride) == (1, 2)
    video = torch.rand(1, 3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latent = codec.encode(video)
        assert latent.shape == (1, 4, 3, 8, 8)
        assert torch.allclose(latent[:, :, 2:], codec.encode(video[:, :, 2:]), atol=1e-5)
        assert codec.decode(latent).shape == video.shape


def test_audio_vae_of_diffusers(tmp_path):
    torch.manual_seed(0)
    vae = diffusers.AutoencoderOobleck(
        encoder_hidden_size=12,
        downsampling_ratios=[2, 4],
        channel_multiples=[1, 2],
        decoder_channels=4,
        decoder_input_channels=6,
        audio_channels=2,
        sampling_rate=16000,
    )
    vae.save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    assert (codec.hop_samples, codec.sample_rate, codec.channels, codec.latent_channels) == (8, 16000, 2, 6)
    audio = torch.randn(1, 2, 100) * 0.1
    with torch.no_grad():
        latent = codec.encode(audio)
        assert latent.shape == (1, 6, 13)
        assert codec.decode(latent, 100).shape == audio.shape


def test_a_class_that_diffusers_does_not_have(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderOfDreams"}')
    with pytest.raises(CodecError, match="AutoencoderOfDreams"):
        load_codec(tmp_path)


def test_a_diffusers_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(CodecError, match="could not load AutoencoderKL"):
        load_codec(tmp_path)
