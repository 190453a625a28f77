from __future__ import annotations

import pytest
import torch

from sora2.codecs import CodecError, Codecs, load_codecs
from sora2.errors import UserError
from sora2.toybox import Toybox, ToyboxConfig
from sora2.types import Clip


@pytest.fixture
def codecs(video_vae, audio_vae):
    return Codecs(video_vae, audio_vae, None)


@pytest.fixture(scope="module")
def clip():
    return Toybox(ToyboxConfig(frames=9, height=32, width=32)).clip(0)


def test_a_clip_goes_in_and_a_clip_of_the_same_shape_comes_out(codecs, clip):
    latents = codecs.encode_clip(clip)
    video_shape = codecs.video_shape(9, 32, 32, 16.0, patch_size=2)
    audio_shape = codecs.audio_shape(clip.audio_seconds)
    assert latents["video"].shape == video_shape.latent_shape
    assert latents["audio"].shape == audio_shape.latent_shape
    back = codecs.decode_clip(latents["video"], latents["audio"], video_shape, audio_shape)
    assert back.video.shape == clip.video.shape and back.fps == clip.fps
    assert back.audio.shape == clip.audio.shape and back.sample_rate == clip.sample_rate


def test_only_what_is_there_is_encoded(codecs, clip):
    assert codecs.encode_clip(clip.replace(video=None, fps=0.0)).keys() == {"audio"}
    image = Clip(video=clip.video[:1], fps=1.0)
    assert codecs.encode_clip(image)["video"].shape[1] == 1


def test_sound_is_brought_to_the_codecs_rate_and_channels(codecs):
    sound = torch.randn(1, 48000) * 0.1
    latents = codecs.encode_clip(Clip(audio=sound, sample_rate=48000))
    assert latents["audio"].shape == (12, 25)


def test_a_stream_without_a_codec_is_an_error(video_vae, clip):
    with pytest.raises(CodecError, match=f"clip '{clip.key}' has audio"):
        Codecs(video_vae, None, None).encode_clip(clip)


def test_a_wrong_number_of_frames_is_an_error(codecs, clip):
    with pytest.raises(UserError, match="frames=8"):
        codecs.encode_clip(clip.replace(video=clip.video[:8], audio=None, sample_rate=0))


def test_a_latent_without_its_shape_is_an_error(codecs):
    with pytest.raises(CodecError, match="video_shape"):
        codecs.decode_clip(torch.zeros(6, 3, 4, 4), None)
    with pytest.raises(CodecError, match="does not match"):
        codecs.decode_clip(torch.zeros(6, 2, 4, 4), None, codecs.video_shape(9, 32, 32, 16.0, patch_size=2))


def test_load_codecs(codecs, tmp_path):
    codecs.video.save(tmp_path / "v")
    codecs.audio.save(tmp_path / "a")
    loaded = load_codecs(tmp_path / "v", tmp_path / "a", text="bytes")
    assert loaded.fingerprints() == {**codecs.fingerprints(), "text": loaded.text.fingerprint()}
    assert load_codecs(tmp_path / "v", None, None).fingerprints().keys() == {"video"}
    with pytest.raises(CodecError, match="holds an audio codec"):
        load_codecs(tmp_path / "a", tmp_path / "v", None)
