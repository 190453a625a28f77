"""Small untrained codecs, quick to run."""

from __future__ import annotations

import pytest
import torch

from sora2.codecs import SpectralVAE, SpectralVAEConfig, VideoVAE, VideoVAEConfig

SMALL_VIDEO = VideoVAEConfig(
    latent_channels=6,
    encoder_fine_width=8,
    encoder_width=16,
    encoder_blocks=2,
    decoder_width=16,
    decoder_blocks=2,
    decoder_fine_width=8,
    decoder_fine_blocks=1,
)
SMALL_AUDIO = SpectralVAEConfig(
    latent_channels=12, encoder_width=16, encoder_blocks=1, decoder_width=16, decoder_blocks=2
)


def shake(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, so that no zero-initialised output hides a dependence."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    return module.eval()


@pytest.fixture
def video_vae() -> VideoVAE:
    return shake(VideoVAE(SMALL_VIDEO))


@pytest.fixture
def audio_vae() -> SpectralVAE:
    return shake(SpectralVAE(SMALL_AUDIO))
