"""What the ablation measures of a codec, on the shipped one."""

from pathlib import Path

import torch

from sora2.codecs import load_codecs
from sora2.codecs.robustness import detail, measure_latent
from sora2.toybox import Toybox, ToyboxConfig

ROOT = Path(__file__).parents[2]


def test_noise_in_the_latent_costs_and_the_same_seed_costs_the_same():
    codec = load_codecs(ROOT / "checkpoints" / "video_vae", None, text=None).video
    clip = Toybox(ToyboxConfig(split="test", frames=17, height=32, width=32)).clip(0)
    found = measure_latent(codec, clip, seed=1)
    assert found == measure_latent(codec, clip, seed=1)
    assert 20 < found["psnr_noisy_db"] < found["psnr_db"] < 60
    assert 0.5 < found["detail_ratio"] < 1.2
    assert found["kl_nats"] > 0


def test_detail_tells_blurred_pictures():
    sharp = torch.randint(0, 256, (2, 16, 16, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    soft = torch.nn.functional.avg_pool2d(sharp.permute(0, 3, 1, 2).float(), 3, 1, 1).permute(0, 2, 3, 1)
    assert detail(soft.to(torch.uint8)) < 0.3 * detail(sharp)
    assert detail(torch.full((1, 8, 8, 3), 9, dtype=torch.uint8)) == 0
