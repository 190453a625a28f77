"""What the ablation measures of a codec, on the shipped one; and that every cell of its grid can be trained."""

import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from sora2.codecs import load_codecs
from sora2.codecs.robustness import detail, measure_latent
from sora2.commands.train import compose_config
from sora2.toybox import Toybox, ToyboxConfig
from sora2.train.codec_problem import codec_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ablation():
    spec = importlib.util.spec_from_file_location("codec_ablation", ROOT / "scripts" / "codec_ablation.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


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


def test_each_cell_of_the_ablation_differs_from_the_base_in_its_axis_alone(ablation):
    def settings(cell):
        config = compose_config([f"experiment={ablation.EXPERIMENT}", *cell.overrides])
        codec = codec_config(config)
        return {"seed": config.seed, **asdict(codec.model), **asdict(codec.loss)}, config

    base, config = settings(ablation.CELLS[0])
    assert config.trainer.precision == "bf16-mixed"
    changed = {}
    for cell in ablation.CELLS[1:]:
        other, _ = settings(cell)
        changed[cell.name] = {name for name in base if base[name] != other[name]}
    assert changed["stride_2x8x8"] == {"temporal_stride"}
    assert changed["stride_4x16x16"] == {"spatial_stride"}
    assert changed["channels_8"] == changed["channels_32"] == {"latent_channels"}
    assert changed["kl_1e-6"] == changed["kl_1e-2"] == {"kl"}
    assert changed["adversarial"] == {"adversarial", "features"}
    assert changed["seed_1"] == {"seed"}
    assert len({cell.name for cell in ablation.CELLS}) == len(ablation.CELLS)
