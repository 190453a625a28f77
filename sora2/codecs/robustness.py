"""What a video codec keeps of a clip, and what becomes of it when its latent is not exactly met.

A diffusion model never draws a latent exactly. A codec that shows a little noise in its latent as a large error is a
bad one to generate with, however well it reconstructs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sora2.codecs.measure import psnr
from sora2.types import Clip, to_uint8_video

#: Noise added to the unit-variance latent: a tenth of its deviation.
NOISE = 0.1


@torch.no_grad()
def measure_latent(codec: Any, clip: Clip, seed: int = 0) -> dict[str, float]:
    """Of a clip with video (T, H, W, 3):

    - psnr_db: of the decoded posterior mean against the clip;
    - psnr_noisy_db: the same with `NOISE` of a deviation added to every number of the normalised latent;
    - detail_ratio: energy of the decoded pictures' second differences over that of the clip's: 1 is as sharp as the
      original, less is blurred;
    - kl_nats: of the posterior from a unit normal, per latent number;
    - latent_std: of the normalised latent, 1 where the stored statistics fit the clip.
    """
    pixels = clip.pixels()[None]  # (1, 3, T, H, W)
    mean, log_variance = codec.posterior(pixels)  # (1, C, t, h, w) both
    latent = codec.normalize(mean)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    decoded, noisy = (to_uint8_video(codec.decode(z)[0]) for z in (latent, latent + NOISE * noise))
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return {
        "psnr_db": psnr(clip.video, decoded),
        "psnr_noisy_db": psnr(clip.video, noisy),
        "detail_ratio": detail(decoded) / max(detail(clip.video), 1e-9),
        "kl_nats": float(kl.mean()),
        "latent_std": float(latent.std()),
    }


def detail(video: Tensor) -> float:
    """Mean square of the Laplacian of (T, H, W, 3) uint8 pictures, edges left out."""
    x = video.float()
    inner = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return float((around - 4 * inner).square().mean())
