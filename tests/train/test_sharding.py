"""A network spread over processes learns what one that each of them holds learns, and stops and goes on like it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import Shard, distribute_tensor

from sora2.config import ConfigError
from sora2.model import Transformer, TransformerConfig
from sora2.train import checkpoint
from sora2.train.agreement import any_process
from sora2.train.compose import compose_config
from sora2.train.optimizer import orthogonalize
from sora2.train.parts import Turns, assign, local, whole
from sora2.train.recipe import Recipe
from sora2.train.run import train
from sora2.train.sharding import shard
from sora2.types import Batch, Modality, clean_modality
from tests.train.test_resume import assert_same_state
from tests.worlds import training_overrides, write_latents

PROCESSES = 3
ROWS = 7  # not a multiple of the processes: they hold 3, 3 and 1


@pytest.fixture(scope="module")
def half_silent(world) -> Path:
    """Where batches of one clip differ in what they hold: one process meets parameters that the other does not."""
    return write_latents(world / "half_silent", world / "codecs", silent=2)


def run(world: Path, name: str, processes: int, batch: int, **extra: object) -> Path:
    """Train in processes of its own, as a user does."""
    settings = {
        "trainer.accelerator": "cpu",
        "trainer.devices": processes,
        "data.batch_size": batch,
        "optimizer.name": "muon",
        "ema.sigma_rel": "[0.05,0.1]",
        **extra,
    }
    command = [sys.executable, "-m", "sora2.cli", "train", *training_overrides(world, name, **settings)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return world / "runs" / name


def assert_close_weights(a: Path, b: Path, atol: float) -> None:
    first, second = (checkpoint.load(checkpoint.newest(p / "checkpoints"))["state_dict"] for p in (a, b))
    for key, value in first.items():
        assert torch.allclose(value, second[key], atol=atol), key


def test_spread_over_two_processes_it_learns_the_same_bit_for_bit(world, half_silent):
    """Weights, both optimizers' states and averages; attention by patterns, clips without sound, and validation in
    between."""
    data = {
        "model.attention.layers": "[{window: [1, 1, 1], video_hears_seconds: 0.3}, {top_k: 2}]",
        "model.attention.tile": "[1, 1, 2]",
        "model.attention.flat_tile": 4,
        "data.datasets": f"[{{path: {half_silent}, weight: 1.0}}]",
        "data.require_audio": "false",
        "optimizer.grad_clip": "inf",  # the norm of parts is rounded in another order
    }
    held_out = {
        "validation.datasets": f"[{half_silent}]",
        "validation.clips": 4,
        "validation.every_samples": 16,
    }
    each = run(world, "each", 2, 1, **data, **{"trainer.strategy": "ddp"})
    spread = run(world, "spread", 2, 1, **data, **held_out, **{"trainer.strategy": "fsdp"})
    assert_same_state(each, spread)
    a, b = ((folder / "export/model.safetensors").read_bytes() for folder in (each, spread))
    assert a == b


@pytest.mark.gpu
@pytest.mark.skipif(
    not hasattr(FSDPModule, "set_reduce_scatter_unused_params"), reason="trainer=fsdp needs torch 2.13"
)
def test_one_gpu_that_gathers_its_weights_learns_the_same(world):
    on = {"trainer.accelerator": "gpu", "trainer.precision": "32-true"}
    plain = run(world, "gpu-plain", 1, 4, **on)
    spread = run(world, "gpu-spread", 1, 4, **on, **{"trainer.strategy": "fsdp"})
    assert_close_weights(plain, spread, atol=1e-5)


@pytest.mark.slow
def test_what_was_spread_goes_on_spread_or_not(world):
    whole_run = run(world, "unbroken", 2, 2, **{"trainer.strategy": "fsdp"})
    half = {"trainer.stop_at_samples": 24}
    for name, first, then in (("ff", "fsdp", "fsdp"), ("fd", "fsdp", "ddp"), ("df", "ddp", "fsdp")):
        run(world, name, 2, 2, **half, **{"trainer.strategy": first})
        assert checkpoint.newest(world / "runs" / name / "checkpoints").stem == "samples-000000000024"
        run(world, name, 2, 2, **{"trainer.strategy": then})
        weights = [
            checkpoint.load(checkpoint.newest(f / "checkpoints")) for f in (whole_run, world / "runs" / name)
        ]
        for key, value in weights[0]["state_dict"].items():
            assert torch.equal(value, weights[1]["state_dict"][key]), (name, key)


@pytest.mark.slow
def test_groups_that_hold_the_network_each_learn_the_same(world):
    each = run(world, "each-of-four", 4, 1, **{"trainer.strategy": "ddp"})
    groups = {
        "trainer.strategy": "fsdp",
        "trainer.shard_devices": 2,
        "trainer.activation_checkpointing": "true",
    }
    spread = run(world, "two-and-two", 4, 1, **groups)
    assert_close_weights(each, spread, atol=1e-6)


TINY = TransformerConfig(width=32, depth=2, heads=2, text_width=8, video_width=8, audio_width=8)


class Network(Recipe):
    averaged = ("network",)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def random_tokens() -> Modality:
    return clean_modality(torch.randn(1, 3, 8), torch.zeros(3, 3))


@pytest.mark.slow
def test_processes_that_share_sequences_learn_what_one_learns(world):
    """Spread and shared at once, two groups of two: as two processes with the batches of the groups."""
    each = run(world, "two", 2, 2, **{"trainer.strategy": "ddp"})
    both = {
        "trainer.strategy": "fsdp",
        "trainer.sequence_devices": 2,
        "trainer.activation_checkpointing": "true",
    }
    shared = run(world, "two-groups", 4, 2, **both)
    a, b = (checkpoint.load(checkpoint.newest(f / "checkpoints")) for f in (each, shared))
    assert a["sora2"]["samples_seen"] == b["sora2"]["samples_seen"] == 48
    assert a["TrainingData"] == b["TrainingData"]
    assert_close_weights(each, shared, atol=2e-5)  # steps of Muon from nothing magnify rounding


def in_each_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(ROWS, 5, generator=generator) for _ in range(4)]
    spread = [distribute_tensor(m, mesh, [Shard(0)]) for m in matrices]

    assert local(spread[0]).shape == ((3, 3, 1)[rank], 5)
    assert torch.equal(whole(spread[0]), matrices[0])
    assign(spread[0], matrices[1])
    assert torch.equal(whole(spread[0]), matrices[1])
    assign(spread[0], matrices[0])

    turns = Turns.of(spread[0])
    found = turns.apply(orthogonalize, [local(s) for s in spread], ROWS)
    for made, tensor, matrix in zip(found, spread, matrices, strict=True):
        local(tensor).copy_(made)
        assert torch.allclose(whole(tensor), orthogonalize(matrix), atol=1e-5)
    few = turns.apply(lambda m: 2 * m, [local(spread[0])], ROWS)  # one matrix: two processes have no turn
    assert torch.equal(few[0], 2 * local(spread[0]))

    assert any_process(rank == 1, False, True) == [True, False, True]

    recipe = Network(Transformer(TINY, generator))
    total = sum(p.numel() for p in recipe.parameters())
    shard(recipe, torch.device("cpu"), PROCESSES, PROCESSES)
    assert sum(local(p).numel() for p in recipe.parameters()) < 0.4 * total
    with torch.no_grad():
        recipe.network(Batch(**{name: random_tokens() for name in ("text", "video", "audio")}))
    held = sum(local(p).numel() for p in recipe.parameters())  # and no more after it was used
    assert held < 0.4 * total
    dist.destroy_process_group()


def test_parts_of_three_processes(tmp_path):
    """Tensors come together, whole matrices are worked on in turns, and what one process knows all know."""
    mp.spawn(in_each_process, (str(tmp_path),), PROCESSES)


def test_one_process_decides_alone_and_holds_everything():
    matrices = [torch.randn(4, 3) for _ in range(2)]
    found = Turns.of(matrices[0]).apply(orthogonalize, matrices, 4)
    for made, matrix in zip(found, matrices, strict=True):
        assert torch.allclose(made, orthogonalize(matrix), atol=1e-6)
    assert any_process(True, False) == [True, False]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "present",
    [
        ("video", "audio"),
        ("text", "video"),
        ("text", "audio"),
        ("text", "reference_video", "video", "audio"),
        ("text", "reference_audio", "video"),
    ],
)
def test_idle_parameters_are_those_without_a_gradient(present, shared):
    model = Transformer(replace(TINY, shared_ffn=shared, shared_modulation=shared))
    found = model(Batch(**{name: random_tokens() for name in present}))
    torch.stack([v.sum() for v in found.values()]).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without and model.idle_parameters(present) == without


def test_settings_that_do_not_fit_are_refused(world):
    for wrong, message in (
        (
            {"trainer.strategy": "fsdp", "trainer.shard_devices": 3},
            "shard_devices=3 must divide the 4 devices",
        ),
        ({"trainer.strategy": "ddp", "trainer.shard_devices": 2}, "a setting of trainer.strategy=fsdp"),
        ({"trainer.sequence_devices": 3}, "sequence_devices=3 must divide the 4 devices"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(compose_config(training_overrides(world, "no", **wrong, **{"trainer.devices": 4})))

    with pytest.raises(ConfigError, match=r"Linear has no list of `blocks`: use trainer=ddp"):
        shard(Network(nn.Linear(2, 2)), torch.device("cpu"), 2, 2)
