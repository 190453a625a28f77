"""Encoding and its inspection: exact codecs give the clips back; stale or foreign things are refused."""

import shutil
from dataclasses import replace

import pytest
import torch
from synthetic_shards import ExactVideo, latent_meta, moving_clip, write_latents

from sora2.codecs import Codecs, build_text_encoder
from sora2.codecs.quotes import spoken
from sora2.codecs.text import text_modality
from sora2.commands import encode as encode_command
from sora2.commands import inspect as inspect_command
from sora2.data import DataError, LatentDataset, LoaderConfig, RawDataset, ShardWriter, build_loader
from sora2.data.captions import encode_captions
from sora2.data.encode import encode_shards
from sora2.data.loader import DatasetConfig
from sora2.data.raw import pack_clip
from sora2.media import read_clip


@pytest.fixture
def command_codecs(codecs, monkeypatch):
    """The commands load these codecs, whatever folder is named."""
    for command in (encode_command, inspect_command):
        monkeypatch.setattr(command, "load_codecs", lambda *_, **__: codecs)
    return codecs


def test_encode_then_inspect_gives_the_clips_back(raw, tmp_path, command_codecs):
    out, shown = tmp_path / "latents", tmp_path / "shown"
    assert encode_command.main([str(raw), "--out", str(out), "--batch-size", "3"]) == 0
    assert inspect_command.main([str(out), "--out", str(shown), "--keys", "r002", "r009"]) == 0
    original = RawDataset(raw)
    for row, key in ((2, "r002"), (9, "r009")):
        clip, back = original[row], read_clip(shown / f"{key}.mp4")
        error = (back.video.float() - clip.video.float()).pow(2).mean()
        assert 10 * torch.log10(255**2 / error) > 30
        assert (shown / f"{key}.png").stat().st_size > 1000
        if clip.audio is None:
            assert back.audio is None
        else:
            assert back.audio.shape == clip.audio.shape
            assert (back.audio - clip.audio).pow(2).mean() < 1e-3 * clip.audio.pow(2).mean()


def test_latents_feed_the_loader_with_masks_and_fingerprints(raw, tmp_path, codecs):
    out = tmp_path / "latents"
    assert sum(encode_shards(raw, out, codecs, batch_size=3)) == 10
    config = LoaderConfig((DatasetConfig(str(out)),), batch_size=5, require_audio=False)
    with build_loader(config, codecs.fingerprints()) as loader:
        batches = [next(loader), next(loader)]
    assert sorted(k for b in batches for k in b.keys) == [f"r{i:03d}" for i in range(10)]
    assert all(b.captions == tuple(f"colours {int(k[1:])}" for k in b.keys) for b in batches)
    assert sum(int(b.audio.mask.any(dim=1).sum()) for b in batches) == 8
    other = Codecs(ExactVideo("retrained"), codecs.audio, codecs.text)
    with pytest.raises(DataError, match="video: 'exact-video', the run uses 'retrained'"):
        build_loader(config, other.fingerprints())


def test_latents_do_not_depend_on_the_batch_or_on_interruptions(raw, tmp_path, codecs):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    list(encode_shards(raw, whole, codecs, batch_size=4))
    steps = encode_shards(raw, resumed, codecs, batch_size=1, workers=2)
    for _ in range(6):
        next(steps)
    steps.close()
    assert [p.name for p in resumed.glob("*.tar")] == ["shard-000000.tar"]
    first = (resumed / "shard-000000.tar").stat().st_mtime_ns
    list(encode_shards(raw, resumed, codecs, batch_size=2))
    assert (resumed / "shard-000000.tar").stat().st_mtime_ns == first
    for path in whole.iterdir():
        assert path.read_bytes() == (resumed / path.name).read_bytes()


def test_encoding_into_latents_of_other_codecs_is_refused(raw, tmp_path, codecs):
    out = tmp_path / "latents"
    list(encode_shards(raw, out, codecs))
    other = Codecs(ExactVideo("retrained"), codecs.audio, codecs.text)
    with pytest.raises(DataError, match=r"fingerprints.*--overwrite"):
        list(encode_shards(raw, out, other))
    list(encode_shards(raw, out, other, overwrite=True))
    assert LatentDataset(out).index.fingerprints["video"] == "retrained"


