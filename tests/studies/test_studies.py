"""Studies: what is refused before training, what is measured, that work goes on where it stopped, conclusions."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from threading import Lock

import matplotlib.pyplot as plt
import pytest
import torch
import yaml

import sora2.studies.path_loss as path_loss_module
import sora2.studies.run as runner_module
from sora2.cli import main
from sora2.config import ConfigError
from sora2.data import DataError, LatentDataset
from sora2.errors import UserError
from sora2.studies import Study, differences, load_study, read_study, sentence
from sora2.studies.config import STUDY_DIR, CellConfig
from sora2.studies.path_loss import path_losses
from sora2.studies.plots import plot_study
from sora2.studies.run import StudyRunner
from sora2.train.codec_problem import codec_config
from sora2.train.compose import compose_config
from tests.worlds import training_overrides, write_latents

STUDIES = sorted(path.stem for path in STUDY_DIR.glob("*.yaml"))


@pytest.fixture
def study(world, tmp_path):
    """A study of two runs of a few steps, in a folder of its own."""
    tiny = [o for o in training_overrides(world) if not o.startswith(("name=", "out="))]
    settings = {
        "question": "Does a lower rate learn less?",
        "base": "fast",
        "shards": {"held_out": str(world / "latents")},
        # noise is all that the shards hold, and its best linear guess would leave nothing to learn
        "overrides": [*tiny, "model.video_spread=[]", "model.audio_spread=[]"],
        "seeds": [0, 1],
        "clips": 16,
        "runs": {"fast": [], "slow": ["optimizer.lr=1.0e-6", "optimizer.muon_lr=1.0e-6"]},
    }
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump(settings))
    return read_study("rates", tmp_path)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_composes_and_its_runs_differ(name):
    found = read_study(name)
    asked = [tuple(found.train_overrides(run, 0)) for run in found.runs]
    assert len(set(asked)) == len(asked)
    assert found.question.endswith("?") and found.base in found.cells
    assert found.is_codec == (name == "codecs")


def test_each_cell_of_the_codec_study_differs_from_the_base_in_its_axis_alone():
    found = read_study("codecs")

    def settings(run):
        codec = codec_config(compose_config(found.train_overrides(run, 0)))
        return {**asdict(codec.model), **asdict(codec.loss)}

    base = settings("base")
    changed = {run: {n for n, v in settings(run).items() if v != base[n]} for run in found.runs}
    assert changed.pop("base") == set()
    assert changed.pop("adversarial") == {"adversarial", "features"}
    assert all(len(names) == 1 for names in changed.values())


def test_the_runs_of_the_joint_study_learn_one_thing_each_at_equal_cost():
    found = read_study("joint")
    configs = {run: compose_config(found.train_overrides(run, 0)) for run in found.runs}
    tasks = {run: {t for t, weight in c.task["mixture"].items() if weight} for run, c in configs.items()}
    assert tasks.pop("tasks") > {"text_to_av", "video_to_audio", "audio_to_video"}
    assert configs["tasks"].trainer.max_samples == configs["joint"].trainer.max_samples
    assert tasks == {
        "joint": {"text_to_av"},
        "pictures": {"text_to_av"},
        "foley": {"video_to_audio"},
        "sound": {"audio_only"},
    }
    assert configs["pictures"].task["modality_dropout"] == {"video": 0.0, "audio": 1.0}  # sound never there
    tokens = {"text": 24, "video": 144, "audio": 52}
    seen = {
        "joint": "text video audio",
        "foley": "text video audio",
        "pictures": "text video",
        "sound": "text audio",
    }
    cost = {
        run: configs[run].trainer.max_samples * sum(tokens[m] for m in names.split())
        for run, names in seen.items()
    }
    for first, second in (("pictures", "foley"), ("pictures", "sound")):
        assert cost[first] + cost[second] == pytest.approx(cost["joint"], rel=0.01)


def test_a_mistake_shows_before_anything_is_trained(tmp_path):
    good = {"question": "?", "base": "a", "shards": {"x": "y"}, "runs": {"a": []}}

    def read(**changes):
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({**good, **changes}))
        return read_study("wrong", tmp_path)

    read()
    with pytest.raises(ConfigError, match=r"there is no study 'missing'.*there are: wrong"):
        read_study("missing", tmp_path)
    with pytest.raises(ConfigError, match="base='b' is not one of the cells: a"):
        read(base="b")
    with pytest.raises(ConfigError, match=r"cells.c evaluates 'd'"):
        read(cells={"a": {}, "c": {"run": "d"}})
    with pytest.raises(ConfigError, match=r"runs.a: unknown config key 'optimizer.lrr'"):
        read(runs={"a": ["optimizer.lrr=1"]})
    with pytest.raises(ConfigError, match="nothing is measured"):
        read(shards={})
    with pytest.raises(ConfigError, match=r"cells.a.shards names 'z'.*shards: x"):
        read(cells={"a": {"shards": {"z": "y"}}})
    with pytest.raises(ConfigError, match=r"tasks=\['foley'\] must be some of text_to_av"):
        read(tasks=["foley"])
    with pytest.raises(ConfigError, match="seeds"):
        read(seeds=[0, 0])
    with pytest.raises(ConfigError, match="sound_task"):
        read(cells={"a": {"sound": "a", "sound_task": "foley"}})


def test_runs_are_trained_measured_recorded_and_not_done_twice(study, tmp_path, monkeypatch, capsys):
    record = tmp_path / "record.json"
    runner = StudyRunner("rates", study, tmp_path / "runs", record)
    runner.run(("fast", "slow"), (0,))
    first = json.loads(record.read_text())
    assert [(e["cell"], e["seed"]) for e in first["cells"]] == [("fast", 0), ("slow", 0)]
    fast, slow = first["cells"]
    loss = "held_out/text_to_av/video"
    assert fast["values"][loss] < slow["values"][loss] and math.isfinite(slow["values"][loss])
    assert fast["training"]["fast"]["samples"] == 48 and fast["training"]["fast"]["flops"] > 0
    # another seed later, or in another process: what is there stays, and is in the record
    calls = []
    real = runner_module.run_apart
    monkeypatch.setattr(runner_module, "run_apart", lambda *a, **k: (calls.append(a[0]), real(*a, **k))[1])
    StudyRunner("rates", study, tmp_path / "runs", record).run(("fast",), (0, 1))
    again = json.loads(record.read_text())
    assert calls == ["train"]
    assert [(e["cell"], e["seed"]) for e in again["cells"]] == [("fast", 0), ("fast", 1), ("slow", 0)]
    assert again["cells"][0] == fast
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        StudyRunner("rates", study, tmp_path / "runs", record, ("optimizer.lr=0.1",)).run(("fast",), (0,))
    with pytest.raises(ConfigError, match="--cells middle"):
        runner.run(("middle",), (0,))
    fewer = replace(
        study, clips=study.clips - 1
    )  # what was asked otherwise does not stand beside what is asked now
    StudyRunner("rates", fewer, tmp_path / "runs", record).run(("slow",), (0,))
    assert [(e["cell"], e["seed"]) for e in json.loads(record.read_text())["cells"]] == [("slow", 0)]
    assert "rates: fast, seed 1: left out" in capsys.readouterr().out


def test_several_processes_share_a_study(study, tmp_path, monkeypatch):
    """Two that ask for the same cells at once: every run is trained and every cell measured by one of them, and none
    stands still while the other trains."""
    trained, measured, at_once, counting = [], [], [0], Lock()

    def train(command, *asked, folder):
        name = next(a for a in asked if str(a).startswith("name="))
        trained.append(name)
        with counting:
            at_once.append(at_once[-1] + 1)
        time.sleep(0.3)
        with counting:
            at_once.append(at_once[-1] - 1)
        export = tmp_path / "runs" / "rates" / name.removeprefix("name=") / "export"
        export.mkdir(parents=True)
        (export / "model.safetensors").touch()

    monkeypatch.setattr(runner_module, "run_apart", train)
    monkeypatch.setattr(
        StudyRunner, "_values", lambda self, export, tasks, cell: (measured.append(export), {})[1]
    )

    def work(number):
        StudyRunner("rates", study, tmp_path / "runs", tmp_path / f"{number}.json").run(
            ("fast", "slow"), (0, 1)
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert sorted(trained) == [f"name={cell}-seed{seed}" for cell in ("fast", "slow") for seed in (0, 1)]
    assert len(measured) == 4
    assert max(at_once) == 2
    records = [json.loads((tmp_path / f"{n}.json").read_text())["cells"] for n in range(2)]
    assert [len(r) for r in records] == [4, 4]


def test_a_cell_may_be_measured_on_latents_of_its_own(study, tmp_path, monkeypatch):
    own = replace(study, cells={"fast": CellConfig(shards={"held_out": "elsewhere"}), "slow": CellConfig()})
    monkeypatch.setattr(StudyRunner, "_export", lambda self, run, seed: tmp_path / run)
    monkeypatch.setattr(StudyRunner, "_training", lambda self, run, seed: {})
    seen = {}
    monkeypatch.setattr(
        runner_module,
        "path_losses",
        lambda export, shards, *a, **k: seen.setdefault(export.name, shards) and {},
    )
    StudyRunner("rates", own, tmp_path / "runs", tmp_path / "record.json").run(("fast", "slow"), (0,))
    assert seen == {
        "fast": runner_module.ROOT / "elsewhere",
        "slow": runner_module.ROOT / study.shards["held_out"],
    }


def test_path_losses_are_the_same_every_time_and_of_the_sampler_alone(study, tmp_path):
    runner = StudyRunner("rates", study, tmp_path / "runs", tmp_path / "record.json")
    export = runner._export("fast", 0)
    shards = study.shards["held_out"]
    shift = {"video": 3.0, "audio": 2.0}
    found = path_losses(export, shards, 16, shift)
    assert found == path_losses(export, shards, 16, shift)
    assert found.keys() >= {"text_to_av/video", "text_to_av/audio", "video_to_audio/audio"}
    assert "video_to_audio/video" not in found
    assert found != path_losses(export, shards, 16, {"video": 1.0, "audio": 1.0})
    alone = path_losses(export, shards, 16, shift, tasks=("video_to_audio",))
    assert alone == {name: value for name, value in found.items() if name.startswith("video_to_audio")}


def test_own_pictures_are_told_from_those_of_another_clip_by_a_model_that_looks_at_them(
    study, tmp_path, monkeypatch
):
    """In place of a network: one that sees the clean pictures and knows the sound of each, and one that is blind."""
    export = StudyRunner("rates", study, tmp_path / "runs", tmp_path / "record.json")._export("fast", 0)
    shards, shift = study.shards["held_out"], {"video": 3.0, "audio": 2.0}
    known = {}  # a clip's pictures -> its sound

    class Looking(torch.nn.Module):
        def forward(self, batch):
            level = batch.audio.noise_level.unsqueeze(2)
            keys = [row.numpy().tobytes() for row in batch.video.latent]
            clean = torch.stack([known.get(k, torch.zeros_like(batch.audio.latent[0])) for k in keys])
            velocity = (batch.audio.latent - clean) / level.clamp_min(1e-3)  # exact where clean is its own
            return {"video": torch.zeros_like(batch.video.latent), "audio": velocity}

    class Blind(torch.nn.Module):
        def forward(self, batch):
            return {n: getattr(batch, n).latent * 0.5 for n in ("video", "audio")}

    real_example = path_loss_module.make_training_example

    def remember(batch, config, generator):
        known.update({row.numpy().tobytes(): clean for row, clean in zip(
            batch.video.latent.float(), batch.audio.latent.float(), strict=True)})  # fmt: skip
        return real_example(batch, config, generator)

    monkeypatch.setattr(path_loss_module, "make_training_example", remember)
    monkeypatch.setattr(path_loss_module, "load_model", lambda _: Looking())
    found = path_losses(export, shards, 16, shift, tasks=("video_to_audio",))
    assert found["video_to_audio/match"] == 1.0 and found["video_to_audio/gain"] > 0.9
    monkeypatch.setattr(path_loss_module, "load_model", lambda _: Blind())
    found = path_losses(export, shards, 16, shift, tasks=("video_to_audio", "audio_to_video"))
    assert found["video_to_audio/match"] == found["video_to_audio/gain"] == 0.0  # it never loses less
    assert found["audio_to_video/gain"] == 0.0


def test_own_words_are_told_from_those_of_another_clip_by_a_model_that_reads_them(
    world, study, tmp_path, monkeypatch
):
    export = StudyRunner("rates", study, tmp_path / "runs", tmp_path / "record.json")._export("fast", 0)
    shards = write_latents(tmp_path / "talk", world / "codecs", caption='rain, says "word {}"')
    shift, said = {"video": 3.0, "audio": 2.0}, ("audio_only",)
    dataset = LatentDataset(shards)
    known = {s.text.float().numpy().tobytes(): s.audio.float().T for s in map(dataset.__getitem__, range(40))}

    class Reading(torch.nn.Module):
        def forward(self, batch):
            keys = [t[m].numpy().tobytes() for t, m in zip(batch.text.latent, batch.text.mask, strict=True)]
            clean = torch.stack([known[k] for k in keys])
            level = batch.audio.noise_level.unsqueeze(2)
            return {"audio": (batch.audio.latent - clean) / level.clamp_min(1e-3)}

    monkeypatch.setattr(path_loss_module, "load_model", lambda _: Reading())
    found = path_losses(export, shards, 16, shift, tasks=said)
    assert found["audio_only/match"] == 1.0 and found["audio_only/gain"] > 0.9
    with pytest.raises(DataError, match="no two of the first 16 clips say something in quotes"):
        monkeypatch.undo()
        path_losses(export, study.shards["held_out"], 16, shift, tasks=said)


def made(values, base="a"):
    """A record of values[cell] = numbers by seed, with a metric that is ten times the value."""
    cells = [
        {
            "cell": cell, "says": cell.upper(), "seed": seed, "values": {"x": v},
            "scores": {"e": {"m": {"estimate": 10 * v}}},
        }
        for cell, numbers in values.items() for seed, v in enumerate(numbers)
    ]  # fmt: skip
    return Study({"base": base, "real": {"e": {"m": {"estimate": 12.0}}}, "cells": cells})


def test_differences_are_paired_by_seed():
    spread = [0.0, 5.0, 10.0]
    found = made({"a": spread, "b": [v + 1 + e for v, e in zip(spread, (-0.1, 0.0, 0.1), strict=True)]})
    (difference,) = differences(found, "x")
    assert difference.mean == pytest.approx(1.0)
    assert (
        0 < difference.low < difference.mean < difference.high and difference.clear
    )  # though seeds differ by 5
    # 95 % interval of Student's t with two degrees of freedom
    assert difference.high - difference.mean == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-3)
    assert differences(found, "e:m")[0].mean == pytest.approx(10.0)


def test_a_sentence_says_better_worse_or_nothing():
    found = made({"a": [1.0, 1.1, 0.9], "b": [2.0, 2.1, 1.9], "c": [0.5, 2.0, 1.0], "d": [3.0]})
    text = sentence(found, "x", "lower")
    assert "B: worse (+1.000" in text and "C: no clear difference" in text and "D: no clear" in text
    assert "one seed" in text and "against A" in text
    assert "B: better" in sentence(found, "x", "higher")
    with pytest.raises(UserError, match="'higher' or 'lower'"):
        sentence(found, "x", "bigger")
    table = found.table(["x", "e:m"])
    assert "real clips" in table and "12.000" in table


def test_a_study_that_was_not_run_says_how(tmp_path):
    with pytest.raises(UserError, match="run `sora2 study nothing`"):
        load_study("nothing", tmp_path)


def test_the_command_lists_studies_and_names_unknown_ones(capsys):
    assert main(["study", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in STUDIES)
    assert main(["study", "nothing"]) == 2
    assert "there is no study 'nothing'" in capsys.readouterr().err


def test_a_picture_has_a_panel_per_measure_and_a_row_per_cell():
    figure = plot_study(made({"a": [1.0, 2.0], "b": [3.0]}), ["x", "e:m"])
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == ["x", "e:m"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["A", "B"]
    plt.close(figure)
