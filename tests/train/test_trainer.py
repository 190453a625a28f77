"""What a user of `sora2 train` relies on beside resume: guards, plans, errors, processes."""

from __future__ import annotations

import csv
import itertools
import re
import subprocess
import sys

import pytest
import torch
import yaml
from filelock import FileLock
from safetensors.torch import load_file

from sora2.cli import main
from sora2.codecs import load_codec
from sora2.codecs.quotes import quoted
from sora2.codecs.quotes import spoken as spoken_words
from sora2.codecs.speech_text import MARKS
from sora2.codecs.text import text_modality
from sora2.config import ConfigError
from sora2.errors import UserError
from sora2.generate import Pipeline, Request
from sora2.generate.checkpoint import CheckpointError, load_model, open_codecs, read_checkpoint
from sora2.studies.path_loss import path_losses
from sora2.train import checkpoint, step
from sora2.train.compose import compose_config
from sora2.train.config import OptimizerConfig
from sora2.train.module import NonFiniteError, TrainingModule, keyed_generator, learning_rate
from sora2.train.recipe import Progress
from sora2.train.run import train
from tests.worlds import save_tiny_codecs, training_overrides, write_latents


def test_only_what_is_named_learns_and_a_name_that_is_nowhere_is_refused(world):
    first = train(compose_config(training_overrides(world, "first-half")))
    more = {"init_from": first / "export", "train_only": "[.text]", "optimizer.name": "muon"}
    then = train(compose_config(training_overrides(world, "words", **more)))
    before, after = (load_file(folder / "export/model.safetensors") for folder in (first, then))
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved and all(".text" in name for name in moved)
    with pytest.raises(ConfigError, match="train_only"):
        train(compose_config(training_overrides(world, "words", **more | {"train_only": "[.audio]"})))
    with pytest.raises(UserError, match=r"train_only.*'\.txet'"):
        train(compose_config(training_overrides(world, "typo", **more | {"train_only": "[.txet]"})))


def test_a_model_learns_to_read_speech_from_one_that_had_none(world, monkeypatch):
    """It begins as what it comes from wherever nothing is said, and with letters that it can tell from each other."""
    first = train(compose_config(training_overrides(world, "no-speech")))
    folder = write_latents(
        world / "spoken", world / "codecs", caption='says "hello"', text_encoder="bytes+speech"
    )
    more = {
        "init_from": first / "export",
        "init_fresh": "[timed_text]",
        "model.timed_text": 3,
        "codecs.text": "bytes+speech",
        "data.datasets": f"[{{path: {folder}, weight: 1.0}}]",
        "data.max_text_tokens": 0,
    }
    still = {"optimizer.lr": 1e-12, "optimizer.weight_decay": 0.0}
    spoken = train(compose_config(training_overrides(world, "speech", **more, **still)))
    before, after = (load_file(run / "export/model.safetensors") for run in (first, spoken))
    name = "project_in.text.weight"
    old = before[name].shape[1]
    assert torch.allclose(after[name][:, :old], before[name], atol=1e-6)
    assert after[name].shape[1] == old + MARKS
    assert after[name][:, old:].std() == pytest.approx(before[name].square().mean().sqrt().item(), rel=0.05)
    made = [
        Pipeline.from_checkpoint(run / "export").generate([Request(prompt="a ball", seed=1)])[0]
        for run in (first, spoken)
    ]
    assert torch.equal(made[0].video, made[1].video)
    seen = []
    monkeypatch.setattr(
        "sora2.generate.pipeline.text_modality",
        lambda encoder, texts, *where: seen.append(texts[0]) or text_modality(encoder, texts, *where),
    )
    speaks = Pipeline.from_checkpoint(spoken / "export")
    film = speaks.generate([Request(prompt='says "hi"', seed=1)])[0]
    speaks.generate([Request(prompt='says "hi"', video=film, seed=1)])
    assert quoted(seen[0]) == ["hi"] and spoken_words(seen[0])[0].span is not None  # it is told when
    assert seen[1] == 'says "hi"'  # the mouth says when
    with pytest.raises(UserError, match=r"init_from.*project_in.text.weight does not fit"):
        train(
            compose_config(
                training_overrides(world, "back", **{"init_from": spoken / "export", "model.timed_text": 3})
            )
        )


