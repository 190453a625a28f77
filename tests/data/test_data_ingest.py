"""Ingest of small films made here: every cut, filter, caption and split has a known answer."""

import json
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from sora2.codecs.quotes import spoken
from sora2.commands import ingest
from sora2.data import DataError, RawDataset, ShardIndex
from sora2.data.films import IngestConfig, load_films, plan_spans
from sora2.data.filters import Filters, black_share, frozen_share, loudness_db, reject
from sora2.data.shots import find_shots
from sora2.data.speech import caption_of
from sora2.errors import UserError
from sora2.media import write_clip
from sora2.types import Clip

FPS, RATE = 16.0, 16000
FLAGS = ["--frames", "9", "--size", "32", "48", "--workers", "2"]


def picture(kind: str, frames: int, seed: int) -> torch.Tensor:
    """(T, 48, 64, 3) uint8: a moving pattern of the seed's colours, its first frame throughout, or black."""
    t = torch.arange(frames)[:, None, None] / FPS
    if kind == "frozen":
        t = torch.zeros_like(t)
    y, x = torch.linspace(0, 4, 48)[None, :, None], torch.linspace(0, 5, 64)[None, None, :]
    channels = [
        torch.sin(2 * x + (seed + k) * y + 5 * t + seed) * 60 + 60 + 110 * ((seed + k) % 2) for k in range(3)
    ]
    video = torch.stack(channels, dim=-1).clamp(0, 255).to(torch.uint8)
    return torch.zeros_like(video) if kind == "black" else video


