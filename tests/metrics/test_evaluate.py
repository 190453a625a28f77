"""`sora2 evaluate` as a person uses it."""

import json

import numpy as np
import pytest
import torch

from sora2.cli import main
from sora2.commands import evaluate
from sora2.generate import Grid, SamplingConfig, World
from sora2.media import read_clip, write_clip
from sora2.metrics.controls import Item, codec_round_trip, real_items, shuffled_audio
from sora2.metrics.evaluation import Evaluation
from sora2.metrics.registry import select_metrics
from sora2.metrics.sources import commanded
from sora2.metrics.task_requests import CONDITIONS
from sora2.metrics.values import MetricError, MetricValue
from sora2.toybox import Toybox, ToyboxConfig


class BlurryCodecs:
    """Stands for a codec bundle: loses a little of the picture, a little of the sound."""

    def video_shape(self, frames, height, width, fps, *, patch_size):
        return fps

    def audio_shape(self, seconds):
        return 16000

    def weights_digest(self):
        return "those of a pencil"

    def encode_clip(self, clip):
        return {"video": clip.video, "audio": clip.audio}

    def decode_clip(self, video, audio, fps, sample_rate):
        from sora2.types import Clip

        padded = torch.cat([0.99 * audio, torch.zeros(audio.shape[0], 120)], dim=1)
        return Clip(video=video // 4 * 4, audio=padded + 1e-3, fps=fps, sample_rate=sample_rate)


class PerfectPipeline:
    """Stands for a generator that has learned the toybox: draws the train clip of its seed."""

    batch_size = 4
    info = {"checkpoint_sha256": "abc"}  # noqa: RUF012
    codecs = BlurryCodecs()
    world = World(Grid(64, 64, 16.0, 16000, 2), 33, 4, 16, SamplingConfig())

    def generate(self, requests):
        box = Toybox(ToyboxConfig(split="test"))
        by_caption = {c.caption: c for c in box.clips(range(4))}
        return [by_caption[r.prompt].replace(meta={"task": "text_to_av"}) for r in requests]


def test_real_clips(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", "--real", "--clips", "4", "--show", "1", "--quiet", "--out", str(out)]) == 0
    result = json.loads((out / "metrics.json").read_text())
    assert result["order"] == ["real", "shuffled audio", "frozen frame"]
    assert result["command"].startswith("sora2 evaluate --real") and "torch" in result["versions"]
    clip = result["rows"]["real"]["clips"][0]
    assert clip["prompt"] and clip["metrics"]["gravity_error"]["status"] == "measured"
    frozen = result["rows"]["frozen frame"]["summary"]["gravity_error"]
    assert frozen["value"]["estimate"] is None and "fails a gate" in next(iter(frozen["reasons"]))
    assert result["rows"]["frozen frame"]["gates"]["not frozen"] == 4
    assert set(result["rows"]["real"]["corpus"]["mmd_motion"]) >= {"value", "status", "reason"}
    assert "av_offset" in (out / "table.md").read_text()
    for name in ("overview.png", "offsets.png", "f1.png", "gravity.png"):
        assert (out / "plots" / name).stat().st_size > 5000
    assert "<video" in (out / "index.html").read_text()
    assert "gravity_error" in capsys.readouterr().out


def test_a_checkpoint_with_codecs(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "load_pipeline", lambda args: PerfectPipeline())
    out = tmp_path / "out"
    arguments = [
        "--checkpoint",
        "x",
        "--clips",
        "3",
        "--seeds",
        "2",
        "--show",
        "2",
        "--quiet",
        "--out",
        str(out),
    ]
    assert main(["evaluate", *arguments]) == 0
    result = json.loads((out / "metrics.json").read_text())
    rows = result["rows"]
    assert result["order"] == ["generated", "real", "codec round trip", "shuffled audio", "frozen frame"]
    assert [c["seed"] for c in rows["generated"]["clips"]] == [0, 1] * 3
    assert rows["generated"]["summary"]["tracked_color"]["success"]["clusters"] == 3
    assert rows["generated"]["summary"]["tracked_color"]["value"]["estimate"] == 1.0
    assert "video_psnr" not in rows["generated"]["summary"]
    assert 35 < rows["codec round trip"]["summary"]["video_psnr"]["value"]["estimate"] < 50
    films = sorted((out / "clips" / "generated").glob("*.mp4"))
    assert len(films) == 6
    again = tmp_path / "again"  # the clips that were kept give the same numbers
    arguments = [
        "--folder",
        str(out / "clips" / "generated"),
        "--no-controls",
        "--quiet",
        "--out",
        str(again),
    ]
    assert main(["evaluate", *arguments]) == 0
    repeated = json.loads((again / "metrics.json").read_text())["rows"]["generated"]["summary"]
    assert repeated["tracked_color"]["value"]["estimate"] == 1.0
    assert repeated["av_offset"]["value"]["estimate"] == pytest.approx(0, abs=5)
    assert repeated["av_offset"]["success"]["clusters"] == 3


def test_a_folder_with_bad_films(tmp_path, capsys, clips):
    folder = tmp_path / "films"
    folder.mkdir()
    for clip in clips[:2]:
        write_clip(clip, folder / f"{clip.key}.mp4")
        truth = commanded(clip.meta["truth"])
        (folder / f"{clip.key}.json").write_text(json.dumps({"caption": clip.caption, "truth": truth}))
    whole = (folder / f"{clips[0].key}.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.mp4").write_bytes(b"")
    write_clip(clips[2].replace(audio=None), folder / "mute.mp4")
    write_clip(clips[3], folder / "odd.mp4")
    (folder / "odd.json").write_text("{not json")
    out = tmp_path / "out"
    arguments = ["--folder", str(folder), "--no-controls", "--quiet", "--out", str(out)]
    assert main(["evaluate", *arguments]) == 0
    row = json.loads((out / "metrics.json").read_text())["rows"]["films"]
    outcome = {c["key"]: c["metrics"] for c in row["clips"]}
    assert len(outcome) == 6
    assert "cannot be read" in outcome["broken"]["av_offset"]["reason"]
    assert "cannot be read" in outcome["empty"]["tracked_color"]["reason"]
    assert "odd.json is not JSON" in outcome["odd"]["tracked_color"]["reason"]
    assert outcome["mute"]["av_offset"]["reason"] == "the clip has no audio"
    assert outcome["mute"]["tracked_color"]["reason"] == "the clip has no truth"
    assert outcome[clips[0].key]["tracked_color"]["value"] == 1.0
    success = row["summary"]["tracked_color"]
    assert (success["measured"], success["clips"]) == (2, 6)
    assert success["success"]["estimate"] == pytest.approx(2 / 6)
    assert "broken.mp4 counts as a failure" in capsys.readouterr().out


def test_films_are_told_apart_by_folder_and_never_taken_for_a_control_row(tmp_path, clips):
    folder = tmp_path / "real"
    for place, clip in (("a", clips[0]), ("b", clips[1])):
        (folder / place).mkdir(parents=True)
        write_clip(clip, folder / place / "0.mp4")
    out = tmp_path / "out"
    arguments = [
        "--folder",
        str(folder),
        "--clips",
        "2",
        "--metrics",
        "flicker",
        "--quiet",
        "--out",
        str(out),
    ]
    assert main(["evaluate", *arguments]) == 0
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert {"folder real", "real"} <= rows.keys()
    assert [c["key"] for c in rows["folder real"]["clips"]] == ["a--0", "b--0"]
    assert rows["folder real"]["summary"]["flicker"]["value"]["clusters"] == 2


def test_metrics_of_a_set_alone_are_something_measured():
    values = {"mmd_motion": MetricValue(0.1, "measured")}
    assert Evaluation({}, {}, summaries={"films": {}}, corpora={"films": values}).measured_anything("films")
    assert not Evaluation({}, {}, summaries={"films": {}}, corpora={"films": {}}).measured_anything("films")
    chosen, of_set = select_metrics(["word_error_rate", "gravity_response"])
    assert list(chosen) == ["word_accuracy", "gravity_error"] and list(of_set) == [
        "word_error_rate",
        "gravity_response",
    ]


def test_nothing_measurable_is_an_error_after_the_page(tmp_path, capsys):
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"not a film")
    out = tmp_path / "out"
    assert main(["evaluate", "--folder", str(folder), "--no-controls", "--quiet", "--out", str(out)]) == 2
    assert "nothing could be measured in films: cannot be read" in capsys.readouterr().err
    assert (out / "index.html").exists() and (out / "metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "{}/none"], "there is no such folder"),
        (["--folder", "{}"], "holds no .mp4"),
        (["--real", "--metrics", "beauty"], "unknown metric beauty: choose from"),
        (["--real", "--clips", "0"], "--clips 0 must be at least 1"),
        (["--real", "--split", "tset"], "split='tset' is unknown"),
        (["--real", "--video-codec", "x"], "give both"),
        (["--checkpoint", "{}/none"], "no such folder"),
        (
            ["--real", "--expect-fps", "24", "--expect-sound"],
            "--expect-fps, --expect-sound: of films of --folder",
        ),
        (["--real", "--task", "loop", "--seeds", "2"], "--task, --seeds: of what a --checkpoint makes alone"),
    ],
)
def test_bad_input_is_named(tmp_path, capsys, arguments, message):
    arguments = [a.format(tmp_path) for a in arguments]
    assert main(["evaluate", *arguments, "--quiet", "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_list_names_all_metrics(capsys):
    assert main(["evaluate", "--list"]) == 0
    assert "av_offset [ms]" in capsys.readouterr().out


def test_shuffling_leaves_no_clip_its_own_sound(clips):
    for n in (2, 3, 7):
        items = real_items(clips[:n])
        for item, other in zip(items, shuffled_audio(items, seed=n), strict=True):
            assert not torch.equal(item.clip.audio, other.clip.audio)
            assert torch.equal(item.clip.video, other.clip.video)
    with pytest.raises(MetricError, match="at least 2"):
        shuffled_audio(real_items(clips[:1]))


def test_codec_row_keeps_length_and_reference(clips):
    (item,) = codec_round_trip(real_items(clips[:1]), BlurryCodecs())
    assert item.clip.audio.shape == clips[0].audio.shape and item.reference is clips[0]


def test_large_films_are_scaled_down(tmp_path, clips):
    from sora2.metrics.sources import folder_items

    big = np.repeat(np.repeat(clips[0].video.numpy(), 4, axis=1), 6, axis=2)
    write_clip(clips[0].replace(video=torch.from_numpy(big)), tmp_path / "big.mp4")
    (item,) = folder_items([tmp_path / "big.mp4"], tmp_path, seconds=1.0, shorter_side=64)
    assert item.clip.video.shape[1:3] == (64, 96)
    assert item.clip.seconds == pytest.approx(1.0, abs=0.07)
    assert read_clip(tmp_path / "big.mp4").video.shape[1] == 256


def test_an_interrupted_evaluation_continues(tmp_path, clips, monkeypatch):
    from sora2.metrics import measuring

    items = real_items(clips[:3])
    task = measuring.Task(("av_offset", "flicker"), ("motion",))
    file = tmp_path / "real.jsonl"
    first = list(measuring.measure_all(items, task, cache_file=file))
    cut = file.read_text()
    file.write_text(cut[: len(cut) - 40])  # killed while the last line was written
    calls = []
    original = measuring.measure
    monkeypatch.setattr(
        measuring, "measure", lambda item, task: calls.append(item.key) or original(item, task)
    )
    again = list(measuring.measure_all(items, task, cache_file=file))
    assert calls == [clips[2].key]
    assert [o.key for o in again] == [o.key for o in first]
    assert [o.values["av_offset"].value for o in again] == [o.values["av_offset"].value for o in first]
    assert again[0].features == first[0].features
    quieter = [Item(i.key, i.prompt, i.clip.replace(audio=0.5 * i.clip.audio), i.truth) for i in items]
    list(measuring.measure_all(quieter, task, cache_file=file))
    assert len(calls) == 4  # another sound under the same key is another clip


def test_worker_processes_give_the_same(clips):
    from sora2.metrics.measuring import Task, measure_all

    items, task = real_items(clips[:3]), Task(("av_offset", "gravity_error"))
    alone, together = (list(measure_all(items, task, workers=n)) for n in (1, 2))
    assert [o.values for o in alone] == [o.values for o in together]


def test_clips_made_before_an_interruption_are_not_made_again(tmp_path, monkeypatch):
    pipeline = PerfectPipeline()
    made = []
    generate = pipeline.generate
    pipeline.generate = lambda requests: made.extend(requests) or generate(requests)
    monkeypatch.setattr(evaluate, "load_pipeline", lambda args: pipeline)
    arguments = ["evaluate", "--checkpoint", "x", "--clips", "2", "--no-controls", "--metrics", "av_offset"]
    arguments += ["--show", "1", "--quiet", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0 and len(made) == 2
    measured = tmp_path / "out" / "measured" / "generated.jsonl"
    before = measured.read_text()
    assert main(arguments) == 0 and len(made) == 2
    assert measured.read_text() == before  # what is kept is what was measured
    (tmp_path / "out" / "clips" / "generated" / "bounce-test-000000001-seed0.mp4").unlink()
    assert main(arguments) == 0 and len(made) == 3
    assert main([*arguments, "--steps", "7"]) == 0 and len(made) == 5  # other settings are other clips
    pipeline.info = {**pipeline.info, "dtype": "bf16"}
    assert main([*arguments, "--steps", "7"]) == 0 and len(made) == 7  # and so is another dtype
    monkeypatch.setattr(BlurryCodecs, "weights_digest", lambda self: "those of a brush")
    assert main([*arguments, "--steps", "7"]) == 0 and len(made) == 9  # or another decoder
    given = [*arguments, "--task", "extend_forward", "--out", str(tmp_path / "given")]
    assert main(given) == 0 and len(made) == 11
    monkeypatch.setitem(CONDITIONS, "extend_forward", lambda clip, stride: {"audio": clip})
    assert main(given) == 0 and len(made) == 13  # or what is given of the real clip


@pytest.mark.parametrize(("task", "asked"), [("text_to_av", 0), ("extend_forward", 3)])
def test_paths_are_asked_where_the_condition_fixes_them(tmp_path, monkeypatch, task, asked):
    monkeypatch.setattr(evaluate, "load_pipeline", lambda args: PerfectPipeline())
    arguments = [
        "--checkpoint",
        "x",
        "--clips",
        "3",
        "--task",
        task,
        "--metrics",
        "position_error,permanence",
    ]
    assert (
        main(["evaluate", *arguments, "--no-controls", "--show", "0", "--quiet", "--out", str(tmp_path)]) == 0
    )
    summary = json.loads((tmp_path / "metrics.json").read_text())["rows"]["generated"]["summary"]
    assert summary.get("position_error", {"measured": 0})["measured"] == asked
    assert summary["permanence"]["value"]["estimate"] > 0.9
    if asked:
        assert summary["position_error"]["value"]["estimate"] < 3


def test_what_is_mixed_or_missing_is_said(tmp_path, capsys, clips):
    folder = tmp_path / "films"
    folder.mkdir()
    write_clip(clips[0], folder / "a.mp4")
    write_clip(clips[1].replace(fps=8.0, audio=clips[1].audio.repeat(1, 2)), folder / "b.mp4")
    write_clip(clips[2].replace(audio=None, sample_rate=0), folder / "c.mp4")
    out = tmp_path / "out"
    arguments = [
        "evaluate",
        "--folder",
        str(folder),
        "--no-controls",
        "--quiet",
        "--expect-fps",
        "16",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "mixed frame rates: 2 at 16, 1 at 8" in text
    assert "1 of 3 clips have no audio" in text and "1 of 3 clips fail a gate" in text
    row = json.loads((out / "metrics.json").read_text())["rows"]["films"]
    assert row["gates"]["frame rate"] == 1
    assert (
        row["corpus"]["av_f1_45_above_chance"]["reason"]
        == "1 clips have picture and sound; 4 are needed to shuffle them"
    )
    assert "mixed frame rates" in (out / "index.html").read_text()
    lines = (out / "clips.csv").read_text().splitlines()
    assert lines[0].startswith("row,key,prompt,seed,metric") and any(",av_offset," in line for line in lines)


def test_interventions_show_the_response(tmp_path, monkeypatch):
    class Obeys(PerfectPipeline):
        def generate(self, requests):
            from sora2.metrics.sources import intervened_clips

            box = Toybox(ToyboxConfig(split="test"))
            known = [*box.clips(range(2)), *intervened_clips(ToyboxConfig(split="test"), 3)]
            return [{c.caption: c for c in known}[r.prompt].replace(meta={}) for r in requests]

    monkeypatch.setattr(evaluate, "load_pipeline", lambda args: Obeys())
    arguments = ["--checkpoint", "x", "--clips", "2", "--interventions", "3", "--no-controls", "--show", "1", "--quiet",
                 "--metrics", "gravity_error,gravity_response,struck_material,material_response"]  # fmt: skip
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "out")]) == 0
    row = json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]["interventions"]
    assert row["corpus"]["gravity_response"]["value"] == pytest.approx(1, abs=0.05)
    assert len(row["clips"]) == 18
