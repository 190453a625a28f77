"""The fixed transforms: orthonormal, exact with all coefficients, else the low frequencies; saved like any codec."""

import pytest
import torch

from sora2.codecs import CodecError, load_codecs
from sora2.codecs.transform import AudioMDCT, AudioMDCTConfig, VideoDCT, VideoDCTConfig, fit_statistics
from sora2.toybox import Toybox, ToyboxConfig


@pytest.fixture(scope="module")
def clip():
    return Toybox(ToyboxConfig(frames=17, height=32, width=32)).clip(3)


def round_trip(codec, x):
    return codec.decode_raw(codec.posterior(x)[0])


def test_video_with_all_coefficients_is_exact_and_its_basis_orthonormal(clip):
    codec = VideoDCT(VideoDCTConfig(latent_channels=768))
    torch.testing.assert_close(codec.basis @ codec.basis.T, torch.eye(768), atol=1e-5, rtol=0)
    pixels = clip.pixels()[None]
    torch.testing.assert_close(round_trip(codec, pixels), pixels, atol=1e-5, rtol=0)
    still = pixels[:, :, :1]
    torch.testing.assert_close(round_trip(codec, still), still, atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [6400, 6401, 33_000, 640])
def test_sound_with_all_coefficients_is_exact_to_its_ends(samples):
    codec = AudioMDCT(AudioMDCTConfig(channels=1, latent_channels=640))
    sound = torch.randn(2, 1, samples, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(round_trip(codec, sound)[..., :samples], sound, atol=1e-4, rtol=0)


def test_fewer_coefficients_keep_the_low_frequencies(clip):
    pixels = clip.pixels()[None]
    errors = [
        float((round_trip(VideoDCT(VideoDCTConfig(latent_channels=c)), pixels) - pixels).square().mean())
        for c in (8, 32, 128, 512)
    ]
    assert errors == sorted(errors, reverse=True) and errors[0] > 4 * errors[-1]
    time = torch.arange(16_000) / 16_000
    low, high = (torch.sin(2 * torch.pi * f * time).expand(1, 2, -1) for f in (200.0, 7000.0))
    codec = AudioMDCT(AudioMDCTConfig())
    assert (round_trip(codec, low) - low).square().mean() < 1e-4
    assert round_trip(codec, high)[..., 640:-640].square().mean() < 1e-4


def test_latents_have_unit_variance_and_come_back_from_disk(clip, tmp_path):
    video, audio = VideoDCT(VideoDCTConfig()), AudioMDCT(AudioMDCTConfig())
    clips = Toybox(ToyboxConfig(frames=17, height=32, width=32)).clips(range(4))
    fit_statistics(video, (c.pixels()[None] for c in clips))
    fit_statistics(audio, (c.audio[None].float() for c in clips))
    video.save(tmp_path / "video")
    audio.save(tmp_path / "audio")
    codecs = load_codecs(tmp_path / "video", tmp_path / "audio", text=None)
    assert codecs.fingerprints() == {"video": video.fingerprint(), "audio": audio.fingerprint()}
    latents = [codecs.encode_clip(c) for c in clips]
    for name in ("video", "audio"):
        every = torch.cat([one[name].flatten(1) for one in latents], dim=1)
        assert float(every.std(dim=1).median()) == pytest.approx(1.0, abs=0.05)
        assert float(every.std(dim=1).max()) < 1.05
    shape = codecs.video_shape(17, 32, 32, 16.0, patch_size=2)
    decoded = codecs.decode_clip(
        latents[0]["video"], latents[0]["audio"], shape, codecs.audio_shape(shape.seconds)
    )
    assert decoded.video.shape == clips[0].video.shape and decoded.audio.shape == clips[0].audio.shape


def test_what_does_not_fit_is_refused():
    with pytest.raises(CodecError, match=r"latent_channels=769 must be in 1 \.\. 768"):
        VideoDCTConfig(latent_channels=769)
    with pytest.raises(CodecError, match="multiple of 4"):
        AudioMDCTConfig(latent_channels=30)
    with pytest.raises(CodecError, match="18 frames"):
        VideoDCT(VideoDCTConfig()).posterior(torch.zeros(1, 3, 18, 32, 32))
    with pytest.raises(CodecError, match="at least one"):
        fit_statistics(VideoDCT(VideoDCTConfig()), [])
