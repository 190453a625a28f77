"""The weights that ship with the project: size, quality floor, speed of use on a few held-out clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sora2.codecs import load_codecs
from sora2.codecs.evaluate import evaluate_clips, reconstruct
from sora2.codecs.losses import magnitudes
from sora2.codecs.summary import summarise
from sora2.commands import evaluate_codec
from sora2.generate import Pipeline, Request
from sora2.toybox import Toybox, ToyboxConfig, whole_world

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
FOLDERS = {"video": CHECKPOINTS / "video_vae", "audio": CHECKPOINTS / "audio_vae"}
WHOLE = CHECKPOINTS / "video_vae_whole"


@pytest.fixture(scope="module")
def codecs():
    return load_codecs(FOLDERS["video"], FOLDERS["audio"], text=None)


@pytest.fixture(scope="module")
def clips():
    return Toybox(ToyboxConfig(split="test")).clips(range(8))


def test_a_pair_fits_in_24_megabytes_and_all_weights_in_45():
    def size(*folders: Path) -> int:
        return sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file())

    assert size(*FOLDERS.values()) <= 24e6 and size(WHOLE, FOLDERS["audio"]) <= 24e6
    assert size(CHECKPOINTS) <= 45e6
    assert size(*FOLDERS.values(), CHECKPOINTS / "toybox-s") <= 40e6


@pytest.mark.parametrize("name", ["toybox-s", "toybox-whole", "toybox-talk"])
def test_a_shipped_transformer_finds_its_codecs_and_samples(name, monkeypatch):
    monkeypatch.chdir(CHECKPOINTS.parent)
    pipeline = Pipeline.from_checkpoint(CHECKPOINTS / name)
    few = replace(pipeline.world.sampling, steps=2)
    clips = pipeline.generate([Request(prompt=p, sampling=few) for p in ("a red ball", "a blue ball")])
    assert all(c.video.shape == (33, 64, 64, 3) and c.audio.isfinite().all() for c in clips)
    assert not torch.equal(clips[0].video, clips[1].video)


def test_the_whole_world_keeps_its_pictures():
    """A clip of every scene: above what the codec of the narrow world keeps of them by far."""
    clips = [c.replace(audio=None) for c in Toybox(whole_world(split="test", frames=33)).clips(range(9))]
    means = {}
    for folder in (WHOLE, FOLDERS["video"]):
        codecs = load_codecs(folder, None, text=None)
        rows = evaluate_clips(codecs, [(("all",), clip) for clip in clips])
        means[folder.name] = summarise(rows)["all"]["psnr_db"]["mean"]
    assert means["video_vae_whole"] > 31.5
    assert means["video_vae_whole"] > means["video_vae"] + 4


def test_quality_floor(codecs, clips):
    quiet = [c for c in clips if c.meta["truth"]["ambience"] == "silence"]
    summary = summarise(evaluate_clips(codecs, [(("quiet",), c) for c in quiet]))["quiet"]
    assert summary["psnr_db"]["mean"] > 34
    assert summary["si_sdr_db"]["mean"] > 10
    assert summary["onset_shift_ms"]["median"] <= 5


def test_rain_comes_back_as_noise_of_its_level_not_as_a_tone(codecs, clips):
    """A decoder may fill a noisy spectrum with a comb at its patch rate; the ear hears a buzz at 500 Hz."""
    rain = next(c for c in clips if c.meta["truth"]["ambience"] == "rain")
    back = reconstruct(codecs, rain)
    assert back.audio.std().item() == pytest.approx(rain.audio.std().item(), rel=0.3)
    level = magnitudes(back.audio[0], 4096)[0].clamp_min(1e-6).log10().mean(1) * 20  # (2049,) dB
    around = torch.nn.functional.avg_pool1d(level[None], 101, 1, 50)[0]
    comb = [k * 128 for k in range(6, 15)]  # 3 to 7 kHz in steps of 500 Hz
    assert (level - around)[comb].mean() < 6


def test_latents_have_unit_variance(codecs, clips):
    latents = [codecs.encode_clip(c) for c in clips]
    for name in ("video", "audio"):
        flat = torch.cat([z[name].flatten(1) for z in latents], dim=1)
        assert flat.std() == pytest.approx(1, abs=0.35)
        assert flat.mean() == pytest.approx(0, abs=0.2)


def test_shapes_of_the_default_clip(codecs, clips):
    latents = codecs.encode_clip(clips[0])
    assert latents["video"].shape == (16, 9, 8, 8)
    assert latents["audio"].shape == (64, 52)
    assert reconstruct(codecs, clips[0]).audio.shape == (2, 33000)


def test_command_writes_report_table_and_pictures(tmp_path, capsys):
    flags = ["--toybox", "4", "--pictures", "1", "--out", str(tmp_path)]
    folders = ["--video-codec", str(FOLDERS["video"]), "--audio-codec", str(FOLDERS["audio"])]
    assert evaluate_codec.main(flags + folders) == 0
    report = json.loads((tmp_path / "codec.json").read_text())
    assert len(report["rows"]) == 4
    assert report["fingerprints"].keys() == {"video", "audio"}
    assert "psnr_db" in (tmp_path / "codec.md").read_text()
    assert (tmp_path / "codec.png").stat().st_size > 10_000
    assert "psnr_db" in capsys.readouterr().out
