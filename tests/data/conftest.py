"""Folders of small shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_shards import ExactAudio, ExactVideo, latent_meta, moving_clip, write_latents

from sora2.codecs import ByteTextEncoder, Codecs
from sora2.data import ShardWriter
from sora2.data.raw import pack_clip


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    """50 clips of one bucket in 7 shards."""
    return write_latents(tmp_path / "latents", [latent_meta(f"k{i:03d}") for i in range(50)])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """24 clips of each of two picture sizes."""
    return write_latents(
        tmp_path / "mixed", [latent_meta(f"m{i:03d}", side=32 if i % 2 else 48) for i in range(48)]
    )


@pytest.fixture
def codecs() -> Codecs:
    return Codecs(ExactVideo(), ExactAudio(), ByteTextEncoder(max_tokens=24))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """10 clips in 3 shards: with sound but for the last two."""
    folder = tmp_path / "raw"
    with ShardWriter(folder, 4) as writer:
        for i in range(10):
            clip = moving_clip(f"r{i:03d}", seed=i, sound=i < 8)
            writer.write(clip.key, pack_clip(clip, crf=4))
    return folder