@pytest.mark.parametrize(("looks_back", "every"), [(False, 4), (True, 4), (True, 1000)])
def test_a_nan_in_one_sample_stops_before_anything_of_it_is_stored_and_names_it(
    world, monkeypatch, looks_back, every
):
    monkeypatch.setattr(TrainingModule, "looks_back", looks_back)  # as on a CPU, as on a GPU
    name = f"nan-{looks_back}-{every}"
    folder = write_latents(world / "broken" / name, world / "codecs", broken=7)
    data = {
        "data.datasets": f"[{{path: {folder}, weight: 1.0}}]",
        "trainer.checkpoint_every_samples": every,
    }
    said = "Nothing of it was stored" if looks_back else "Nothing was updated"
    with pytest.raises(NonFiniteError, match=rf"(?s){said}.*clip-007"):
        train(compose_config(training_overrides(world, name, **data)))
    newest = checkpoint.newest(world / "runs" / name / "checkpoints")
    weights = {} if newest is None else checkpoint.load(newest)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_validation_is_of_the_averaged_weights_and_disturbs_nothing(world, capsys):
    held_out = {"validation.datasets": f"[{world / 'latents'}]", "validation.clips": 8}
    plain = train(compose_config(training_overrides(world, "unseen")))
    seen = train(
        compose_config(training_overrides(world, "seen", **held_out, **{"validation.every_samples": 16}))
    )
    for name, weight in load_file(plain / "export/model.safetensors").items():
        assert torch.equal(weight, load_file(seen / "export/model.safetensors")[name]), name
    rows = list(csv.DictReader(next((seen / "logs").glob("*/metrics.csv")).open()))
    measured = {int(r["step"]): float(r["validation/main"]) for r in rows if r.get("validation/main")}
    assert list(measured) == [16, 32, 48]
    assert "validation at 48 samples: main" in capsys.readouterr().err
    # another run that starts from the exported average and does not move measures the same
    again = {"init_from": seen / "export", "optimizer.lr": 1e-12, "optimizer.weight_decay": 0.0, "seed": 0}
    still = train(
        compose_config(
            training_overrides(world, "still", **held_out, **again, **{"validation.every_samples": 48})
        )
    )
    rows = list(csv.DictReader(next((still / "logs").glob("*/metrics.csv")).open()))
    last = [float(r["validation/main"]) for r in rows if r.get("validation/main")][-1]
    assert last == pytest.approx(measured[48], abs=1e-5)


def test_validation_needs_held_out_shards(world):
    with pytest.raises(ConfigError, match="name their folders"):
        train(compose_config(training_overrides(world, "none", **{"validation.every_samples": 16})))


def test_dry_run_prints_the_plan_and_writes_nothing(world, capsys):
    assert main(["train", *training_overrides(world, "dry", dry_run="true")]) == 0
    text = capsys.readouterr().out
    for word in ("parameters", "tokens", "GFLOP per sample", "GiB a device", "48 samples = 12 steps"):
        assert word in text
    assert not (world / "runs/dry").exists()


