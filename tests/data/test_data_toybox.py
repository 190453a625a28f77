"""Toybox shards: the same bytes from any number of workers, after any interruption."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from sora2.codecs import load_codecs
from sora2.commands import toybox
from sora2.config import ConfigError
from sora2.data import DataError, RawDataset
from sora2.data.datasets import LatentDataset
from sora2.data.encode import encode_batch
from sora2.media import read_clip
from sora2.toybox import CAMERAS, LIGHTS, STYLES, Toybox, ToyboxConfig, whole_world
from sora2.train.compose import compose_config
from sora2.types import ShapeError

SMALL = ["--frames", "5", "--height", "32", "--width", "32", "--shard-size", "3", "--validation-clips", "2"]


def run(out: Path, *flags: str) -> Path:
    assert toybox.main(["--out", str(out), *SMALL, *flags]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("whole"), "--clips", "8")


def test_shards_hold_the_clips_of_the_world_with_exact_sound(whole):
    dataset = RawDataset(whole / "train")
    world = Toybox(ToyboxConfig(frames=5, height=32, width=32))
    assert len(dataset) == 8
    for index in (0, 7):
        stored, made = dataset[index], world.clip(index)
        assert (stored.key, stored.caption, stored.fps) == (made.key, made.caption, made.fps)
        assert stored.meta["truth"] == made.meta["truth"] and stored.meta["licence"] == "CC0-1.0"
        assert (stored.audio - made.audio).abs().max() < 2 / 32768
        assert (stored.video.float() - made.video.float()).pow(2).mean() < 255**2 / 10**2.5  # 25 dB
    assert len(RawDataset(whole / "validation")) == 2


def test_two_workers_write_the_same_bytes(whole, tmp_path):
    assert contents(run(tmp_path / "two", "--clips", "8", "--workers", "2")) == contents(whole)


def test_latents_are_those_of_the_very_clips_whoever_writes_them(tmp_path):
    flags = ["--clips", "8", "--latents", "--text", "bytes", "--batch-size", "2"]
    one = run(tmp_path / "one", *flags)
    assert contents(run(tmp_path / "two", *flags, "--workers", "2")) == contents(one)
    dataset, world = LatentDataset(one / "train"), Toybox(ToyboxConfig(frames=5, height=32, width=32))
    codecs = load_codecs("checkpoints/video_vae", "checkpoints/audio_vae", "bytes", 24)
    assert len(dataset) == 8 and dataset.index.fingerprints == codecs.fingerprints()
    clips = [world.clip(i) for i in (2, 7)]
    found = encode_batch(clips, [c.caption for c in clips], codecs, torch.device("cpu"), torch.float32)
    for clip, latents, index in zip(clips, found, (2, 7), strict=True):
        stored = dataset[index]
        assert (stored.key, stored.caption) == (clip.key, clip.caption)
        assert dataset.meta(index)["truth"] == clip.meta["truth"]
        for name in ("video", "audio", "text"):
            difference = getattr(stored, name).float() - latents[name]
            assert difference.abs().max() <= 0.01 * latents[name].abs().max()
    with pytest.raises(DataError, match=r"24000 Hz x 2, the audio codec takes 16000 Hz x 2"):
        run(tmp_path / "rate", *flags, "--sample-rate", "24000")
    with pytest.raises(DataError, match=r"crf: None -> 8.*latents: True -> None"):
        run(one, "--clips", "8")


def test_a_killed_run_is_finished_to_the_same_bytes(whole, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "sora2.cli", "toybox", "--out", str(out), *SMALL, "--clips", "8"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("train/shard-*.tar")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("train/shard-*.tar")}
    assert kept
    run(out, "--clips", "8")
    assert contents(out) == contents(whole)
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())


def test_ctrl_c_leaves_whole_shards_and_exit_code_130(tmp_path):
    out = tmp_path / "interrupted"
    command = [sys.executable, "-m", "sora2.cli", "toybox", "--out", str(out), *SMALL, "--clips", "3000"]
    # where the suite runs in the background, the shell told it to ignore the signal
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=heed)
    deadline = time.monotonic() + 60
    while not list(out.glob("train/shard-*.tar")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    files = sorted(p.name for p in (out / "train").iterdir())
    assert files[0] == "job.json" and len(files) > 1
    assert all(name.startswith("shard-") and name.endswith(".tar") for name in files[1:])


def test_a_world_can_grow_but_not_shrink_or_change(whole, tmp_path):
    out = run(tmp_path / "grown", "--clips", "4")
    assert contents(run(out, "--clips", "8")) == contents(whole)
    with pytest.raises(DataError, match="already holds more than 4 clips"):
        run(out, "--clips", "4")
    with pytest.raises(DataError, match="seed: 0 -> 1"):
        run(out, "--clips", "8", "--seed", "1")
    assert contents(out) == contents(whole)


def test_the_whole_world_is_a_flag_and_recipes_are_files(tmp_path, capsys):
    args = toybox.parse(["--out", str(tmp_path), "--recipe", "toybox_s", "--clips", "5"])
    assert (args.world, args.clips, args.validation_clips) == ("whole", 5, 512)
    assert toybox.parse(["--out", "x", "--recipe", "toybox_m"]).clips == 200_000
    config = toybox.world_config(args, "train")
    assert config == whole_world(split="train")
    narrow = toybox.world_config(toybox.parse(["--out", "x"]), "test")
    assert narrow == ToyboxConfig(split="test")
    with pytest.raises(ConfigError, match=r"there is no .*toybox_xl\.yaml; recipes here: toybox_m, toybox_s"):
        toybox.parse(["--out", "x", "--recipe", "toybox_xl"])
    bad = tmp_path / "bad.yaml"
    bad.write_text("clip: 3\n")
    with pytest.raises(ConfigError, match="clip is no flag of `sora2 toybox`"):
        toybox.parse(["--out", "x", "--recipe", str(bad)])


def test_the_loader_configs_of_the_sets_compose():
    for name in ("toybox_s", "toybox_m"):
        data = compose_config([f"data={name}"]).data
        assert data["datasets"][0]["path"] == f"data/shards/{name}_latents/train"


def test_impossible_shapes_and_splits_are_refused_before_any_work(tmp_path):
    with pytest.raises(ShapeError, match="frames=32 is not 1"):
        toybox.main(["--out", str(tmp_path), "--frames", "32"])
    with pytest.raises(ShapeError, match="height=40 is not a multiple of 16"):
        toybox.main(["--out", str(tmp_path), "--height", "40"])
    with pytest.raises(ConfigError, match="--cameo-clips: none of the scenes bounce has this split"):
        toybox.main(["--out", str(tmp_path), "--cameo-clips", "4"])
    assert list(tmp_path.iterdir()) == []


def test_workers_do_not_change_the_whole_world(tmp_path):
    flags = ["--world", "whole", "--clips", "10", "--frames", "13", "--scenes", "bounce", "cradle", "weather"]
    one = run(tmp_path / "one", *flags)
    assert contents(run(tmp_path / "two", *flags, "--workers", "2")) == contents(one)


def test_the_catalogue_shows_every_style_and_split(tmp_path):
    flags = ["--frames", "9", "--height", "32", "--width", "32", "--scenes", "occlude"]
    assert toybox.main(["--catalogue", str(tmp_path), *flags]) == 0
    page = (tmp_path / "index.html").read_text()
    for name in (*STYLES, *CAMERAS, *LIGHTS, "test_compositional", "test_physics_ood"):
        assert name in page
    for source in re.findall(r'src="([^"]+)"', page):
        assert (tmp_path / source).stat().st_size > 500
    clip = read_clip(tmp_path / "scenes-occlude.mp4")
    assert clip.video.shape[0] == 9 and clip.audio is not None
