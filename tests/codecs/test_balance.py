"""Balanced latents: what comes out stays, and equal errors of the latent become equal errors of the pixels."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sora2.cli import main
from sora2.codecs import VideoVAE, load_codec
from sora2.codecs.balance import balance, latent_metric
from tests.codecs.conftest import SMALL_VIDEO, shake


@pytest.fixture(params=["video_vae", "audio_vae"])
def case(request):
    """A codec, inputs, and their statistics set."""
    codec = request.getfixturevalue(request.param)
    g = torch.Generator().manual_seed(0)
    shape = (1, 3, 5, 16, 16) if request.param == "video_vae" else (1, 2, 1280)
    inputs = [torch.rand(shape, generator=g) * 2 - 1 for _ in range(12)]
    with torch.no_grad():
        raw = torch.cat([codec.posterior(x)[0].transpose(0, 1).flatten(1) for x in inputs], 1)
        codec.set_statistics(raw.mean(1), raw.std(1))
    return codec, inputs


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_what_comes_out_stays_and_the_latent_keeps_its_variance(case, power):
    codec, inputs = case
    made = balance(codec, *latent_metric(codec, inputs), power)
    with torch.no_grad():
        for x in inputs[:2]:
            before, after = codec.decode(codec.encode(x)), made.decode(made.encode(x))
            assert torch.allclose(before, after, atol=1e-4)
        z = torch.cat([made.encode(x).transpose(0, 1).flatten(1) for x in inputs], 1)
    assert z.var(1).mean() == pytest.approx(1, rel=0.1)
    assert torch.allclose(z.std(1), made.spread, rtol=0.1, atol=1e-3)
    assert torch.allclose(z.mean(1), torch.zeros(len(z)), atol=0.05)
    assert made.fingerprint() != codec.fingerprint()


def error_of(codec, x, channel, size=1e-3):
    """Root mean square change of the output when one channel of the latent changes by random signs."""
    with torch.no_grad():
        z = codec.encode(x)
        moved = z.clone()
        signs = torch.randint(0, 2, z[:, channel].shape, generator=torch.Generator().manual_seed(1)) * 2.0 - 1
        moved[:, channel] += size * signs
        change = codec.decode_raw(codec.denormalize(moved)) - codec.decode_raw(codec.denormalize(z))
        return float(change.square().mean().sqrt() / size)


def test_with_power_one_all_directions_weigh_the_same(video_vae):
    g = torch.Generator().manual_seed(0)
    inputs = [torch.rand(2, 3, 9, 32, 32, generator=g) * 2 - 1 for _ in range(8)]
    with torch.no_grad():
        video_vae.linear_decoder.weight[:, 0] *= 10  # a channel that weighs more than the others
    made = balance(video_vae, *latent_metric(video_vae, inputs, probes=6), 1.0)

    def unevenness(codec):
        errors = [error_of(codec, inputs[0], c) for c in range(codec.latent_channels)]
        return max(errors) / min(errors)

    assert unevenness(video_vae) > 4
    assert unevenness(made) < 1.6


def test_the_first_directions_are_those_that_show_most(video_vae):
    g = torch.Generator().manual_seed(0)
    inputs = [torch.rand(2, 3, 9, 32, 32, generator=g) * 2 - 1 for _ in range(4)]
    with torch.no_grad():
        video_vae.linear_decoder.weight[:, 3] *= 10
    made = balance(video_vae, *latent_metric(video_vae, inputs), 0.0)
    errors = [error_of(made, inputs[0], c) for c in range(made.latent_channels)]
    assert errors[0] == max(errors) and errors[0] > 1.5 * errors[-1]


def test_eight_bits_cost_it_what_they_cost_before(case, tmp_path):
    codec, inputs = case
    made = balance(codec, *latent_metric(codec, inputs), 1.0)
    codec.save(tmp_path / "before", dtype=torch.int8)
    made.save(tmp_path / "after", dtype=torch.int8)

    def lost(exact, folder):
        short = load_codec(folder)
        with torch.no_grad():
            pairs = [(exact.decode(exact.encode(x)), short.decode(short.encode(x))) for x in inputs]
        return sum(float((a - b).square().mean()) for a, b in pairs)

    assert lost(made, tmp_path / "after") < 2 * lost(codec, tmp_path / "before")


def test_it_is_saved_as_any_codec(tmp_path):
    codec = shake(VideoVAE(SMALL_VIDEO))
    inputs = [torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    made = balance(codec, *latent_metric(codec, inputs))
    made.save(tmp_path / "codec")
    again = load_codec(tmp_path / "codec")
    assert again.fingerprint() == made.fingerprint()
    with torch.no_grad():
        assert torch.equal(again.encode(inputs[0]), made.encode(inputs[0]))
    drawn = again.encode(inputs[0], sample=True, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(drawn).all() and not torch.equal(drawn, again.encode(inputs[0]))


def test_the_command_balances_a_codec_on_shards_and_says_what_it_cannot_balance(tmp_path):
    assert (
        main(["toybox", "--out", str(tmp_path / "raw"), "--clips", "2", "--frames", "5", "--workers", "1"])
        == 0
    )
    shake(VideoVAE(SMALL_VIDEO)).save(tmp_path / "codec")

    def balanced(*arguments):
        command = [sys.executable, "scripts/balance_codec.py", "--shards", str(tmp_path / "raw/train")]
        root = Path(__file__).resolve().parents[2]
        return subprocess.run([*command, *arguments], cwd=root, capture_output=True, text=True)

    done = balanced(
        "--codec", str(tmp_path / "codec"), "--clips", "2", "--dtype", "int8", "--out", str(tmp_path / "made")
    )
    assert done.returncode == 0, done.stderr
    made = load_codec(tmp_path / "made")
    assert made.spread.max() > 2 * made.spread.min()
    assert json.loads((tmp_path / "made/config.json").read_text())["info"]["balanced"]["power"] == 1.0
    refused = balanced("--codec", str(tmp_path / "codec"), "--clips", "0", "--out", str(tmp_path / "never"))
    assert refused.returncode != 0 and "--clips 0 must be at least 1" in refused.stderr
    assert not (tmp_path / "never").exists()
