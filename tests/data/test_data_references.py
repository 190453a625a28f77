"""Another clip of the same person beside a sample: whose it is, how often, and that nothing else decides it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic_shards import latent_meta, write_latents

from sora2.data import DataError, DatasetConfig, LoaderConfig, build_loader
from sora2.data.index import ShardIndex
from sora2.toybox import Toybox, ToyboxConfig

PEOPLE = 3


@pytest.fixture
def people(tmp_path):
    """36 clips: every third of one person, but for the last six, who are strangers or nobody."""
    metas = []
    for i in range(36):
        person = {"person": f"p{i % PEOPLE}"} if i < 30 else {"person": f"stranger {i}"} if i < 33 else {}
        metas.append(latent_meta(f"k{i:03d}") | person)
    return write_latents(tmp_path / "people", metas)


def config(folder, references=1.0, **changes) -> LoaderConfig:
    datasets = (DatasetConfig(str(folder), references=references),)
    return replace(LoaderConfig(datasets, batch_size=4, seed=1, max_text_tokens=8), **changes)


def pairs(loader, batches=30):
    """(sample, companion or None) of many batches, by the numbers that fill their latents."""
    found = []
    with loader:
        for _ in range(batches):
            batch = next(loader)
            for row, key in enumerate(batch.keys):
                face, voice = batch.reference_video, batch.reference_audio
                if face is None or not face.mask[row].any():
                    found.append((int(key[1:]), None))
                    continue
                number = int(face.latent[row, 0, 0])
                assert (face.latent[row] == number).all() and face.mask[row].all()
                assert (voice.latent[row] == number).all() and voice.mask[row].all()
                found.append((int(key[1:]), number))
    return found


def test_a_companion_is_another_clip_of_the_same_person(people):
    found = pairs(build_loader(config(people)))
    for sample, other in found:
        if sample >= 30:
            assert other is None
        else:
            assert other != sample and other % PEOPLE == sample % PEOPLE and other < 30
    assert len({other for sample, other in found if sample == found[0][0]}) > 1  # not always the same one


def test_a_reference_is_a_first_picture_and_the_sound_on_a_clock_that_begins_with_it(people):
    with build_loader(config(people)) as loader:
        batch = next(loader)
    assert batch.reference_video.latent.shape == (4, 4, 16)  # of 8 tokens in 2 latent frames
    assert batch.reference_audio.latent.shape == batch.audio.latent.shape
    assert torch.equal(batch.reference_video.positions[0], batch.video_shape.positions()[:4])
    assert torch.equal(batch.reference_audio.positions, batch.audio.positions)
    assert not batch.reference_audio.noise_level.any()


def test_the_share_is_honoured_and_none_costs_nothing(people):
    found = pairs(build_loader(config(people, references=0.5)), 200)
    shown = [other is not None for sample, other in found if sample < 30]
    assert 0.42 < sum(shown) / len(shown) < 0.58
    with build_loader(config(people, references=0.0)) as loader:
        assert next(loader).modalities().keys() == {"text", "video", "audio"}


def test_clips_with_references_fill_batches_of_their_own(people, tmp_path):
    others = write_latents(tmp_path / "others", [latent_meta(f"n{i:03d}") for i in range(20)])
    datasets = (
        DatasetConfig(str(people), references=1.0, weight=0.4),
        DatasetConfig(str(others), weight=0.6),
    )
    beside = []
    with build_loader(replace(config(people), datasets=datasets)) as loader:
        for _ in range(50):
            batch = next(loader)
            of_people = {key.startswith("k") for key in batch.keys}
            assert len(of_people) == 1
            beside.append(of_people.pop())
            assert beside[-1] or batch.modalities().keys() == {"text", "video", "audio"}
    assert 0.3 < sum(beside) / len(beside) < 0.5


def test_companions_depend_on_the_place_alone(people):
    alone = pairs(build_loader(config(people, references=0.7, workers=0)))
    assert pairs(build_loader(config(people, references=0.7, workers=3))) == alone
    with build_loader(config(people, references=0.7)) as first:
        for _ in range(11):
            next(first)
        state = first.state_dict()
    second = build_loader(config(people, references=0.7))
    second.load_state_dict(state)
    assert pairs(second, 19) == alone[44:]
    ranks = [
        pairs(build_loader(config(people, references=0.7, batch_size=2), rank=r, world_size=2))
        for r in range(2)
    ]
    parts = ([rank[k : k + 2] for k in range(0, len(rank), 2)] for rank in ranks)
    together = [pair for a, b in zip(*parts, strict=True) for pair in a + b]
    assert together == alone
    third = build_loader(config(people, references=0.6))
    with third, pytest.raises(DataError, match="cannot continue at sample 44: the samples"):
        third.load_state_dict(state)


def test_companions_on_the_device_are_the_same(people):
    drop = {"reference_video": 0.4, "reference_audio": 0.3}
    plain = build_loader(config(people, references=0.7, drop=drop))
    resident = build_loader(config(people, references=0.7, drop=drop, on_device=True))
    dropped = set()
    with plain, resident:
        for _ in range(30):
            a, b = next(plain), next(resident)
            assert a.modalities().keys() == b.modalities().keys()
            for name, m in a.modalities().items():
                for part in ("latent", "positions", "noise_level", "mask"):
                    assert torch.equal(getattr(m, part), getattr(getattr(b, name), part)), (name, part)
            if a.reference_video is not None:
                masks = (a.reference_video.mask[:, 0], a.reference_audio.mask[:, 0])
                dropped |= set(zip(*(mask.tolist() for mask in masks), strict=True))
    assert dropped == {(True, True), (True, False), (False, True), (False, False)}


def test_sound_alone_has_a_voice_and_no_face(people):
    datasets = (DatasetConfig(str(people), streams=("audio",), references=1.0),)
    with build_loader(replace(config(people), datasets=datasets)) as loader:
        batch = next(loader)
    assert batch.reference_video is None and batch.reference_audio.mask.any()


def test_nobody_twice_is_an_error_that_says_what_to_do(latents, people):
    with pytest.raises(DataError, match=r'references=0.5 .* nobody is in two clips .*"person".*--takes 4'):
        build_loader(config(latents, references=0.5))
    with pytest.raises(DataError, match=r"references=1.5 of .* must be in \[0, 1\]"):
        build_loader(config(people, references=1.5))


def test_the_index_knows_who_is_in_a_clip_also_when_it_is_made_anew(people):
    index = ShardIndex.load(people)
    assert index.persons[:4] == ("p0", "p1", "p2", "p0") and index.persons[-1] == ""
    again = ShardIndex.scan(people)
    assert again.persons == index.persons and again.content_hash() == index.content_hash()


def test_takes_of_the_toybox_show_one_person():
    box = Toybox(ToyboxConfig(scenes=("talk",), takes=3, frames=5))
    clips = box.clips(range(7))
    assert [clip.meta["person"] for clip in clips] == ["0-train-0"] * 3 + ["0-train-1"] * 3 + ["0-train-2"]
    looks = [clip.meta["truth"]["identity"] for clip in clips]
    assert looks[0] == looks[2] != looks[3]
    assert clips[0].caption != clips[1].caption or not torch.equal(clips[0].audio, clips[1].audio)
    alone = Toybox(ToyboxConfig(scenes=("talk",), frames=5)).clip(0)
    assert "person" not in alone.meta and "person" not in alone.meta["truth"]["identity"]
