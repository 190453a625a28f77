"""Toybox shards: the same bytes from any number of workers, after any interruption."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sora2.commands import toybox
from sora2.data import DataError, RawDataset
from sora2.toybox import Toybox, ToyboxConfig

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
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
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
