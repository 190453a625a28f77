"""Latent shards -> the same latents with captions of another text encoder; clips are neither read nor encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sora2.codecs import Codecs, TextEncoder
from sora2.codecs.text import reads_times
from sora2.data.datasets import LatentDataset
from sora2.data.encode import describe
from sora2.data.samples import pack_latents
from sora2.data.shards import write_counterparts
from sora2.data.speech import caption_of, encode_words


def encode_captions(
    latents: Path, out: Path, text: TextEncoder, *, batch_size: int = 16, overwrite: bool = False
) -> Iterator[int]:
    """Write every shard of `latents` to `out` with its captions encoded by `text`, then the index.

    Yields clips as they are done. Run again after an interruption it keeps the whole shards; when the encoder or the
    latents have changed it raises `DataError`, unless `overwrite`.
    """
    dataset = LatentDataset(latents)
    index = dataset.index
    of_text = describe(Codecs(None, None, text))
    info = {
        "fingerprints": index.fingerprints | of_text["fingerprints"],
        "geometry": index.geometry | of_text["geometry"],
    }

    def make(number: int) -> Iterator[list[tuple[str, dict[str, bytes]]]]:
        rows = np.flatnonzero(index.shard == number).tolist()
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            metas = [dataset.meta(row) for row in part]
            captions = [caption_of(meta, reads_times(text)) for meta in metas]
            samples = []
            for row, meta, caption, words in zip(
                part, metas, captions, encode_words(text, captions), strict=True
            ):
                clip = dataset[row]
                streams = {"video": clip.video, "audio": clip.audio}
                kept = {name: latent for name, latent in streams.items() if latent is not None}
                samples.append((meta["key"], pack_latents(kept | words, {**meta, **info}, caption)))
            yield samples

    settings = {"command": "encode", "latents": index.bytes_hash(), **info}
    yield from write_counterparts(index, out, settings, make, overwrite=overwrite)
    dataset.close()
