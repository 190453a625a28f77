"""Samples of a shard folder back to something a person can watch: mp4 and contact sheet, and a summary in
words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sora2.codecs import Codecs
from sora2.data.collate import audio_shape, video_shape
from sora2.data.datasets import LatentDataset, RawDataset
from sora2.data.errors import DataError
from sora2.data.index import ShardIndex
from sora2.data.loader import check_fingerprints
from sora2.data.samples import RAW
from sora2.media import contact_sheet, write_clip
from sora2.types import Clip


def summary(index: ShardIndex) -> str:
    """What the folder holds, a line per fact."""
    size = sum(s["bytes"] for s in index.shards)
    lines = [
        f"{index.folder}: {index.kind}, {len(index)} clips in {len(index.shards)} shards, {size / 1e6:.1f} MB"
    ]
    for number, count in sorted(Counter(index.bucket.tolist()).items()):
        lines.append(f"  {count:>8} clips of ({index.buckets[number]})")
    lines += [f"  codec {name}: {value}" for name, value in sorted(index.fingerprints.items())]
    return "\n".join(lines)


def choose(index: ShardIndex, count: int, keys: Sequence[str]) -> list[int]:
    """Sample numbers of `keys`, or `count` spread evenly over the folder."""
    if keys:
        numbers = {key: i for i, key in enumerate(index.keys)}
        unknown = [key for key in keys if key not in numbers]
        if unknown:
            raise DataError(
                f"{index.folder} has no clip {unknown[0]!r}; its keys look like {index.keys[0]!r}"
            )
        return [numbers[key] for key in keys]
    return sorted(set(np.linspace(0, len(index) - 1, min(count, len(index))).round().astype(int).tolist()))


def decode_sample(dataset: RawDataset | LatentDataset, sample: int, codecs: Codecs | None) -> Clip:
    """The clip of a raw sample, or of a latent one through its codecs."""
    if isinstance(dataset, RawDataset):
        return dataset[sample]
    if codecs is None:
        raise DataError(
            f"{dataset.index.folder} holds latents: name their codecs with --video-codec and --audio-codec"
        )
    latents = dataset[sample]
    geometry = dataset.index.geometry
    clip = codecs.decode_clip(
        None if latents.video is None else latents.video.float(),
        None if latents.audio is None else latents.audio.float(),
        None if latents.video is None else video_shape(latents, geometry, patch_size=1),
        None if latents.audio is None else audio_shape(latents, geometry),
    )
    return clip.replace(key=latents.key, caption=latents.caption, meta=dataset.meta(sample))


def open_folder(folder: Path, codecs: Codecs | None) -> RawDataset | LatentDataset:
    """`DataError` when latents meet codecs other than those that made them."""
    if ShardIndex.load(folder).kind == RAW:
        return RawDataset(folder)
    dataset = LatentDataset(folder)
    if codecs is not None:
        wanted = {name: value for name, value in codecs.fingerprints().items() if name != "text"}
        check_fingerprints(folder, dataset.index.fingerprints, wanted)
    return dataset


def show(clip: Clip, out: Path) -> dict[str, Any]:
    """Write KEY.mp4 and KEY.png; returns what to list about the clip."""
    out.mkdir(parents=True, exist_ok=True)
    write_clip(clip, out / f"{clip.key}.mp4", lossless_audio=False)
    contact_sheet(clip, out / f"{clip.key}.png", title=f"{clip.key}: {clip.caption}")
    return {
        "key": clip.key,
        "caption": clip.caption,
        "seconds": round(clip.seconds, 4),
        "licence": clip.meta.get("licence"),
        "source": clip.meta.get("source"),
    }