def test_the_whole_world_trains_on_its_own_codecs_and_long_captions(capsys):
    for experiment in ("toybox_s", "toybox_s_gpu"):
        overrides = [f"experiment={experiment}", "trainer.accelerator=cpu"]
        assert main(["train", *overrides, "dry_run=true", "name=never"]) == 0
        assert "276 = 80 text + 144 video + 52 audio" in capsys.readouterr().out
    config = compose_config(["experiment=toybox_s"])
    model = step.model_config(config, step.open_codecs(config))
    assert model.video_width == 256  # 64 channels in patches of 2 x 2
    assert max(model.video_spread) > 10 * min(model.video_spread)  # balanced: as much as pixels differ


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "trainer.max_smaples=3",
            "unknown config key 'trainer.max_smaples'; did you mean 'trainer.max_samples'",
        ),
        ("model.heads=3", "model.heads=3 does not divide model.width=32"),
        ("clip.frames=10", r"frames=10 is not 1 \+ 4 \* k"),
        ("model.patch_size=0", "model.patch_size=0 must be at least 1"),
        ("data.batch_size=0", "data.batch_size=0 must be at least 1"),
        ("data.workers=-1", "data.workers=-1 must be at least 0"),
        ("trainer.render_every_samples=0", "trainer.render_every_samples=0 must be at least 1"),
        ("trainer.keep_checkpoints=0", "trainer.keep_checkpoints=0 must be at least 1"),
        ("ema.snapshot_every_samples=0", "ema.snapshot_every_samples=0 must be at least 1"),
        ("model.patch_size=many", "model.patch_size='many' must be int"),
        ("+data.patch_size=1", "data.patch_size=1 is not a setting: set model.patch_size"),
        ("model.video_width=48", r"model.video_width=48, but a video token of .* has 128\s+numbers"),
        ("codecs.video=nowhere", "codec folder nowhere does not exist"),
        ("data.datasets=[{path: nowhere}]", "nowhere"),
        ("optimizer.decay_fraction=0", "optimizer.decay_fraction=0.0 must be above 0"),
        ("trainer.max_samples=many", "trainer.max_samples='many' must be int"),
        ("trainer.accelerator=gpu", "no CUDA device"),
        ("task.mixture.text_to_video=1", "text_to_video"),
        ("experiment=nothing", "experiment/nothing"),
        ("data.max_text_tokens=200", r"cuts prompts at 128 tokens, but .*set codecs.text_tokens=200"),
    ],
)
def test_bad_configs_end_with_one_line_that_names_key_and_remedy(world, capsys, override, message):
    if override.startswith("trainer.accelerator") and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["train", *training_overrides(world, "bad"), override]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert not (world / "runs/bad/checkpoints").exists()


def test_sampling_and_studies_take_prompts_as_long_as_training_had_them(world, tmp_path):
    for longest in (None, 40):
        name = f"long-{longest}"
        settings = training_overrides(
            world,
            name,
            **{
                "codecs.text_tokens": longest or "null",
                "trainer.max_samples": 4,
                "data.max_text_tokens": longest or 24,
            },
        )
        shards = world / "latents"
        if longest is not None:  # latents of a text encoder of that length
            caption = "a clip whose caption is long, number"
            shards = write_latents(
                tmp_path / "latents", world / "codecs", text_tokens=longest, caption=caption
            )
            settings.append(f"data.datasets=[{{path: {shards}, weight: 1.0}}]")
        train(compose_config(settings))
        export = world / "runs" / name / "export"
        assert open_codecs(read_checkpoint(export)).text.max_tokens == (longest or 128)
        found = path_losses(export, shards, 4, {"video": 3.0, "audio": 2.0}, tasks=("text_to_av",))
        assert all(value > 0 for value in found.values())


def test_latents_of_other_codecs_are_refused(world, capsys):
    other = world / "other"
    torch.manual_seed(1)
    save_tiny_codecs(other)
    from sora2.codecs.video_vae import VideoVAE, VideoVAEConfig

    VideoVAE(VideoVAEConfig(encoder_width=24)).save(other / "video")
    assert main(["train", *training_overrides(world, "stale"), f"codecs.video={other / 'video'}"]) == 2
    error = capsys.readouterr().err
    assert "sora2 encode" in error and "video" in error


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_export_is_the_average_and_the_sampler_reads_it(world, dtype):
    settings = {"trainer.export_dtype": dtype}
    folder = train(compose_config(training_overrides(world, f"export-{dtype}", **settings)))
    config = yaml.safe_load((folder / "export/config.yaml").read_text())
    assert config["samples_seen"] == 48 and config["model"]["width"] == 32
    saved = checkpoint.load(checkpoint.newest(folder / "checkpoints"))["sora2"]["ema"]
    weights = load_file(str(folder / "export/model.safetensors"))
    assert {value.dtype for value in weights.values()} == {getattr(torch, dtype)}
    assert all(torch.equal(v, saved[f"0.05/model.{name}"].to(v.dtype)) for name, v in weights.items())
    clip = Pipeline.from_checkpoint(folder / "export").generate([Request(prompt="a ball", seed=1)])[0]
    assert clip.video.shape == (9, 32, 32, 3) and clip.audio.shape == (2, 18_000)