def test_encoding_clips_of_the_same_keys_that_hold_something_else_is_refused(tmp_path, codecs):
    clip = moving_clip("a")
    for name, told in (("first", clip), ("second", clip.replace(caption="corrected"))):
        with ShardWriter(tmp_path / name) as writer:
            writer.write(clip.key, pack_clip(told, crf=8))
    out = tmp_path / "latents"
    list(encode_shards(tmp_path / "first", out, codecs))
    with pytest.raises(DataError, match="--overwrite"):
        list(encode_shards(tmp_path / "second", out, codecs))


def test_clips_that_the_codecs_cannot_hold_are_refused_before_any_work(tmp_path, codecs):
    def shards(name: str, clip) -> str:
        with ShardWriter(tmp_path / name) as writer:
            writer.write(clip.key, pack_clip(clip, crf=8))
        return tmp_path / name

    out = tmp_path / "out"
    with pytest.raises(DataError, match="frames=6 is not 1 \\+ 4 \\* k"):
        list(encode_shards(shards("six", moving_clip("a", frames=6)), out, codecs))
    fast = moving_clip("b").replace(sample_rate=22050)
    with pytest.raises(DataError, match=r"sound of 22050 Hz.*--sample-rate 16000"):
        list(encode_shards(shards("fast", fast), out, codecs))
    with pytest.raises(DataError, match="name a codec with --audio-codec"):
        list(encode_shards(shards("good", moving_clip("c")), out, Codecs(codecs.video, None, codecs.text)))
    with pytest.raises(DataError, match="is the folder of the raw shards"):
        list(encode_shards(tmp_path / "good", tmp_path / "good", codecs))
    assert not out.exists()


@pytest.mark.parametrize("part", ["picture", "tar header"])
def test_a_broken_raw_clip_is_named(raw, tmp_path, codecs, part):
    dataset = RawDataset(raw)
    path = dataset.index.shard_path(5)
    data = bytearray(path.read_bytes())
    begin = int(dataset.index.offset[5, 0])
    if part == "picture":
        data[begin + 900] ^= 255
    else:
        data[begin - 512 : begin] = b"x" * 512
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"shard-000001.tar.*Delete"):
        list(encode_shards(raw, tmp_path / "out", codecs))
    assert [p.name for p in (tmp_path / "out").glob("*.tar")] == ["shard-000000.tar"]


def test_inspect_refuses_foreign_codecs_and_unknown_keys(raw, tmp_path, codecs, monkeypatch):
    out = tmp_path / "latents"
    list(encode_shards(raw, out, codecs))
    other = Codecs(ExactVideo("retrained"), codecs.audio, codecs.text)
    monkeypatch.setattr(inspect_command, "load_codecs", lambda *_, **__: other)
    with pytest.raises(DataError, match="made by other codecs"):
        inspect_command.main([str(out), "--out", str(tmp_path / "shown")])
    with pytest.raises(DataError, match="has no clip 'nobody'"):
        inspect_command.main([str(raw), "--out", str(tmp_path / "shown"), "--keys", "nobody"])


def test_encoding_follows_the_splits_of_a_dataset(raw, tmp_path, command_codecs):
    both = tmp_path / "both"
    shutil.copytree(raw, both / "train")
    shutil.copytree(raw, both / "validation")
    assert encode_command.main([str(both), "--out", str(tmp_path / "out")]) == 0
    assert len(LatentDataset(tmp_path / "out" / "validation")) == 10


