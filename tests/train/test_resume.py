"""Resume is exact: N + M steps equal N steps, kill -9, M steps, bitwise, mid-epoch and under accumulation."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sora2.config import ConfigError
from sora2.kernels import CpuKernelError, use_cpu_kernels
from sora2.train import checkpoint
from sora2.train.compose import compose_config
from sora2.train.run import train
from tests.worlds import training_overrides


def run(world: Path, name: str, **extra) -> Path:
    return train(compose_config(training_overrides(world, name, **extra)))


def flatten(value, prefix=""):
    if isinstance(value, dict):
        return {k2: v2 for k, v in value.items() for k2, v2 in flatten(v, f"{prefix}{k}/").items()}
    if isinstance(value, list | tuple):
        return {k2: v2 for i, v in enumerate(value) for k2, v2 in flatten(v, f"{prefix}{i}/").items()}
    return {prefix: value}


def assert_same_state(a: Path, b: Path) -> None:
    """Weights, optimizer moments, EMA and the place in the data, bit for bit."""
    first, second = (checkpoint.load(checkpoint.newest(p / "checkpoints")) for p in (a, b))
    parts = ("state_dict", "optimizer_states", "TrainingData")
    left = {part: flatten(first[part]) for part in parts} | {"ema": first["sora2"]["ema"]}
    right = {part: flatten(second[part]) for part in parts} | {"ema": second["sora2"]["ema"]}
    for part in left:
        assert left[part].keys() == right[part].keys()
        for key, value in left[part].items():
            other = right[part][key]
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert same, f"{part} {key} differs"


def test_killed_and_resumed_equals_uninterrupted_under_accumulation(world):
    """Epochs of 40 clips, steps of 2 x 4: killed soon after the first checkpoint, in the middle of an epoch."""
    extra = {"trainer.max_samples": 408, "trainer.accumulate": 2, "ema.sigma_rel": "[0.05,0.1]"}
    whole = run(world, "whole", **extra)

    overrides = training_overrides(world, "killed", **extra)
    process = subprocess.Popen(
        [sys.executable, "-m", "sora2.cli", "train", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    folder = world / "runs/killed/checkpoints"
    deadline = time.monotonic() + 120
    while checkpoint.newest(folder) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    newest = checkpoint.newest(folder)
    assert newest is not None and newest.stem < "samples-000000000400", process.stdout.read().decode()[-2000:]
    resumed = run(world, "killed", **extra)
    assert_same_state(whole, resumed)
    weights = [load_file(str(p / "export/model.safetensors")) for p in (whole, resumed)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_ctrl_c_ends_between_steps_with_a_checkpoint_and_exit_code_130(world):
    extra = {"trainer.max_samples": 400, "trainer.checkpoint_every_samples": 100_000}
    process = subprocess.Popen(
        [sys.executable, "-m", "sora2.cli", "train", *training_overrides(world, "ctrl-c", **extra)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = world / "runs/ctrl-c/logs/from-000000000000/metrics.csv"
    deadline = time.monotonic() + 120
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output[-2000:]
    newest = checkpoint.newest(world / "runs/ctrl-c/checkpoints")
    assert newest is not None and newest.stem < "samples-000000000400"
    resumed = run(world, "ctrl-c", **extra)
    assert_same_state(run(world, "no-ctrl-c", **extra), resumed)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopping_at_every_step_changes_nothing(world, optimizer):
    extra = {"optimizer.name": optimizer, "trainer.max_samples": 24}
    whole = run(world, f"one-go-{optimizer}", **extra)
    for samples in range(4, 25, 4):
        stepwise = run(world, f"stepwise-{optimizer}", **extra, **{"trainer.stop_at_samples": samples})
    assert_same_state(whole, stepwise)


def test_training_learns(world):
    """The logged loss falls on data that can be learned by heart. Plain velocities: the latents are white noise, whose
    best linear guess is all that most levels leave to know."""
    plain = {"model.video_spread": [], "model.audio_spread": []}
    folder = run(
        world,
        "learns",
        **{"trainer.max_samples": 1000, "optimizer.lr": 3e-3, "trainer.precision": "32-true", **plain},
    )
    rows = (folder / "logs/from-000000000000/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss/main")
    losses = [float(r.split(",")[column]) for r in rows[1:]]
    assert sum(losses[-30:]) < 0.96 * sum(losses[:30])


def test_rendering_samples_changes_nothing_that_is_learned(world):
    plain = run(world, "plain", **{"trainer.max_samples": 24})
    rendered = run(
        world, "rendered",
        **{"trainer.max_samples": 24, "trainer.render_every_samples": 12, "trainer.render_prompts": "[a ball]"},
    )  # fmt: skip
    assert_same_state(plain, rendered)
    assert sorted(p.name for p in (rendered / "samples/000000000012").iterdir()) == ["00.mp4", "00.png"]


def test_another_model_cannot_resume(world):
    run(world, "preset")
    with pytest.raises(ConfigError, match=r"model\.depth: checkpoint 2, this run 1"):
        run(world, "preset", **{"model.depth": 1})


def test_resume_false_refuses_to_overwrite(world):
    run(world, "kept")
    with pytest.raises(ConfigError, match="already holds checkpoints"):
        run(world, "kept", resume="false")


def test_a_damaged_checkpoint_is_named(world):
    folder = run(world, "damaged")
    newest = checkpoint.newest(folder / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{newest.name} cannot be read"):
        run(world, "damaged")


def test_a_resumed_run_keeps_the_precision_that_auto_chose(world, monkeypatch):
    extra = {"trainer.max_samples": 16, "trainer.checkpoint_every_samples": 8, "trainer.precision": "auto"}
    monkeypatch.setattr("sora2.kernels.bf16.has_fast_bf16", lambda: True)
    folder = run(world, "auto", **extra, **{"trainer.stop_at_samples": 8})
    monkeypatch.setattr("sora2.kernels.bf16.has_fast_bf16", lambda: False)
    run(world, "auto", **extra)
    saved = checkpoint.load(checkpoint.newest(folder / "checkpoints"))["sora2"]
    assert saved["samples_seen"] == 16
    assert saved["config"]["trainer"]["precision"] == "bf16-mixed"


def test_a_resumed_run_keeps_its_cpu_kernels(world, monkeypatch, capsys):
    extra = {"trainer.max_samples": 16, "trainer.checkpoint_every_samples": 8}
    monkeypatch.setenv("SORA2_CPU_KERNELS", "plain")
    folder = run(world, "kernels", **extra, **{"trainer.stop_at_samples": 8})
    assert "kernels  plain: SORA2_CPU_KERNELS=plain" in capsys.readouterr().out
    monkeypatch.setenv("SORA2_CPU_KERNELS", "auto")
    with pytest.raises(ConfigError, match=r"trainer.cpu_kernels: checkpoint 'plain', this run 'compiled'"):
        try:
            run(world, "kernels", **extra, **{"trainer.cpu_kernels": "compiled"})
        except CpuKernelError as error:
            pytest.skip(str(error))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        text.replace("  cpu_kernels: plain\n", "")
    )  # as runs of before wrote it
    run(world, "kernels", **extra)
    saved = checkpoint.load(checkpoint.newest(folder / "checkpoints"))["sora2"]
    assert saved["samples_seen"] == 16 and saved["config"]["trainer"]["cpu_kernels"] == "plain"
    monkeypatch.delenv("SORA2_CPU_KERNELS")
    use_cpu_kernels()
