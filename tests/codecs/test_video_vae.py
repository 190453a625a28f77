from __future__ import annotations

import pytest
import torch

from sora2.codecs import CodecError, VideoVAE
from sora2.codecs.layers import patchify, unpatchify
from tests.codecs.conftest import SMALL_VIDEO


@pytest.mark.parametrize("frames, height, width", [(1, 16, 16), (5, 16, 24), (9, 32, 16), (13, 8, 8)])
def test_shapes_and_strides(video_vae, frames, height, width):
    video = torch.rand(2, 3, frames, height, width) * 2 - 1
    latent = video_vae.encode(video)
    assert latent.shape == (2, 6, 1 + (frames - 1) // 4, height // 8, width // 8)
    decoded = video_vae.decode(latent)
    assert decoded.shape == video.shape
    assert decoded.abs().max() <= 1


def test_an_image_is_the_first_latent_of_every_film_that_starts_with_it(video_vae):
    video = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    image = video_vae.encode(video[:, :, :1])
    assert torch.allclose(image, video_vae.encode(video)[:, :, :1], atol=1e-5)


def test_encoder_is_causal_by_gradient(video_vae):
    video = torch.rand(1, 3, 13, 16, 16, requires_grad=True)
    latent = video_vae.posterior(video)[0]
    for k in range(latent.shape[2]):
        (gradient,) = torch.autograd.grad(latent[:, :, k].sum(), video, retain_graph=True)
        reach = gradient.abs().sum((0, 1, 3, 4)) > 0
        assert not reach[4 * k + 1 :].any(), f"latent {k} looks into the future"
        assert reach[4 * k], f"latent {k} does not see its own last frame"
        assert reach[0], f"latent {k} has no memory of the first frame"


def test_decoder_is_causal_by_gradient(video_vae):
    latent = torch.randn(1, 6, 4, 2, 2, requires_grad=True)
    video = video_vae.decode_raw(latent)
    for frame in range(video.shape[2]):
        (gradient,) = torch.autograd.grad(video[:, :, frame].sum(), latent, retain_graph=True)
        reach = gradient.abs().sum((0, 1, 3, 4)) > 0
        own = (frame + 3) // 4
        assert reach[own]
        assert not reach[own + 1 :].any(), f"frame {frame} needs a later latent"


def test_decoding_a_prefix_equals_the_prefix_of_decoding(video_vae):
    latent = torch.randn(1, 6, 4, 2, 2)
    assert torch.allclose(video_vae.decode(latent)[:, :, :9], video_vae.decode(latent[:, :, :3]), atol=1e-5)


def test_patches_round_trip():
    x = torch.randn(2, 8, 16, 24, 3)
    assert torch.equal(unpatchify(patchify(x, 4, 8), 4, 8), x)


def test_untrained_codec_is_the_linear_codec_of_its_data():
    """After `initialize_linear` the network adds nothing, and data of the right rank comes back exactly."""
    torch.manual_seed(0)
    directions = torch.randn(6, 4 * 8 * 8 * 3) / 30
    cells = torch.randn(64, 6) @ directions
    cells[:4] = (
        0  # the first latent frame, where one picture stands for four, stays in the span of the directions
    )
    video = unpatchify(cells.reshape(1, 16, 2, 2, -1), 4, 8).permute(0, 4, 1, 2, 3)  # (1, 3, 64, 16, 16)
    video = video[:, :, 3:]
    codec = VideoVAE(SMALL_VIDEO)
    codec.initialize_linear(video)
    latent = codec.posterior(video)[0]
    assert torch.allclose(codec.decode_raw(latent)[:, :, 1:], video[:, :, 1:], atol=1e-2)
    assert latent.std().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    "shape, word", [((1, 3, 4, 16, 16), "frames"), ((1, 3, 5, 12, 16), "multiples of 8")]
)
def test_impossible_sizes_are_named(video_vae, shape, word):
    with pytest.raises(CodecError, match=word):
        video_vae.encode(torch.zeros(shape))
