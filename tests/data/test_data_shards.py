"""Shards and their index: plain tars, whole or absent, errors that name the file and the remedy."""

import json
import subprocess
import sys

import pytest
import torch
import webdataset as wds
from synthetic_shards import latent_members, latent_meta, write_latents

from sora2.commands import inspect as inspect_command
from sora2.data import DataError, LatentDataset, ShardIndex, ShardWriter, find_shard_folders
from sora2.data.shards import begin_job


def test_shards_are_plain_webdataset_tars(latents):
    shards = sorted(str(p) for p in latents.glob("*.tar"))
    samples = list(wds.WebDataset(shards, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [f"k{i:03d}" for i in range(50)]
    assert json.loads(samples[7]["json"])["caption"] == "caption of k007"


def test_any_sample_is_read_by_its_offset(latents):
    dataset = LatentDataset(latents)
    for i in (49, 0, 23):
        sample = dataset[i]
        assert (sample.key, sample.caption) == (f"k{i:03d}", f"caption of k{i:03d}")
        assert (
            (sample.video == i).all() and (sample.audio == i).all() and sample.video.dtype == torch.bfloat16
        )
        assert dataset.meta(i)["licence"] == "CC0-1.0"


def test_identical_content_gives_identical_bytes(tmp_path):
    metas = [latent_meta(f"k{i:03d}") for i in range(10)]
    a, b = write_latents(tmp_path / "a", metas), write_latents(tmp_path / "b", metas)
    for path in sorted(a.iterdir()):
        assert path.read_bytes() == (b / path.name).read_bytes()


def test_an_exception_leaves_whole_shards_and_no_index(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "out", 4) as writer:
        for i in range(7):
            meta = latent_meta(f"k{i}")
            writer.write(meta["key"], latent_members(i, meta))
        raise KeyboardInterrupt
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["shard-000000.tar"]
    with pytest.raises(DataError, match=r"no index.json: the command that wrote it was interrupted"):
        ShardIndex.load(tmp_path / "out")
    assert inspect_command.main([str(tmp_path / "out"), "--reindex"]) == 0
    assert len(ShardIndex.load(tmp_path / "out")) == 4


def test_reindexing_gives_the_same_index(latents):
    before = (latents / "index.json").read_bytes()
    (latents / "index.json").unlink()
    assert inspect_command.main([str(latents), "--reindex"]) == 0
    assert (latents / "index.json").read_bytes() == before


def test_a_truncated_shard_is_named_with_the_remedy(latents):
    shard = latents / "shard-000003.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"shard-000003.tar has \d+ bytes, its index says \d+. Delete"):
        LatentDataset(latents)
    with pytest.raises(DataError, match=r"shard-000003.tar is truncated or broken"):
        ShardIndex.scan(latents)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-000003.tar is missing.*--reindex"):
        LatentDataset(latents)


def test_a_broken_member_is_named(latents):
    dataset = LatentDataset(latents)
    row = 30
    path = dataset.index.shard_path(row)
    data = bytearray(path.read_bytes())
    data[int(dataset.index.offset[row, 0]) + 400] ^= 1  # one flipped bit in the latent itself
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"shard-000003.tar: k030.safetensors is broken.*Delete"):
        LatentDataset(latents)[row]
    assert LatentDataset(latents)[row + 1].key == "k031"


def test_a_shard_without_all_members_is_refused(tmp_path):
    with wds.TarWriter(str(tmp_path / "shard-000000.tar")) as tar:
        tar.write({"__key__": "a", "safetensors": latent_members(0, latent_meta("a"))["safetensors"]})
    with pytest.raises(DataError, match=r"sample 'a' lacks \['json'\]"):
        ShardIndex.scan(tmp_path)


def test_a_folder_of_folders_is_found_and_a_wrong_one_explained(tmp_path):
    metas = [latent_meta("a"), latent_meta("b")]
    for split in ("train", "validation"):
        write_latents(tmp_path / split, metas)
    assert [p.name for p in find_shard_folders(tmp_path)] == ["train", "validation"]
    with pytest.raises(DataError, match=r"its folders \['train', 'validation'\] do"):
        ShardIndex.load(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        ShardIndex.load(tmp_path / "nothing")


def test_a_damaged_index_offers_reindexing(latents):
    (latents / "index.json").write_text("{")
    with pytest.raises(DataError, match="--reindex"):
        ShardIndex.load(latents)


def test_keys_are_unique_and_fit_for_tars(tmp_path):
    with pytest.raises(DataError, match="'a' occurs twice"):
        write_latents(tmp_path / "twice", [latent_meta("a"), latent_meta("a")], shard_size=1)
    with pytest.raises(DataError, match="must not contain"):
        write_latents(tmp_path / "dot", [latent_meta("a.b")])


def test_a_folder_of_another_job_is_not_touched(tmp_path):
    begin_job(tmp_path, {"seed": 0})
    write_latents(tmp_path, [latent_meta("a")])
    with pytest.raises(DataError, match="seed: 0 -> 1"):
        begin_job(tmp_path, {"seed": 1})
    assert len(begin_job(tmp_path, {"seed": 0})) == 1
    assert begin_job(tmp_path, {"seed": 1}, overwrite=True) == []


def test_leftovers_of_a_dead_process_are_removed(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    (tmp_path / f".shard-000000.tar.{child.stdout.strip()}.tmp").write_bytes(b"half")
    begin_job(tmp_path, {})
    assert not list(tmp_path.glob(".*.tmp"))
