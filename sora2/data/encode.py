"""Raw shards -> latent shards, one for one: codec latents, text embeddings and the fingerprints of both."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from torch import Tensor

from sora2.codecs import Codecs, TextEncoder
from sora2.codecs.text import reads_times
from sora2.data.datasets import LatentDataset
from sora2.data.errors import DataError
from sora2.data.index import ShardIndex, shard_remedy
from sora2.data.parallel import map_ahead
from sora2.data.raw import clip_bucket, unpack_clip
from sora2.data.samples import RAW, Bucket, pack_latents
from sora2.data.shards import write_counterparts
from sora2.data.speech import caption_of, encode_words
from sora2.types import Clip, ShapeError

#: Captions that are encoded at once to see which are cut.
TEXTS = 64


def geometry(codecs: Codecs) -> dict[str, Any]:
    """What the loader must know to turn latents into tokens with positions."""
    if codecs.text is None:
        raise DataError("encoding needs a text encoder: every latent clip carries its caption's embedding")
    found: dict[str, Any] = {"text": {"width": codecs.text.width, "max_tokens": codecs.text.max_tokens}}
    if codecs.video is not None:
        found["video"] = {
            "channels": codecs.video.latent_channels,
            "temporal_stride": codecs.video.temporal_stride,
            "spatial_stride": codecs.video.spatial_stride,
        }
    if codecs.audio is not None:
        found["audio"] = {
            "latent_channels": codecs.audio.latent_channels,
            "hop_samples": codecs.audio.hop_samples,
        }
    return found


def check_bucket(bucket: Bucket, codecs: Codecs, where: str) -> None:
    """`DataError` before any work when the codecs cannot hold the clips of `where` that are of this size."""
    for name in ("video", "audio"):
        if getattr(bucket, f"has_{name}") and getattr(codecs, name) is None:
            raise DataError(f"{where} holds clips with {name}: name a codec with --{name}-codec")
    if bucket.has_video:
        try:
            codecs.video_shape(*bucket.picture, patch_size=1)
        except ShapeError as error:
            raise DataError(f"{where} holds clips of ({bucket}): {error}. Write them again.") from error
    if bucket.has_audio:
        audio: Any = codecs.audio
        rate, channels = audio.sample_rate, audio.channels
        if bucket.sound[1:] != (rate, channels):
            raise DataError(
                f"{where} holds sound of {bucket.sample_rate} Hz x {bucket.channels}, the audio "
                f"codec takes {rate} Hz x {channels}: write the shards with --sample-rate {rate} "
                f"--channels {channels}"
            )


@torch.no_grad()
def encode_batch(
    clips: list[Clip], captions: list[str], codecs: Codecs, device: torch.device, dtype: torch.dtype
) -> list[dict[str, Tensor]]:
    """Latents (the mean of the posterior) and unpadded text of clips of one bucket, float32 on the CPU."""
    video, audio, text = codecs.video, codecs.audio, codecs.text
    assert text is not None  # `geometry` has looked
    encoded: list[dict[str, Tensor]] = [{} for _ in clips]
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        pictures = [c.video for c in clips if c.video is not None]
        if pictures and video is not None:
            pixels = torch.stack(pictures).to(device)  # (B, T, H, W, 3) uint8
            pixels = pixels.permute(0, 4, 1, 2, 3).float() / 127.5 - 1  # (B, 3, T, H, W)
            for row, latent in zip(encoded, video.encode(pixels).float().cpu(), strict=True):
                row["video"] = latent  # (C, t, h, w)
        sounds = [c.audio for c in clips if c.audio is not None]
        if sounds and audio is not None:
            waves = torch.stack(sounds).to(device)  # (B, channels, S)
            for row, latent in zip(encoded, audio.encode(waves).float().cpu(), strict=True):
                row["audio"] = latent  # (C, n)
    for row, words in zip(encoded, encode_words(text, captions), strict=True):
        row.update(words)
    for clip, row in zip(clips, encoded, strict=True):
        broken = [name for name, value in row.items() if not torch.isfinite(value).all()]
        if broken:
            raise DataError(
                f"the {broken} latents of clip {clip.key} are not finite: the codec or the clip is broken"
            )
    return encoded


def read_shard(index: ShardIndex, shard: int, workers: int) -> Iterator[Clip]:
    """Clips of one raw shard in one sequential pass, decoded a little ahead by `workers` threads.

    `DataError` for bytes that are not those that were indexed, and for a tar that ends early.
    """
    path = index.folder / index.shards[shard]["file"]
    rows = {index.keys[i]: i for i in np.flatnonzero(index.shard == shard).tolist()}

    def decode(sample: Mapping[str, Any]) -> Clip:
        key = sample["__key__"]
        for column, member in enumerate(index.members):
            found = None if member not in sample or key not in rows else zlib.crc32(sample[member])
            if found is None or found != int(index.checksum[rows[key], column]):
                raise DataError(
                    f"{path}: {key}.{member} is broken: its bytes are not those that were indexed. "
                    f"{shard_remedy(path)}"
                )
        return unpack_clip(sample["mp4"], json.loads(sample["json"]), f"{path}: {key}")

    seen = 0
    samples = wds.WebDataset(str(path), shardshuffle=False, empty_check=False)
    try:
        for clip in map_ahead(decode, samples, workers):
            seen += 1
            yield clip
    except tarfile.TarError as error:
        raise DataError(f"shard {path} is broken: {error}. {shard_remedy(path)}") from error
    if seen != len(rows):
        raise DataError(f"shard {path} holds {seen} clips, its index says {len(rows)}. {shard_remedy(path)}")


def describe(codecs: Codecs) -> dict[str, Any]:
    """What KEY.json of a latent sample, and the job that made it, say of its encoders."""
    return {"fingerprints": codecs.fingerprints(), "geometry": geometry(codecs)}


def pack_encoded(
    clips: list[Clip], codecs: Codecs, info: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> list[tuple[str, dict[str, bytes]]]:
    """Key and members of the latent sample of each clip, all of one bucket; `clip.meta` is KEY.json but for `info`."""
    captions = [caption_of(clip.meta, reads_times(codecs.text)) for clip in clips]
    encoded = encode_batch(clips, captions, codecs, device, dtype)
    return [
        (clip.key, pack_latents(latents, {**clip.meta, **info}, caption))
        for clip, caption, latents in zip(clips, captions, encoded, strict=True)
    ]


def _batches(clips: Iterable[Clip], size: int) -> Iterator[list[Clip]]:
    """Runs of clips of one bucket, at most `size` long; at most one open batch per bucket."""
    waiting: dict[Bucket, list[Clip]] = {}
    for clip in clips:
        group = waiting.setdefault(clip_bucket(clip), [])
        group.append(clip)
        if len(group) == size:
            yield waiting.pop(clip_bucket(clip))
    yield from waiting.values()


def encode_shards(
    raw: Path,
    out: Path,
    codecs: Codecs,
    *,
    batch_size: int = 16,
    workers: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> Iterator[int]:
    """Encode every shard of `raw` into a shard of the same name in `out`, then write the index.

    Yields clips as they are done. Run again after an interruption it keeps the whole shards; when the codecs
    or the raw clips have changed it raises `DataError`, unless `overwrite`.
    """
    index = ShardIndex.load(raw)
    if index.kind != RAW:
        raise DataError(f"{raw} holds latents: `encode_captions` gives those other captions")
    for bucket in index.buckets:
        check_bucket(bucket, codecs, str(index.folder))
    info = describe(codecs)
    settings = {
        "command": "encode",
        "raw": index.bytes_hash(),
        "dtype": str(dtype).removeprefix("torch."),
        **info,
    }

    def make(number: int) -> Iterator[list[tuple[str, dict[str, bytes]]]]:
        for batch in _batches(read_shard(index, number, workers), batch_size):
            yield pack_encoded(batch, codecs, info, torch.device(device), dtype)

    yield from write_counterparts(index, out, settings, make, overwrite=overwrite)


def cut_captions(folder: Path, wider: TextEncoder) -> list[str]:
    """Keys of the latent clips whose caption lost its end, judged by an encoder that takes more tokens."""
    dataset = LatentDataset(folder)
    longest = dataset.index.geometry["text"]["max_tokens"]
    full = [
        (s.key, s.caption)
        for s in (dataset[i] for i in range(len(dataset)))
        if s.text is not None and s.text.shape[0] >= longest
    ]
    cut: list[str] = []
    for first in range(0, len(full), TEXTS):
        part = full[first : first + TEXTS]
        _, mask = wider.encode([caption for _, caption in part])  # (B, L)
        counts = mask.sum(dim=1).tolist()
        cut += [key for (key, _), tokens in zip(part, counts, strict=True) if tokens > longest]
    return cut
