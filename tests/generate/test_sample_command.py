"""`sora2 sample` as a person calls it: every task, its files, its record, and its errors."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from tiny import film, save_checkpoint, save_film

from sora2.cli import main as sora2
from sora2.commands.sample import main
from sora2.generate import RequestError
from sora2.kernels import has_fast_bf16
from sora2.media import read_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    save_checkpoint(folder)
    save_film(folder / "film.mp4")
    save_film(folder / "other.mp4", seed=1)
    save_film(folder / "silent.mp4", sound=False)
    Image.fromarray(film().video[0].numpy()).resize((80, 60)).save(folder / "start.png")
    box = torch.zeros(32, 32, dtype=torch.uint8)
    box[:16] = 255
    Image.fromarray(box.numpy()).save(folder / "mask.png")
    return folder


def run(folder, out, *flags):
    found = [str(folder / f) if (folder / f).exists() and "." in f else f for f in flags]
    return main(["--checkpoint", str(folder / "export"), "--device", "cpu", "--out", str(out), *found])


CASES = {
    "text_to_av": (["--prompt", "a ball", "--seconds", "2"], 16, True),
    "video_to_audio": (["--video", "silent.mp4"], 17, True),
    "audio_to_video": (["--audio", "film.mp4"], 17, True),
    "image_to_av": (["--image", "start.png", "--seconds", "1"], 8, True),
    "extend_forward": (["--video", "film.mp4", "--extend", "--seconds", "1"], 25, True),
    "extend_backward": (["--video", "film.mp4", "--extend-backward", "--seconds", "1"], 25, True),
    "loop": (["--video", "film.mp4", "--loop", "--seconds", "1"], 25, True),
    "inbetween": (["--inbetween", "film.mp4", "other.mp4", "--seconds", "0.5"], 38, True),
    "inpaint": (["--video", "film.mp4", "--mask", "mask.png", "--time-span", "0.5:1.5"], 17, True),
    "remix": (["--video", "film.mp4", "--strength", "0.5"], 17, True),
    "image_only": (["--task", "image_only", "--prompt", "a ball"], 1, False),
    "audio_only": (["--task", "audio_only", "--prompt", "rain"], None, True),
    "staircase": (["--task", "staircase", "--prompt", "a ball"], 17, True),
}


@pytest.mark.parametrize("task", CASES)
def test_every_task_from_the_command_line(folder, tmp_path, task):
    flags, frames, sound = CASES[task]
    out = tmp_path / "out.mp4"
    assert run(folder, out, *flags, "--seed", "5", "--steps", "2") == 0
    clip = read_clip(out)
    assert (None if clip.video is None else len(clip.video)) == frames
    assert (clip.audio is not None) == sound
    assert out.with_suffix(".sheet.png").stat().st_size > 5000
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["request"]["task"] == task and record["request"]["seed"] == 5
    assert record["request"]["sampling"]["steps"] == 2
    assert len(record["checkpoint_sha256"]) == 64 and set(record["codec_fingerprints"]) == {
        "video",
        "audio",
        "text",
    }
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or record["versions"]["torch"]


def test_the_record_repeats_the_clip(folder, tmp_path):
    run(
        folder,
        tmp_path / "a.mp4",
        "--prompt",
        "a ball",
        "--seed",
        "9",
        "--guidance",
        "2",
        "--audio-guidance",
        "1.5",
        "--reference-guidance",
        "2",
        "--audio-skip-guidance",
        "2.5",
        "--skip-layers",
        "1",
    )
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["dtype"] == ("bf16" if has_fast_bf16() else "fp32")
    arguments = record["arguments"]
    arguments[arguments.index("--out") + 1] = str(tmp_path / "b.mp4")
    main(arguments)
    a, b = read_clip(tmp_path / "a.mp4"), read_clip(tmp_path / "b.mp4")
    assert torch.equal(a.video, b.video) and torch.equal(a.audio, b.audio)
    guidance = json.loads((tmp_path / "a.json").read_text())["request"]["sampling"]["guidance"]
    assert guidance["text"] == {"video": 2.0, "audio": 1.5}
    assert guidance["reference"] == {"video": 2.0, "audio": 2.0}
    assert guidance["skip"] == {"video": 1.0, "audio": 2.5} and guidance["skip_layers"] == [1]


def test_prompts_file_and_seeds(folder, tmp_path):
    (tmp_path / "p.txt").write_text("a red ball\n\na blue ball\n")
    run(folder, tmp_path / "txt", "--prompts-file", str(tmp_path / "p.txt"), "--num", "2", "--seed", "3")
    names = sorted(p.name for p in (tmp_path / "txt").glob("*.mp4"))
    assert names == ["00000-seed3.mp4", "00000-seed4.mp4", "00001-seed3.mp4", "00001-seed4.mp4"]
    assert json.loads((tmp_path / "txt/00001-seed4.json").read_text())["request"]["prompt"] == "a blue ball"
    lines = [
        {"prompt": "x", "seconds": 1, "seed": 8, "name": "short"},
        {"video": str(folder / "silent.mp4"), "guidance": 1},
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run(folder, tmp_path / "jsonl", "--prompts-file", str(tmp_path / "p.jsonl"))
    assert read_clip(tmp_path / "jsonl/short-seed8.mp4").video.shape[0] == 8
    assert (
        json.loads((tmp_path / "jsonl/00001-seed0.json").read_text())["request"]["task"] == "video_to_audio"
    )


@pytest.mark.parametrize("shared", [[], ["--together"]], ids=["prompts", "tokens"])
def test_two_processes_share_the_prompts_or_each_clip(folder, tmp_path, shared):
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\n")
    command = [  # accelerate launch starts one process where there is no GPU, whatever number it is given
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("scripts/sample.py", "--device", "cpu"),
        *("--checkpoint", str(folder / "export"), "--prompts-file", str(tmp_path / "p.txt"), *shared),
    ]
    done = subprocess.run([*command, "--out", str(tmp_path / "two")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(".mp4") == 3  # each is made, or written, by one of them
    run(folder, tmp_path / "one", "--prompts-file", str(tmp_path / "p.txt"))
    for path in sorted((tmp_path / "one").glob("*.mp4")):
        other = read_clip(tmp_path / "two" / path.name)
        assert (read_clip(path).video.int() - other.video.int()).abs().float().mean() < 0.5
    assert len(list((tmp_path / "two").glob("*.mp4"))) == 3
    record = (tmp_path / "two/00000-seed0.json").read_text()
    assert ('"shared_by_processes": 2' in record) == bool(shared)


def test_existing_files_are_kept_unless_overwritten(folder, tmp_path):
    out = tmp_path / "out.mp4"
    run(folder, out, "--prompt", "a")
    before = out.read_bytes()
    with pytest.raises(RequestError, match="--overwrite"):
        run(folder, out, "--prompt", "b")
    assert out.read_bytes() == before
    run(folder, out, "--prompt", "b", "--overwrite")
    assert out.read_bytes() != before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--video", "gone.mp4"], "gone.mp4"),
        (["--video", "silent.mp4", "--extend"], "--silent"),
        (["--audio", "silent.mp4"], "silent.mp4"),
        (["--image", "film.mp4"], "--image"),
        (["--extend"], "--task extend_forward needs --video"),
        (["--image", "start.png", "--audio", "film.mp4"], "--audio cannot be used with --task image_to_av"),
        (["--size", "33x32"], "--size 33x32"),
        (["--prompts-file", "nowhere.txt"], "nowhere.txt"),
        (["--num", "0"], "--num 0"),
        (["--batch-size", "-1"], "--batch-size -1 must be at least 1"),
        (["--num", "2"], "--out"),
        (["--strength", "2", "--video", "film.mp4"], "--strength 2"),
        (["--guidance-interval", "0.9", "0.1"], "guidance.interval"),
        (["--skip-guidance", "2"], "guidance.skip_layers (--skip-layers)"),
        (["--skip-guidance", "2", "--skip-layers", "0", "9"], "layers [0, 9] cannot be skipped"),
        (["--steps", "0"], "steps=0"),
        (["--together"], "nobody to share with"),
        (["--audio-shift", "0"], "sampling.shift"),
        (["--audio-delay", "2"], "sampling.delay"),
        (["--mask", "gone.png", "--video", "film.mp4"], "gone.png"),
    ],
)
def test_bad_input_names_the_flag_and_writes_nothing(folder, tmp_path, capsys, flags, message):
    found = [str(folder / f) if (folder / f).exists() and "." in f else f for f in flags]
    arguments = [
        "--checkpoint",
        str(folder / "export"),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out.mp4"),
        *found,
    ]
    assert sora2(["sample", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [["--size", "64"], ["--time-span", "1"], ["--mask", "1,2,x,4"], ["--task", "juggle"]]
)
def test_malformed_flags_are_named(folder, tmp_path, capsys, flags):
    with pytest.raises(SystemExit):
        run(folder, tmp_path / "out.mp4", *flags)
    assert flags[0] in capsys.readouterr().err


def test_prompts_file_mistakes_name_the_line(folder, tmp_path):
    for text, message in (
        ('{"prompt": 1', "line 1"),
        ('{"prompt": "a"}\n{"promt": "b"}', "line 2.*promt"),
        ('{"prompt": "a"}\n\n{"seconds": "two"}', "p.jsonl, line 3: .*--seconds.*'two'"),
        ('{"video": "a.mp4", "mask": [0.2, 0.2, 0.6, 0.6]}', "line 1: 0.2 0.6 0.6 in .*--mask"),
        ("", "empty"),
    ):
        (tmp_path / "p.jsonl").write_text(text)
        with pytest.raises(RequestError, match=message):
            run(folder, tmp_path / "many", "--prompts-file", str(tmp_path / "p.jsonl"))


def test_missing_checkpoint(tmp_path, capsys):
    assert sora2(["sample", "--checkpoint", str(tmp_path / "no"), "--out", str(tmp_path / "o.mp4")]) == 2
    assert "--checkpoint" in capsys.readouterr().err