def test_a_token_can_be_a_single_cell_of_the_latent(world):
    folder = train(compose_config(training_overrides(world, "cells", **{"model.patch_size": 1})))
    model = read_checkpoint(folder / "export").model
    assert model.patch_size == 1 and model.video_width == 32  # 32 channels
    clip = Pipeline.from_checkpoint(folder / "export").generate([Request(prompt="a ball", seed=1)])[0]
    assert clip.video.shape == (9, 32, 32, 3)
    losses = path_losses(
        folder / "export", world / "latents", 4, {"video": 3.0, "audio": 2.0}, tasks=("text_to_av",)
    )
    assert all(value > 0 for value in losses.values())


def test_an_export_in_8_bits_is_the_average_within_its_steps_and_is_read_by_all(world):
    settings = {"trainer.export_dtype": "int8"}
    folder = train(compose_config(training_overrides(world, "export-int8", **settings)))
    saved = checkpoint.load(checkpoint.newest(folder / "checkpoints"))["sora2"]["ema"]
    stored = load_file(str(folder / "export/model.safetensors"))
    assert {stored[n].dtype for n in stored if stored[n].ndim >= 2} == {torch.int8}
    model = load_model(read_checkpoint(folder / "export"))
    for name, value in model.state_dict().items():
        average = saved[f"0.05/model.{name}"]
        step = (
            average.flatten(1).abs().amax(1).view(-1, *[1] * (average.ndim - 1)) / 127
            if average.ndim > 1
            else 0
        )
        assert ((value - average).abs() <= 0.51 * step + 1e-3 * average.abs() + 1e-6).all(), name
    clip = Pipeline.from_checkpoint(folder / "export").generate([Request(prompt="a ball", seed=1)])[0]
    assert clip.video.shape == (9, 32, 32, 3)
    with pytest.raises(CheckpointError, match=r"8 bits, which a device map cannot spread.*--dtype bfloat16"):
        load_model(read_checkpoint(folder / "export"), device_map="auto")
    further = training_overrides(world, "further", init_from=str(folder / "export"))
    assert main(["train", *further]) == 0


@pytest.mark.parametrize(
    ("logger", "pattern"), [("tensorboard", "events.out.tfevents.*"), ("wandb", "run-*.wandb")]
)
def test_other_loggers_work_offline(world, logger, pattern):
    folder = train(compose_config([*training_overrides(world, f"log-{logger}"), f"logger={logger}"]))
    assert list((folder / "logs").rglob(pattern))


def test_schedule_depends_on_samples_alone():
    config = OptimizerConfig(lr=1.0, warmup_samples=100, schedule="cosine", final_lr_fraction=0.1)
    rates = [learning_rate(1.0, config, Progress(n, 1000)) for n in range(0, 1001, 10)]
    assert rates[0] < 0.02 and rates[10] == max(rates) and rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_a_stable_rate_knows_no_length_until_it_decays():
    config = OptimizerConfig(
        lr=1.0, warmup_samples=100, schedule="wsd", decay_fraction=0.25, final_lr_fraction=0.0
    )
    short, long = (
        [learning_rate(1.0, config, Progress(n, length)) for n in range(0, length + 1, 10)]
        for length in (1000, 2000)
    )
    assert short[:76] == long[:76] and short[10:76] == [1.0] * 66
    assert short[-1] == 0 and all(a > b for a, b in itertools.pairwise(short[75:]))
    assert short[80] == pytest.approx(1 - (50 / 250) ** 0.5)


def test_keyed_generators_are_independent_of_history():
    first = torch.randn(4, generator=keyed_generator(0, 0, 128))
    torch.randn(100)
    assert torch.equal(first, torch.randn(4, generator=keyed_generator(0, 0, 128)))
    assert not torch.equal(first, torch.randn(4, generator=keyed_generator(0, 1, 128)))