def film(path: Path, shots: list[tuple[str, int]], sound: bool = True) -> Path:
    """Shots of (kind, frames); kind "silent" moves without sound."""
    video = torch.cat([picture(kind, n, seed) for seed, (kind, n) in enumerate(shots)])
    parts = []
    for kind, n in shots:
        tone = 0.2 * torch.sin(torch.arange(int(n / FPS * RATE)) / RATE * 6.283 * 440)
        parts.append(torch.zeros_like(tone) if kind == "silent" else tone)
    audio = torch.cat(parts).expand(2, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = Clip(video=video, fps=FPS)
    return write_clip(clip.replace(audio=audio, sample_rate=RATE) if sound else clip, path)


@pytest.fixture
def folder(films: Path, tmp_path: Path) -> Path:
    """A copy of `films` that a test may change."""
    return Path(shutil.copytree(films, tmp_path / "films"))


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """One film with every fate a shot can have, one without sound, one in a subfolder."""
    folder = tmp_path_factory.mktemp("films")
    film(folder / "one.mp4", [("moving", 40), ("black", 24), ("frozen", 24), ("silent", 24), ("moving", 6)])
    film(folder / "mute.mp4", [("moving", 24)], sound=False)
    film(folder / "sub" / "two.mp4", [("moving", 24), ("moving", 24), ("moving", 24)])
    (folder / "one.txt").write_text("a pattern\nthat moves\n")
    (folder / "mute.txt").write_text("a pattern without sound")
    (folder / "sub" / "two.json").write_text(
        json.dumps(
            {
                "caption": "two",
                "licence": "CC-BY-4.0",
                "source": "somebody",
                "shots": [{"start": 1.5, "end": 3.0, "caption": "the middle shot"}],
            }
        )
    )
    return folder


def test_cuts_are_found_to_the_frame(folder):
    found = find_shots(folder / "one.mp4")
    assert [round(s.start * FPS) for s in found] == [0, 40, 64, 88, 112]
    assert round(found[-1].end * FPS) == 118
    assert all(a.end == b.start for a, b in pairwise(found))


def test_clips_are_filtered_for_counted_named_reasons(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert ingest.main([str(folder), "--out", str(out), "--licence", "CC0-1.0", *FLAGS]) == 0
    report = json.loads((out / "report.json").read_text())
    files = {f["file"]: f for f in report["files"]}
    assert files["one.mp4"]["dropped"] == {
        "short_shot": 1,
        "no_audio": 0,
        "silent": 2,
        "black": 2,
        "frozen": 2,
    }
    assert files["mute.mp4"]["dropped"]["no_audio"] == 2
    assert (files["one.mp4"]["train"], files["two.mp4"]["train"]) == (4, 6)
    assert report["dropped"] == {"short_shot": 1, "no_audio": 2, "silent": 2, "black": 2, "frozen": 2}
    assert len(report["dropped_clips"]) == 9
    printed = capsys.readouterr().out
    assert "1 short_shot, 2 no_audio, 2 silent, 2 black, 2 frozen" in printed
    assert len(ShardIndex.load(out / "train")) == 10
    assert not (out / "validation").exists()


def test_clips_keep_their_shape_caption_licence_and_source(folder, tmp_path):
    out = tmp_path / "out"
    ingest.main([str(folder), "--out", str(out), "--licence", "CC0-1.0", *FLAGS])
    dataset = RawDataset(out / "train")
    clips = {c.key: c for c in (dataset[i] for i in range(len(dataset)))}
    assert {c.video.shape for c in clips.values()} == {(9, 32, 48, 3)}
    assert {c.audio.shape for c in clips.values()} == {(2, 9000)}
    assert len(dataset.index.buckets) == 1
    assert clips["one-s0000-c000"].caption == "a pattern that moves"
    assert clips["one-s0000-c000"].meta["licence"] == "CC0-1.0"
    assert clips["one-s0000-c000"].meta["source"] == "one.mp4"
    assert [clips[f"sub_two-s000{k}-c000"].caption for k in range(3)] == ["two", "the middle shot", "two"]
    assert clips["sub_two-s0001-c001"].meta["licence"] == "CC-BY-4.0"
    assert clips["sub_two-s0001-c001"].meta["source"] == "somebody"


def test_words_of_a_film_go_to_the_clips_in_which_they_are_said(folder, tmp_path):
    words = [("Hello,", 0.1, 0.4), ("you", 0.7, 0.8), ("there", 1.6, 1.9)]
    speech = [{"word": word, "start": start, "end": end} for word, start, end in words]
    (folder / "sub" / "two.json").write_text(
        json.dumps({"caption": "two", "speech": speech, "person": "anna"})
    )
    ingest.main([str(folder), "--out", str(tmp_path / "out"), *FLAGS])
    dataset = RawDataset(tmp_path / "out" / "train")
    clips = {c.key: c for c in (dataset[i] for i in range(len(dataset)))}
    first, second, later = (clips[f"sub_two-{place}"] for place in ("s0000-c000", "s0000-c001", "s0001-c000"))
    assert first.caption == 'two, says "Hello,"' and second.caption == 'two, says "you"'
    begin = second.meta["start_seconds"]
    assert second.meta["person"] == "anna"
    assert second.meta["speech"] == [
        ["you", pytest.approx(0.7 - begin, abs=1e-3), pytest.approx(0.8 - begin, abs=1e-3)]
    ]
    assert later.caption == 'two, says "there"' and clips["one-s0000-c000"].caption == "a pattern that moves"
    timed = caption_of({**first.meta, "key": "k3", "caption": first.caption}, True)
    begin = first.meta["start_seconds"]
    assert spoken(timed)[0].letters == "hello,"
    assert spoken(timed)[0].span == pytest.approx((0.1 - begin, 0.4 - begin), abs=0.006)
    (folder / "sub" / "two.json").write_text(json.dumps({"caption": "two", "speech": [{"word": "no"}]}))
    with pytest.raises(DataError, match=r"two.json.*speech: \[\{word, start, end\}\]"):
        ingest.main([str(folder), "--out", str(tmp_path / "again"), *FLAGS])


def test_a_clip_shows_what_the_film_shows_at_its_time(folder, tmp_path):
    out = tmp_path / "out"
    ingest.main([str(folder), "--out", str(out), "--margin", "0", "--size", "48", "64", "--frames", "9"])
    dataset = RawDataset(out / "train")
    numbers = {key: i for i, key in enumerate(dataset.index.keys)}
    source = picture("moving", 40, 0).float()
    for k in range(4):
        clip = dataset[numbers[f"one-s0000-c{k:03d}"]]
        assert clip.meta["start_seconds"] == pytest.approx(k * 9 / FPS)
        error = (clip.video.float() - source[9 * k : 9 * k + 9]).abs().mean(dim=(1, 2, 3))
        shifted = (clip.video.float()[:-1] - source[9 * k + 1 : 9 * k + 9]).abs().mean()
        assert error.max() < 8 < shifted


def test_held_out_shots_share_nothing_with_training(folder, tmp_path):
    out = tmp_path / "out"
    ingest.main(
        [str(folder), "--out", str(out), "--holdout", "0.25", "--keep", "silent", "black", "frozen", *FLAGS]
    )
    shots = {}
    for split in ("train", "validation"):
        keys = ShardIndex.load(out / split).keys
        shots[split] = {key.rsplit("-", 1)[0] for key in keys}
    assert not shots["train"] & shots["validation"]
    assert (len(shots["train"]), len(shots["validation"])) == (
        5,
        2,
    )  # every 4th of 8 usable, one of them mute


def test_the_number_of_workers_changes_nothing(folder, tmp_path):
    for workers in ("1", "3"):
        ingest.main([str(folder), "--out", str(tmp_path / workers), *FLAGS[:-1], workers, "--holdout", "0.2"])
    for path in (tmp_path / "1").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "3" / path.relative_to(tmp_path / "1")).read_bytes()


def test_missing_captions_are_counted_and_named(folder, tmp_path):
    (folder / "one.txt").unlink()
    with pytest.raises(DataError, match=r"1 of 3 videos have no caption: one.mp4.*--caption"):
        ingest.main([str(folder), "--out", str(tmp_path / "out"), *FLAGS])
    ingest.main([str(folder), "--out", str(tmp_path / "out"), "--caption", "anything", *FLAGS])
    dataset = RawDataset(tmp_path / "out" / "train")
    captions = {dataset[i].caption for i in range(len(dataset))}
    assert captions == {"anything", "two", "the middle shot"}


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_film_is_named_and_earlier_results_stay(folder, tmp_path, damage):
    out = tmp_path / "out"
    ingest.main([str(folder), "--out", str(out), *FLAGS])
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    bad = folder / "bad.mp4"
    data = (folder / "one.mp4").read_bytes()
    bad.write_bytes(
        {"truncated": data[: len(data) * 2 // 3], "empty": b"", "text": b"not a film" * 100}[damage]
    )
    (folder / "bad.txt").write_text("x")
    with pytest.raises(UserError, match=r"bad.mp4"):
        ingest.main([str(folder), "--out", str(out), "--overwrite", *FLAGS])
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_existing_results_are_replaced_only_when_told(folder, tmp_path):
    out = tmp_path / "out"
    ingest.main([str(folder), "--out", str(out), *FLAGS])
    with pytest.raises(DataError, match=r"exists already.*--overwrite"):
        ingest.main([str(folder), "--out", str(out), *FLAGS])
    ingest.main([str(folder), "--out", str(out), "--overwrite", "--audio", "ignore", *FLAGS])
    assert {b.has_audio for b in ShardIndex.load(out / "train").buckets} == {False}


def test_a_folder_from_which_nothing_is_left_is_an_error(tmp_path):
    film(tmp_path / "in" / "dark.mp4", [("black", 24)])
    with pytest.raises(DataError, match="no clip was left: 2 black"):
        ingest.main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--caption", "", *FLAGS])
    assert not list((tmp_path / "out").iterdir())


def test_a_sidecar_with_unknown_keys_is_refused(folder, tmp_path):
    (folder / "sub" / "two.json").write_text('{"captoin": "typo"}')
    with pytest.raises(DataError, match=r"two.json cannot be read.*did you mean 'caption'"):
        ingest.main([str(folder), "--out", str(tmp_path / "out"), *FLAGS])


def test_filters_measure_what_they_name():
    moving = Clip(video=picture("moving", 9, 0), audio=torch.full((2, 100), 0.1), fps=FPS, sample_rate=RATE)
    assert loudness_db(moving.audio) == pytest.approx(-20, abs=0.01)
    assert reject(moving, Filters()) is None
    assert reject(moving, Filters(silent_below_db=-10)) == ("silent", pytest.approx(-20, abs=0.01))
    # a small ball on a still background is not frozen
    video = torch.full((9, 64, 64, 3), 90, dtype=torch.uint8)
    for k in range(9):
        video[k, 30:34, 4 * k : 4 * k + 4] = 200
    assert frozen_share(video, 3.0) == 0
    noise = torch.from_numpy(np.random.default_rng(0).integers(-1, 2, video.shape))
    still = (video[:1].long() + noise).clamp(0, 255).to(torch.uint8)
    assert frozen_share(still, 3.0) == 1
    half = torch.cat([video[:4], torch.zeros_like(video[:5])])
    assert black_share(half, 0.1) == pytest.approx(5 / 9)


def test_shot_times_are_those_of_variable_frame_rates(tmp_path):
    """A film whose second shot runs at half the frame rate: its cut is found at its true second."""
    path = tmp_path / "variable.mp4"
    video = torch.cat([picture("moving", 24, 0), picture("moving", 24, 1), picture("moving", 24, 2)])
    ticks = [*range(0, 24), *range(24, 72, 2), *range(72, 96)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 16)
        for frame, tick in zip(video.numpy(), ticks, strict=True):
            picture_frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture_frame.pts, picture_frame.time_base = tick, stream.codec_context.time_base
            container.mux(stream.encode(picture_frame))
        container.mux(stream.encode(None))
    assert [round(s.start, 2) for s in find_shots(path)] == [0.0, 1.5, 4.5]


def test_planning_uses_whole_clips_within_shots(folder):
    config = IngestConfig(frames=9, margin_seconds=0.05)
    films = load_films(folder, config)
    spans, dropped = plan_spans(films, config)
    by_name = {f.name: f for f in films}
    for span in spans:
        shot = by_name[span.film.name].shots[span.shot]
        assert shot.start <= span.start and span.start + config.clip_seconds <= shot.end
    assert [d["reason"] for d in dropped] == ["short_shot"]
