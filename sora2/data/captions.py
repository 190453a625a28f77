"""Latent shards -> the same latents with captions of another text encoder; clips are neither read nor encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sora2.codecs import TextEncoder
from sora2.codecs.text import reads_times
from sora2.data.datasets import LatentDataset
from sora2.data.errors import DataError
from sora2.data.index import ShardEntry, ShardIndex, scan_shard
from sora2.data.samples import pack_latents
from sora2.data.shards import begin_job, write_shard
from sora2.data.speech import caption_of, encode_words


def encode_captions(
    latents: Path, out: Path, text: TextEncoder, *, batch_size: int = 16, overwrite: bool = False
) -> Iterator[int]:
    """Write every shard of `latents` to `out` with its captions encoded by `text`, then the index.

    Yields clips as they are done. Run again after an interruption it keeps the whole shards; when the encoder or the
    latents have changed it raises `DataError`, unless `overwrite`.
    """
    if Path(latents).resolve() == Path(out).resolve():
        raise DataError(f"--out {out} is the folder of the latents: choose another one")
    dataset = LatentDataset(latents)
    index = dataset.index
    info = {
        "fingerprints": {**index.fingerprints, "text": text.fingerprint()},
        "geometry": {**index.geometry, "text": {"width": text.width, "max_tokens": text.max_tokens}},
    }
    settings = {"command": "encode", "latents": index.content_hash(), **info}
    there = {path.name for path in begin_job(out, settings, overwrite=overwrite)}
    entries: list[ShardEntry] = []
    for number, shard in enumerate(index.shards):
        path = Path(out) / shard["file"]
        rows = [row for row in range(len(index)) if index.shard[row] == number]
        if path.name not in there:
            done = {}
            for first in range(0, len(rows), batch_size):
                part = rows[first : first + batch_size]
                metas = [dataset.meta(row) for row in part]
                captions = [caption_of(meta, reads_times(text)) for meta in metas]
                words = encode_words(text, captions)
                for row, meta, caption, of_text in zip(part, metas, captions, words, strict=True):
                    clip = {"video": dataset[row].video, "audio": dataset[row].audio, **of_text}
                    members = {name: value for name, value in clip.items() if value is not None}
                    done[meta["key"]] = pack_latents(members, {**meta, **info}, caption)
                yield len(part)
            entries.append(write_shard(path, sorted(done.items())))
        else:
            entries.append(scan_shard(path))
            yield len(rows)
    dataset.close()
    ShardIndex.from_entries(Path(out), entries).save()