def test_a_codec_trains_through_the_same_command(world, tmp_path):
    assert (
        main(
            [
                "toybox",
                "--out",
                str(tmp_path / "raw"),
                "--clips",
                "8",
                "--validation-clips",
                "0",
                "--frames",
                "9",
                "--height",
                "32",
                "--width",
                "32",
            ]
        )
        == 0
    )
    overrides = [
        "experiment=codec_video", "name=codec", f"out={tmp_path}", f"data.datasets=[{{path: {tmp_path}/raw/train}}]",
        "trainer.max_samples=16", "trainer.log_every_steps=1", "trainer.peak_tflops=1.0", "trainer.threads=1",
        "codec.model.encoder_width=16", "codec.model.decoder_width=16", "codec.model.decoder_fine_width=16",
        "codec.model.encoder_fine_width=16", "data.window={frames: 5, height: 16, width: 16, share: 0.5}",
    ]  # fmt: skip
    assert main(["train", *overrides]) == 0
    codec = load_codec(tmp_path / "codec/export")
    latent = codec.encode(torch.rand(2, 3, 9, 32, 32) * 2 - 1)
    assert latent.shape == (2, 64, 3, 4, 4)
    again = [
        *overrides,
        "name=more",
        f"init_from={tmp_path / 'codec/export'}",
        "optimizer.lr=1e-9",
        "optimizer.name=muon",
    ]
    assert main(["train", *again, "optimizer.muon_lr=1e-9"]) == 0
    more = load_codec(tmp_path / "more/export")
    for name, weight in codec.named_parameters():
        assert torch.allclose(weight, more.get_parameter(name), atol=2e-3), name


@pytest.mark.slow
def test_two_processes_share_the_order_of_one(world):
    """Two ranks of half the batch walk through the data as one rank does. Noise is keyed by rank: weights differ."""
    overrides = training_overrides(
        world,
        "ddp",
        **{
            "trainer.devices": 2,
            "trainer.strategy": "ddp",
            "trainer.accelerator": "cpu",
            "data.batch_size": 2,
        },
    )
    done = subprocess.run(
        [sys.executable, "-m", "sora2.cli", "train", *overrides], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    saved = checkpoint.load(checkpoint.newest(world / "runs/ddp/checkpoints"))
    assert saved["sora2"]["samples_seen"] == 48 and saved["TrainingData"]["global_batch"] == 4
    single = train(compose_config(training_overrides(world, "single")))
    assert checkpoint.load(checkpoint.newest(single / "checkpoints"))["TrainingData"]["samples_seen"] == 48


def test_a_folder_is_trained_in_by_one_process(world):
    folder = world / "runs/claimed"
    folder.mkdir(parents=True)
    config = compose_config(training_overrides(world, "claimed"))
    with (
        FileLock(folder / "lock"),
        pytest.raises(ConfigError, match=r"another process trains in .*claimed: wait.*name="),
    ):
        train(config)
    assert [p.name for p in folder.iterdir()] == ["lock"]
    train(config)  # what a process left behind that is gone holds nothing
    assert (folder / "export/model.safetensors").is_file()


def test_unknown_command_and_config_error_type(capsys):
    assert main(["trian"]) == 2
    assert "unknown command 'trian'" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        compose_config(["nonsense.key=1"])


def test_sparse_attention_trains_from_the_config_and_its_export_is_streamed(world, capsys):
    """Windows, top-k and causality chosen by overrides: losses fall like any, and the export makes a longer clip."""
    rules = "[{window: [1, 1, 1], video_hears_seconds: 0.3}, {top_k: 2}]"
    extra = {
        "model.attention.tile": "[1, 1, 2]",
        "model.attention.flat_tile": 8,
        "model.attention.layers": rules,
    }
    extra |= {"trainer.max_samples": 16}
    config = training_overrides(world, "sparse", attention="streaming", **extra)
    assert main(["train", *config]) == 0
    said = capsys.readouterr().out
    assert re.search(r"attention  0\.\d+ of all pairs, causal by chunks of 0.5 s", said)
    weights = load_file(world / "runs/sparse/export/model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())
    pipeline = Pipeline.from_checkpoint(world / "runs/sparse/export")
    layers = pipeline.model.config.attention.layers
    assert layers[0].window == (1, 1, 1) and layers[1].top_k == 2
    clip = pipeline.generate([Request(prompt="clip", seconds=3.0)])[0]  # trained on 1.1 s
    assert clip.video.shape[0] == 24


def test_an_attention_that_cannot_be_is_named(world):
    with pytest.raises(ConfigError, match=r"model\.attention\.layers.*windw"):
        train(
            compose_config(
                training_overrides(world, "bad", **{"model.attention.layers": "[{windw: [1, 1, 1]}]"})
            )
        )
