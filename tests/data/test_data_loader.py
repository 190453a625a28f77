"""The loader: exact resume, any number of workers and ranks, pure buckets, honest errors."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from synthetic_shards import FINGERPRINTS, latent_meta, write_latents

from sora2.data import DataError, DatasetConfig, LoaderConfig, build_loader
from sora2.data.datasets import LatentDataset, RawDataset


def config(*folders, **changes) -> LoaderConfig:
    datasets = tuple(DatasetConfig(str(f)) for f in folders)
    return replace(LoaderConfig(datasets, batch_size=4, seed=1, max_text_tokens=8), **changes)


def keys(loader, batches: int) -> list[str]:
    with loader:
        return [k for _ in range(batches) for k in next(loader).keys]


def test_batches_hold_the_clean_tokens_of_their_keys(latents):
    with build_loader(config(latents), FINGERPRINTS) as loader:
        batch = next(loader)
    numbers = torch.tensor([float(k[1:]) for k in batch.keys])
    assert batch.video.latent.shape == (4, 8, 16)  # 2 latent frames of 4 x 4 cells in patches of 2 x 2
    assert batch.audio.latent.shape == (4, 10, 6)
    assert batch.text.latent.shape == (4, 8, 5)
    for modality in (batch.video, batch.audio):
        assert modality.latent.dtype == torch.float32
        assert (modality.latent == numbers[:, None, None]).all()
        assert modality.mask.all() and not modality.noise_level.any()
    assert batch.text.mask.sum(dim=1).tolist() == [3] * 4
    assert (batch.text.latent[:, :3] == numbers[:, None, None]).all()
    assert batch.captions == tuple(f"caption of {k}" for k in batch.keys)
    assert (batch.video.positions[0] == batch.video_shape.positions()).all()
    assert (batch.audio.positions[0] == batch.audio_shape.positions()).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(mixed, workers):
    alone = keys(build_loader(config(mixed, workers=0)), 30)
    assert keys(build_loader(config(mixed, workers=workers, prefetch=3)), 30) == alone


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_the_middle_of_an_epoch_continues_exactly(mixed, workers):
    whole = keys(build_loader(config(mixed, workers=workers)), 25)
    with build_loader(config(mixed, workers=workers)) as first:
        begin = [k for _ in range(11) for k in next(first).keys]
        state = first.state_dict()
    assert state["samples_seen"] == 44
    second = build_loader(config(mixed, workers=2 - workers))
    second.load_state_dict(state)
    assert begin + keys(second, 14) == whole


def test_rewinding_a_running_loader_replays_it(latents):
    with build_loader(config(latents, workers=2)) as loader:
        for _ in range(3):
            next(loader)
        state = loader.state_dict()
        ahead = [next(loader).keys for _ in range(5)]
        loader.load_state_dict(state)
        assert [next(loader).keys for _ in range(5)] == ahead


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_read_what_one_rank_reads(mixed, world_size):
    alone = keys(build_loader(config(mixed, batch_size=8)), 12)
    size = 8 // world_size
    ranks = [
        keys(build_loader(config(mixed, batch_size=size), None, r, world_size), 12) for r in range(world_size)
    ]
    joined = [k for step in range(12) for r in ranks for k in r[step * size : (step + 1) * size]]
    assert joined == alone


def test_state_survives_another_world_size(mixed, latents):
    whole = keys(build_loader(config(mixed, batch_size=8)), 10)
    with build_loader(config(mixed, batch_size=8)) as loader:
        for _ in range(4):
            next(loader)
        state = loader.state_dict()
    rank1 = build_loader(config(mixed, batch_size=4), None, 1, 2)
    rank1.load_state_dict(state)
    assert keys(rank1, 1) == whole[4 * 8 + 4 : 5 * 8]

    # one bucket: even another global batch goes on with the very next sample
    whole = keys(build_loader(config(latents, batch_size=8)), 10)
    loader = build_loader(config(latents, batch_size=6))
    loader.load_state_dict({**loader.state_dict(), "samples_seen": 32, "global_batch": 8})
    assert keys(loader, 8) == whole[32:80]


def test_state_that_would_change_the_order_is_refused(mixed, latents):
    with build_loader(config(mixed)) as loader:
        state = loader.state_dict()
    for changed, message in (
        (config(mixed, seed=2), "the seed changed"),
        (config(mixed, batch_size=8), "global_batch: 4 -> 8"),
        (config(latents), "the samples, their order"),
    ):
        with build_loader(changed) as other, pytest.raises(DataError, match=message):
            other.load_state_dict(state)


def test_batches_are_of_one_bucket(mixed):
    sizes = Counter()
    with build_loader(config(mixed)) as loader:
        for _ in range(24):
            batch = next(loader)
            odd = {int(k[1:]) % 2 for k in batch.keys}
            assert len(odd) == 1
            assert batch.video_shape.height == (32 if odd == {1} else 48)
            sizes[batch.video_shape.height] += 4
    assert abs(sizes[32] - sizes[48]) <= 8


def test_mixture_weights_are_honoured(tmp_path):
    a = write_latents(tmp_path / "a", [latent_meta(f"a{i:03d}") for i in range(40)])
    b = write_latents(tmp_path / "b", [latent_meta(f"b{i:03d}") for i in range(7)])
    datasets = (DatasetConfig(str(a), 1.0), DatasetConfig(str(b), 3.0))
    drawn = Counter(k[0] for k in keys(build_loader(LoaderConfig(datasets, batch_size=8)), 50))
    assert drawn["b"] / drawn.total() == pytest.approx(0.75, abs=0.01)


def test_the_first_clips_of_a_dataset_are_all_that_is_read(latents):
    everything = set(keys(build_loader(config(latents), FINGERPRINTS), 40))
    part = replace(config(latents), datasets=(DatasetConfig(str(latents), clips=6),))
    assert len(everything) > 6
    assert set(keys(build_loader(part, FINGERPRINTS), 40)) == set(sorted(everything)[:6])
    with build_loader(config(latents)) as whole, pytest.raises(DataError):
        build_loader(part).load_state_dict(whole.state_dict())
    for clips in (0, len(everything) + 1):
        with pytest.raises(DataError, match=f"clips={clips} of .* must be in 1 .. {len(everything)}"):
            build_loader(replace(part, datasets=(DatasetConfig(str(latents), clips=clips),)))


def test_of_a_dataset_its_sound_alone_fills_batches_of_its_own(latents, mixed):
    parts = (DatasetConfig(str(mixed), 0.5), DatasetConfig(str(latents), 0.5, streams=("audio",)))

    def opened(**changes):
        return build_loader(LoaderConfig(parts, batch_size=4, seed=1, max_text_tokens=8, **changes))

    with opened(cache_in_memory=True) as loader:
        batches = [next(loader) for _ in range(60)]
    alone = [b for b in batches if b.video is None]
    assert 20 <= len(alone) <= 40
    for batch in batches:
        assert {k[0] for k in batch.keys} == ({"k"} if batch.video is None else {"m"})
        assert batch.audio.mask.all() and batch.text.mask.any()
    numbers = torch.tensor([float(k[1:]) for k in alone[0].keys])
    assert (alone[0].audio.latent == numbers[:, None, None]).all() and alone[0].video_shape is None
    with opened() as first:
        begin = [next(first).keys for _ in range(11)]
        state = first.state_dict()
    second = opened(workers=2)
    second.load_state_dict(state)
    with second:
        assert begin + [next(second).keys for _ in range(9)] == [b.keys for b in batches[:20]]
    both = build_loader(config(mixed, latents))
    with both, pytest.raises(DataError, match="datasets"):
        both.load_state_dict(state)


@pytest.mark.parametrize(
    ("streams", "changes", "said"),
    [
        (("sound",), {}, r"streams=\['sound'\].*one or both of"),
        ((), {}, "one or both of"),
        (("audio",), {"on_device": True}, "on_device=false"),
        (("audio",), {"kind": "raw"}, "kind=latents"),
    ],
)
def test_streams_that_cannot_be_left_out_are_named(latents, streams, changes, said):
    parts = (DatasetConfig(str(latents), streams=streams),)
    with pytest.raises(DataError, match=said):
        build_loader(replace(config(latents), datasets=parts, **changes))


def test_clips_without_sound_are_an_error_or_masked(tmp_path):
    metas = [latent_meta(f"k{i:03d}", samples=4000 if i < 9 else 0) for i in range(12)]
    folder = write_latents(tmp_path / "some", metas)
    with pytest.raises(DataError, match=r"3 of 12 clips in .* have no audio.*k009.*k010.*k011"):
        build_loader(config(folder))
    with build_loader(config(folder, require_audio=False)) as loader:
        masked = 0
        for _ in range(3):
            batch = next(loader)
            for row, key in enumerate(batch.keys):
                silent = int(key[1:]) >= 9
                masked += silent
                assert batch.audio.mask[row].any() != silent
                assert batch.video.mask[row].all()
    assert masked == 3


def test_images_and_sound_alone_are_legal_when_allowed(tmp_path):
    metas = [latent_meta(f"i{i:03d}", frames=1, samples=0) for i in range(4)]
    metas += [latent_meta(f"s{i:03d}", frames=0) for i in range(4)]
    folder = write_latents(tmp_path / "parts", metas)
    with pytest.raises(DataError, match="have no video"):
        build_loader(config(folder, require_audio=False))
    with build_loader(config(folder, require_audio=False, require_video=False)) as loader:
        seen = set()
        for _ in range(4):
            batch = next(loader)
            seen.add((batch.video is None, batch.audio is None))
            assert batch.video is None or batch.video_shape.frames == 1
    assert seen == {(True, False), (False, True)}


def test_dropping_a_modality_is_tied_to_the_sample_position(latents):
    settings = config(latents, drop={"text": 0.3})

    def dropped(settings: LoaderConfig) -> list[bool]:
        with build_loader(settings) as loader:
            return [not m for _ in range(40) for m in next(loader).text.mask.any(dim=1).tolist()]

    rows = dropped(settings)
    assert sum(rows) / len(rows) == pytest.approx(0.3, abs=0.1)
    assert dropped(replace(settings, workers=2)) == rows


def test_the_cache_gives_the_same_batches(latents):
    plain = build_loader(config(latents))
    cached = build_loader(config(latents, cache_in_memory=True, workers=2))
    with plain, cached:
        for _ in range(30):
            a, b = next(plain), next(cached)
            assert a.keys == b.keys
            assert torch.equal(a.video.latent, b.video.latent) and torch.equal(a.text.latent, b.text.latent)


def test_latents_on_the_device_give_the_same_batches(latents, mixed):
    """Two datasets, one in part, with text dropped, after a resume."""
    changes = {
        "drop": {"text": 0.3},
        "datasets": (DatasetConfig(str(latents)), DatasetConfig(str(latents), 2.0, 20)),
    }
    plain = build_loader(config(latents, **changes))
    resident = build_loader(config(latents, **changes, on_device=True, workers=3))
    with plain, resident:
        for step in range(30):
            if step == 15:
                resident.load_state_dict(plain.state_dict())
            a, b = next(plain), next(resident)
            assert (a.keys, a.captions, a.video_shape) == (b.keys, b.captions, b.video_shape)
            assert a.modalities().keys() == b.modalities().keys() == {"text", "video", "audio"}
            for name, m in a.modalities().items():
                other = getattr(b, name)
                for part in ("latent", "positions", "noise_level", "mask"):
                    assert torch.equal(getattr(m, part), getattr(other, part)), (step, name, part)
    with pytest.raises(DataError, match=r"clips of one size .*5x32x32.*5x48x48.*data.on_device=false"):
        build_loader(config(mixed, on_device=True))
    with pytest.raises(DataError, match=r"data.max_text_tokens"):
        build_loader(config(latents, on_device=True, max_text_tokens=0))


def test_a_cache_larger_than_the_memory_is_refused_before_it_fills(raw, latents, monkeypatch):
    """What is announced is what decoded samples take; half of a set takes half."""
    clips = RawDataset(raw)
    needed = clips.held_bytes()
    decoded = [t for i in range(len(clips)) for t in (clips[i].video, clips[i].audio) if t is not None]
    assert needed == sum(t.nbytes for t in decoded)
    stored = LatentDataset(latents)
    kept = [t for i in range(len(stored)) for t in (stored[i].video, stored[i].audio, stored[i].text)]
    held = sum(t.nbytes for t in kept if t is not None)
    assert held <= stored.held_bytes() < held + 2000 * len(stored)  # headers
    clips.close()
    stored.close()
    settings = config(raw, kind="raw", require_audio=False, cache_in_memory=True)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=needed))
    with pytest.raises(
        DataError, match=r"would keep .* GB of decoded samples on cpu.*data.cache_in_memory=false"
    ):
        build_loader(settings)
    build_loader(replace(settings, cache_in_memory=False)).close()
    with monkeypatch.context() as scarce:
        scarce.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
        with pytest.raises(DataError, match=r"data.on_device=true would keep .*data.on_device=false"):
            build_loader(config(latents, on_device=True))
    half = replace(settings.datasets[0], clips=5)
    build_loader(replace(settings, datasets=(half,))).close()


def test_foreign_latents_say_what_to_rerun(latents):
    with pytest.raises(DataError, match=r"audio: 'a1', the run uses 'other'.*sora2 encode RAW --out"):
        build_loader(config(latents), {**FINGERPRINTS, "audio": "other"})


def test_captions_longer_than_the_config_are_refused(latents):
    with (
        build_loader(config(latents, max_text_tokens=2)) as loader,
        pytest.raises(DataError, match="max_text_tokens"),
    ):
        next(loader)


def test_raw_batches_hold_pixels_and_sound(raw):
    with pytest.raises(DataError, match="2 of 10 clips"):
        build_loader(config(raw, kind="raw"))
    with pytest.raises(DataError, match=r"data.on_device=true holds latents, not data.kind=raw"):
        build_loader(config(raw, kind="raw", on_device=True))
    with build_loader(
        config(raw, kind="raw", require_audio=False, cache_in_memory=True, workers=2)
    ) as loader:
        batches = [next(loader) for _ in range(5)]
    for batch in batches:
        assert batch["video"].shape == (4, 3, 5, 32, 32)
        assert batch["video"].min() >= -1 and batch["video"].max() <= 1
        for row, key in enumerate(batch["keys"]):
            assert batch["audio_mask"][row] == (int(key[1:]) < 8)
    assert sorted(k for b in batches for k in b["keys"])[::2] == [f"r{i:03d}" for i in range(10)]


@pytest.mark.parametrize("stream, other", [("video", "audio"), ("audio", "video")])
def test_only_the_streams_asked_for_are_decoded(raw, stream, other):
    settings = config(raw, kind="raw", require_audio=False, require_video=False)
    with build_loader(settings) as loader:
        both = next(loader)
    with build_loader(replace(settings, streams=(stream,))) as loader:
        one = next(loader)
    assert torch.equal(one[stream], both[stream]) and one["keys"] == both["keys"]
    assert other not in one
    with pytest.raises(DataError, match=r"data\.streams=\['pictures'\]"):
        build_loader(config(raw, kind="raw", streams=("pictures",)))


def test_latents_are_not_taken_for_raw_clips(latents):
    with pytest.raises(DataError, match="holds latents, but raw clips are needed"):
        build_loader(config(latents, kind="raw"))


def test_wait_seconds_count_the_time_spent_waiting(latents):
    with build_loader(config(latents, workers=0)) as loader:
        next(loader)
        assert loader.wait_seconds > 0