def test_letters_of_known_words_lie_where_they_are_said(tmp_path):
    """Of most clips; the others keep quiet about it. As batches from the host, and from one stack."""
    metas = [
        latent_meta(f"t{i:02d}")
        | {"caption": 'says "hi yo"', "truth": {"events": [
            {"kind": "word", "word": word, "onset_seconds": at, "end_seconds": at + 0.2}
            for word, at in (("hi", 0.1 + i / 100), ("yo", 0.6))
        ]}}
        for i in range(20)
    ]  # fmt: skip
    old, new = write_latents(tmp_path / "old", metas), tmp_path / "new"
    encoder = build_text_encoder("bytes+speech", 32)
    assert sum(encode_captions(old, new, encoder)) == 20
    dataset = LatentDataset(new)
    timed = [s for s in (dataset[i] for i in range(20)) if s.seconds is not None]
    assert 10 <= len(timed) < 20
    for sample in timed:
        spans = [word.span for word in spoken(sample.caption)]
        first = 0.1 + int(sample.key[1:]) / 100
        assert spans[0] == pytest.approx((first, first + 0.2), abs=0.006)
        assert sample.seconds[-4:].tolist() == pytest.approx(
            [first + 0.05, first + 0.15, 0.65, 0.75], abs=0.006
        )
        assert not sample.seconds[:-4].any()
    settings = LoaderConfig((DatasetConfig(str(new)),), batch_size=20, max_text_tokens=32)
    for on_device in (False, True):
        with build_loader(replace(settings, on_device=on_device)) as loader:
            batch = next(loader)
        for row, caption in enumerate(batch.captions):
            alone = text_modality(encoder, [caption])
            n = alone.tokens
            assert torch.equal(batch.text.positions[row, :n], alone.positions[0])
            assert torch.equal(batch.text.latent[row, :n], alone.latent[0].bfloat16().float())
            assert batch.text.mask[row].sum() == n
    letters = build_text_encoder("bytes+letters", 32)
    list(encode_captions(old, tmp_path / "letters", letters))
    assert all(
        s.seconds is None and "<" not in s.caption
        for s in map(LatentDataset(tmp_path / "letters").__getitem__, range(20))
    )


def test_captions_that_lose_their_end_are_named(tmp_path, command_codecs, capsys):
    with ShardWriter(tmp_path / "raw") as writer:
        for key, caption in (("fits", "x" * 24), ("long", "x" * 25)):
            writer.write(key, pack_clip(moving_clip(key).replace(caption=caption), crf=8))
    assert (
        encode_command.main([str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--text", "bytes"]) == 0
    )
    assert "1 captions are longer than 24 text tokens and lost their end (long)" in capsys.readouterr().out


def test_other_captions_of_latents_leave_the_latents_as_they_are(raw, tmp_path, codecs, monkeypatch):
    first, second, again = (tmp_path / name for name in ("first", "second", "again"))

    def speaking(text: str) -> Codecs:
        return Codecs(codecs.video, codecs.audio, build_text_encoder(text, 24))

    monkeypatch.setattr(encode_command, "load_codecs", lambda video, audio, text, tokens: speaking(text))
    list(encode_shards(raw, first, codecs))
    assert encode_command.main([str(first), "--out", str(second), "--text", "bytes+speech"]) == 0
    list(encode_shards(raw, again, speaking("bytes+speech")))
    one, other, straight = (LatentDataset(folder) for folder in (first, second, again))
    assert other.index.fingerprints == straight.index.fingerprints == speaking("bytes+speech").fingerprints()
    assert other.index.geometry == straight.index.geometry
    for row in range(len(one)):
        a, b, c = one[row], other[row], straight[row]
        assert torch.equal(a.video, b.video) and (a.audio is None or torch.equal(a.audio, b.audio))
        assert torch.equal(b.text, c.text) and b.text.shape[1] > a.text.shape[1]
        assert one.meta(row)["caption"] == other.meta(row)["caption"] == b.caption
    stamp = (second / "shard-000001.tar").stat().st_mtime_ns
    assert encode_command.main([str(first), "--out", str(second), "--text", "bytes+speech"]) == 0
    assert (second / "shard-000001.tar").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match=r"fingerprints.*--overwrite"):
        encode_command.main([str(first), "--out", str(second), "--text", "bytes"])
    with pytest.raises(DataError, match="is the folder of the latents"):
        encode_command.main([str(first), "--out", str(first), "--text", "bytes"])
