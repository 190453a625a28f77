"""Random access to indexed shards: one positioned read per sample."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sora2.data.errors import DataError
from sora2.data.index import ShardIndex, shard_remedy
from sora2.data.raw import STREAMS, unpack_clip
from sora2.data.samples import LATENTS, RAW, Bucket, LatentSample, unpack_latents
from sora2.types import Clip


class _ShardDataset:
    """Reads members by byte offset. Safe to use from several threads; file handles are opened once per
    shard."""

    kind = ""
    _max_open = 256

    def __init__(self, folder: str | Path, *, cache_in_memory: bool = False) -> None:
        self.index = ShardIndex.load(folder)
        if self.index.kind != self.kind:
            what = {RAW: "raw clips", LATENTS: "latents"}
            raise DataError(
                f"{folder} holds {what[self.index.kind]}, but {what[self.kind]} are needed"
                + (": run `sora2 encode` on it" if self.kind == LATENTS else "")
            )
        self._cache: dict[int, Any] | None = {} if cache_in_memory else None
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, sample: int) -> Any:
        if self._cache is None:
            return self._load(sample)
        if sample not in self._cache:
            self._cache[sample] = self._load(sample)
        return self._cache[sample]

    def _load(self, sample: int) -> Any:
        raise NotImplementedError

    def held_bytes(self, clips: int | None = None) -> int:
        """What `cache_in_memory` keeps once the first `clips` samples were read (None: all)."""
        raise NotImplementedError

    def where(self, sample: int) -> str:
        """Shard and key, for messages."""
        return f"{self.index.shard_path(sample)}: {self.index.keys[sample]}"

    def read(self, sample: int, member: int) -> bytearray:
        """Bytes of one member. `DataError` when they are not those that were indexed."""
        size = int(self.index.size[sample, member])
        buffer = bytearray(size)
        got = os.preadv(
            self._file(int(self.index.shard[sample])), [buffer], int(self.index.offset[sample, member])
        )
        if got != size or zlib.crc32(buffer) != int(self.index.checksum[sample, member]):
            name = f"{self.where(sample)}.{self.index.members[member]}"
            raise DataError(
                f"{name} is broken: its bytes are not those that were indexed. "
                f"{shard_remedy(self.index.shard_path(sample))}"
            )
        return buffer

    def meta(self, sample: int) -> dict[str, Any]:
        """KEY.json."""
        return json.loads(self.read(sample, 1))

    def _file(self, shard: int) -> int:
        with self._lock:
            if shard not in self._files:
                if len(self._files) >= self._max_open:
                    # the loader works through a window of shards, far fewer than this many
                    os.close(self._files.pop(next(iter(self._files))))
                path = self.index.folder / self.index.shards[shard]["file"]
                try:
                    self._files[shard] = os.open(path, os.O_RDONLY)
                except OSError as error:
                    raise DataError(f"cannot open shard {path}: {error}") from error
            return self._files[shard]

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                os.close(file)
            self._files.clear()


class LatentDataset(_ShardDataset):
    """`dataset[i] -> LatentSample`, tensors bf16 as stored; of `streams` only, as if the clips had no other."""

    kind = LATENTS

    def __init__(
        self, folder: str | Path, *, cache_in_memory: bool = False, streams: Collection[str] = STREAMS
    ) -> None:
        super().__init__(folder, cache_in_memory=cache_in_memory)
        self.streams = streams

    def held_bytes(self, clips: int | None = None) -> int:
        return int(self.index.size[:clips, 0].sum())

    def _load(self, sample: int) -> LatentSample:
        tensors, header = unpack_latents(self.read(sample, 0), f"{self.where(sample)}.safetensors")
        bucket: Bucket = self.index.bucket_of(sample)
        for name, needed in (("video", bucket.has_video), ("audio", bucket.has_audio)):
            if needed != (name in tensors):
                raise DataError(
                    f"{self.where(sample)}: {name} latent and KEY.json disagree. Run `sora2 encode` again."
                )
        if left_out := set(STREAMS) - set(self.streams):  # what stays must not hold on to the bytes of all
            tensors = {name: t.clone() for name, t in tensors.items() if name not in left_out}
        return LatentSample(
            key=self.index.keys[sample],
            caption=header.get("caption", ""),
            bucket=bucket.only(self.streams),
            video=tensors.get("video"),
            audio=tensors.get("audio"),
            text=tensors.get("text"),
            seconds=tensors.get("seconds"),
        )


class RawDataset(_ShardDataset):
    """`dataset[i] -> Clip`, decoded; of `streams` only, which saves the work of the other."""

    kind = RAW

    def __init__(
        self, folder: str | Path, *, cache_in_memory: bool = False, streams: Collection[str] = STREAMS
    ) -> None:
        super().__init__(folder, cache_in_memory=cache_in_memory)
        self.streams = streams

    def held_bytes(self, clips: int | None = None) -> int:
        pixels, sound = 3 * ("video" in self.streams), 4 * ("audio" in self.streams)  # bytes of each
        of_bucket = [
            b.frames * b.height * b.width * pixels + b.samples * b.channels * sound
            for b in self.index.buckets
        ]
        return sum(of_bucket[i] for i in self.index.bucket[:clips])

    def _load(self, sample: int) -> Clip:
        return unpack_clip(self.read(sample, 0), self.meta(sample), self.where(sample), self.streams)
