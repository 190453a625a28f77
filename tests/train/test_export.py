"""`sora2 export`: what `sora2 train` writes at its end, from any checkpoint and at any width of the average."""

import re
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sora2.cli import main
from sora2.train import checkpoint
from sora2.train.compose import compose_config
from sora2.train.ema import reconstruct
from sora2.train.run import train
from sora2.weights import unpack
from tests.worlds import training_overrides


@pytest.fixture(scope="module")
def run(world):
    """A run of 48 samples with a checkpoint and a snapshot after each 16."""
    settings = {
        "trainer.checkpoint_every_samples": 16,
        "trainer.keep_checkpoints": 9,
        "ema.snapshot_every_samples": 16,
    }
    return train(compose_config(training_overrides(world, "exported", **settings)))


def weights(folder):
    return load_file(folder / "model.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_the_newest_checkpoint_gives_what_the_run_gave(run, tmp_path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "again")]) == 0
    assert "48 samples" in capsys.readouterr().out
    assert equal(weights(tmp_path / "again"), weights(run / "export"))
    described = [
        yaml.safe_load((f / "config.yaml").read_text()) for f in (tmp_path / "again", run / "export")
    ]
    assert described[0] == described[1]


def test_checkpointed_activations_change_no_name(run, world, tmp_path):
    """What is exported is read as usual, and a run may switch them on where it stands."""
    wrap = {"trainer.activation_checkpointing": "true"}
    wrapped = train(compose_config(training_overrides(world, "wrapped", **wrap)))
    assert weights(wrapped / "export").keys() == weights(run / "export").keys()
    assert main(["export", str(wrapped), "--out", str(tmp_path / "wrapped")]) == 0
    assert equal(weights(tmp_path / "wrapped"), weights(wrapped / "export"))
    copy = tmp_path / "runs" / "exported"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("lock"))
    overrides = training_overrides(
        world, "exported", **wrap, **{"trainer.max_samples": 64, "ema.snapshot_every_samples": 16}
    )
    onwards = train(compose_config([*overrides, f"out={tmp_path / 'runs'}"]))
    assert weights(onwards / "export").keys() == weights(run / "export").keys()


def test_earlier_other_widths_and_live_weights(run, tmp_path):
    def export(name, *flags):
        assert main(["export", str(run), "--out", str(tmp_path / name), *flags]) == 0
        return weights(tmp_path / name), yaml.safe_load((tmp_path / name / "config.yaml").read_text())

    early, told = export("early", "--samples", "16")
    assert told["samples_seen"] == 16 and not equal(early, weights(run / "export"))
    second, told = export("second", "--sigma-rel", "0.1")
    assert told["sigma_rel"] == 0.1 and not equal(second, weights(run / "export"))
    other, told = export("other", "--sigma-rel", "0.07")
    expected = {n.removeprefix("model."): v for n, v in reconstruct(run / "ema", 0.07).items()}
    assert told["sigma_rel"] == 0.07 and equal(other, expected)
    live, told = export("live", "--live")
    state = checkpoint.load(checkpoint.newest(run / "checkpoints"))["state_dict"]
    assert told["sigma_rel"] is None and all(
        torch.equal(v, state[f"recipe.model.{n}"]) for n, v in live.items()
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--samples", "17"], r"no checkpoint after 17 samples; there are: 16, 32, 48"),
        (["--live", "--sigma-rel", "0.1"], "leave --sigma-rel out"),
    ],
)
def test_what_cannot_be_is_said(run, tmp_path, capsys, flags, message):
    assert main(["export", str(run), "--out", str(tmp_path / "x"), *flags]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_an_export_in_another_dtype(run, tmp_path, capsys):
    small, back = tmp_path / "small", tmp_path / "back"
    assert main(["export", str(run / "export"), "--dtype", "int8", "--out", str(small)]) == 0
    assert "48 samples" in capsys.readouterr().out
    assert main(["export", str(run), "--dtype", "int8", "--out", str(tmp_path / "direct")]) == 0
    assert equal(weights(small), weights(tmp_path / "direct"))
    assert (
        yaml.safe_load((small / "config.yaml").read_text())["training"]["trainer"]["export_dtype"] == "int8"
    )
    assert main(["export", str(small), "--dtype", "float32", "--out", str(back)]) == 0
    assert equal(weights(back), unpack(weights(small)))
    assert (small / "model.safetensors").stat().st_size < (back / "model.safetensors").stat().st_size / 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--dtype alone can be chosen, and is missing"),
        (["--dtype", "int8", "--live"], "leave --live out"),
        (["--dtype", "int8", "--out", "itself"], "is the folder that is read"),
    ],
)
def test_of_an_export_the_dtype_alone_can_be_chosen(run, tmp_path, capsys, flags, message):
    before = weights(run / "export")
    flags = [str(run / "export") if f == "itself" else f for f in flags]
    assert main(["export", str(run / "export"), "--out", str(tmp_path / "x"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert equal(weights(run / "export"), before) and not (tmp_path / "x").exists()


def test_a_damaged_export_is_named_before_anything_is_written(run, tmp_path, capsys):
    cut, out = tmp_path / "cut", tmp_path / "out"
    shutil.copytree(run / "export", cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["export", str(cut), "--dtype", "int8", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert str(weights) in said and "is damaged" in said and "export the run again" in said
    assert not out.exists()
