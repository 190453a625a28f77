"""The arithmetic between pixels, samples, latents, tokens and seconds."""

import pytest
import torch

from sora2.types import (
    AudioShape,
    Batch,
    Clip,
    Modality,
    ShapeError,
    VideoShape,
    clean_modality,
    to_uint8_video,
)


def test_the_default_clip_is_at_most_220_tokens():
    video = VideoShape(frames=33, height=64, width=64, fps=16.0)
    audio = AudioShape.for_seconds(video.seconds, 16_000)
    assert video.latent_shape == (16, 9, 8, 8)
    assert (video.tokens, video.token_width) == (144, 64)
    assert (audio.tokens, audio.token_width) == (52, 64)
    assert video.tokens + audio.tokens + 24 == 220


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("fps", [8.0, 16.0, 29.97])
def test_a_video_token_sits_at_the_centre_of_its_frames(stride, fps):
    shape = VideoShape(frames=1 + 8 * stride, height=64, width=96, fps=fps, temporal_stride=stride)
    frame_centre = (torch.arange(shape.frames) + 0.5) / fps
    expected = [frame_centre[:1].mean()] + [
        frame_centre[1 + stride * k : 1 + stride * (k + 1)].mean() for k in range(8)
    ]
    assert torch.allclose(shape.token_seconds(), torch.stack(expected), atol=1e-5)


def test_simultaneous_video_and_audio_share_a_position_whatever_the_rates():
    for fps, rate, hop in ((16.0, 16_000, 640), (24.0, 48_000, 1920), (10.0, 22_050, 441)):
        video = VideoShape(frames=33, height=64, width=64, fps=fps)
        audio = AudioShape.for_seconds(video.seconds, rate, hop_samples=hop)
        gap = (video.token_seconds()[:, None] - audio.token_seconds()[None]).abs().min(dim=1).values
        assert gap.max() <= 0.5 / audio.latent_rate + 1e-6


def test_positions_do_not_depend_on_resolution_or_codec_stride():
    coarse = VideoShape(33, 64, 64, 16.0, spatial_stride=16).positions().reshape(9, 2, 2, 3)
    fine = VideoShape(33, 128, 128, 16.0, spatial_stride=8).positions().reshape(9, 8, 8, 3)
    pooled = fine.reshape(9, 2, 4, 2, 4, 3).mean(dim=(2, 4))
    assert torch.allclose(coarse, pooled, atol=1e-6)


def test_tokenize_is_inverted_and_keeps_neighbours_together():
    shape = VideoShape(frames=5, height=32, width=64, fps=8.0)
    latent = torch.randn(2, *shape.latent_shape)
    tokens = shape.tokenize(latent)
    assert torch.equal(shape.untokenize(tokens), latent)
    first = tokens[0, 0].reshape(16, 2, 2)
    assert torch.equal(first, latent[0, :, 0, :2, :2])
    audio = AudioShape(samples=1000, sample_rate=16_000)
    sound = torch.randn(2, *audio.latent_shape)
    assert torch.equal(audio.untokenize(audio.tokenize(sound)), sound)


def test_latent_index_counts_only_whole_latent_frames():
    shape = VideoShape(frames=33, height=64, width=64, fps=16.0)
    assert [shape.latent_index(s) for s in (0, 1 / 16, 4 / 16, 5 / 16, 9 / 16, 99)] == [0, 1, 1, 2, 3, 9]
    audio = AudioShape.for_seconds(2.0, 16_000)
    assert [audio.latent_index(s) for s in (0, 0.039, 0.04, 1.0, 99)] == [0, 0, 1, 25, 50]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"frames": 32, "height": 64, "width": 64, "fps": 16.0}, r"frames=32 is not 1 \+ 4 \* k.*29 or 33"),
        ({"frames": 33, "height": 60, "width": 64, "fps": 16.0}, "height=60 is not a multiple of 16"),
        ({"frames": 33, "height": 64, "width": 64, "fps": 0.0}, "fps=0.0"),
    ],
)
def test_impossible_shapes_name_the_value_and_the_remedy(kwargs, message):
    with pytest.raises(ShapeError, match=message):
        VideoShape(**kwargs)


def test_pixels_round_trip():
    video = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(to_uint8_video(Clip(video=video, fps=8.0).pixels()), video)


def test_clip_and_modality_refuse_wrong_shapes():
    with pytest.raises(ShapeError, match="uint8"):
        Clip(video=torch.zeros(5, 8, 8, 3), fps=8.0)
    with pytest.raises(ShapeError, match="fps"):
        Clip(video=torch.zeros(5, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="positions"):
        Modality(
            torch.zeros(1, 4, 8), torch.zeros(1, 3, 3), torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
        )


def test_a_batch_lists_present_modalities_in_packing_order():
    m = clean_modality(torch.zeros(2, 4, 8), torch.zeros(4, 3))
    assert list(Batch(audio=m, video=m, text=m).modalities()) == ["text", "video", "audio"]
    with pytest.raises(ShapeError, match="empty"):
        _ = Batch().size
