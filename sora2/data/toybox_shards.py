"""Shards of the procedural world: any shard can be written by any process, at any time, to the same bytes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from sora2.codecs import Codecs, load_codecs
from sora2.data.encode import check_bucket, describe, pack_encoded
from sora2.data.errors import DataError
from sora2.data.index import ShardEntry, ShardIndex, scan_shard
from sora2.data.parallel import run_tasks
from sora2.data.raw import clip_meta, pack_clip
from sora2.data.samples import Bucket
from sora2.data.shards import begin_job, shard_name, write_shard
from sora2.toybox import Toybox, ToyboxConfig
from sora2.types import Clip


@dataclass(frozen=True)
class Encoding:
    """The encoders of clips that are written as latents, and where they compute; each process opens its own."""

    video: Path | None
    audio: Path | None
    text: str
    text_tokens: int
    device: str
    dtype: torch.dtype
    batch_size: int


@functools.lru_cache(maxsize=1)
def _opened(encoding: Encoding) -> tuple[Codecs, dict[str, Any]]:
    """The encoders on their device, and what samples say of them."""
    codecs = load_codecs(encoding.video, encoding.audio, encoding.text, encoding.text_tokens)
    return codecs.to(encoding.device), describe(codecs)


@dataclass(frozen=True)
class ToyboxShards:
    """Clips 0 ... clips - 1 of a world, `shard_size` to a shard, in `folder`: films, or with an `encoding` latents.

    Latents written here are of the very pixels and sound; those of `sora2 encode` are of the films, of quality `crf`.
    """

    folder: Path
    config: ToyboxConfig
    clips: int
    shard_size: int = 128
    crf: int = 8
    encoding: Encoding | None = None

    def settings(self) -> dict[str, object]:
        """What shapes the bytes of a shard. `clips` is not among them: a world can grow."""
        what = {"command": "toybox", **asdict(self.config), "shard_size": self.shard_size}
        if self.config.takes == 1:
            del what["takes"]  # so is every world that was begun before there were more
        if self.encoding is None:
            return {**what, "crf": self.crf}
        dtype = str(self.encoding.dtype).removeprefix("torch.")
        return {**what, "latents": True, "dtype": dtype, **_opened(self.encoding)[1]}


@dataclass(frozen=True)
class _Task:
    path: Path
    config: ToyboxConfig
    first: int
    count: int
    crf: int
    encoding: Encoding | None


def _write(task: _Task) -> tuple[Path, ShardEntry]:
    clips = Toybox(task.config).clips(range(task.first, task.first + task.count))
    samples: list[tuple[str, dict[str, bytes]]]
    if task.encoding is None:
        samples = [(clip.key, pack_clip(clip, crf=task.crf)) for clip in clips]
    else:
        samples = _encode(clips, task.encoding)
    return task.path.parent, write_shard(task.path, samples)


def _encode(clips: Sequence[Clip], encoding: Encoding) -> list[tuple[str, dict[str, bytes]]]:
    """Key and members of the latent sample of each clip."""
    codecs, info = _opened(encoding)
    named = [clip.replace(meta=clip_meta(clip)) for clip in clips]
    samples: list[tuple[str, dict[str, bytes]]] = []
    for first in range(0, len(named), encoding.batch_size):
        batch = named[first : first + encoding.batch_size]
        samples += pack_encoded(batch, codecs, info, torch.device(encoding.device), encoding.dtype)
    return samples


def _bucket(config: ToyboxConfig) -> Bucket:
    """The size of all clips of a world."""
    return Bucket(**{field.name: getattr(config, field.name) for field in fields(Bucket)})


def write_toybox(jobs: Sequence[ToyboxShards], *, workers: int = 1, overwrite: bool = False) -> Iterator[int]:
    """Write the missing shards, then the indexes; yields the number of clips of each shard once it is there.

    Run again after an interruption it keeps the whole shards. `DataError` when a folder holds another world,
    or more clips than are asked for, and when the codecs cannot hold the clips.
    """
    for job in jobs:
        if job.encoding is not None:
            check_bucket(_bucket(job.config), _opened(job.encoding)[0], str(job.folder))
    entries: dict[Path, list[ShardEntry]] = {}
    missing: list[_Task] = []
    for job in jobs:
        entries[job.folder] = []
        there = {path.name: path for path in begin_job(job.folder, job.settings(), overwrite=overwrite)}
        for number, first in enumerate(range(0, job.clips, job.shard_size)):
            task = _Task(
                path=job.folder / shard_name(number),
                config=job.config,
                first=first,
                count=min(job.shard_size, job.clips - first),
                crf=job.crf,
                encoding=job.encoding,
            )
            path = there.pop(task.path.name, None)
            entry = None if path is None else scan_shard(path)
            if entry is not None and len(entry.keys) > task.count:
                there[task.path.name] = task.path
            elif entry is not None and len(entry.keys) == task.count:
                entries[job.folder].append(entry)
                yield task.count
            else:
                missing.append(task)
        if there:
            raise DataError(
                f"{job.folder} already holds more than {job.clips} clips ({', '.join(sorted(there))}). "
                "Ask for at least as many, choose another --out, or pass --overwrite to start again."
            )
    for folder, entry in run_tasks(_write, missing, workers):
        entries[folder].append(entry)
        yield len(entry.keys)
    for folder, written in entries.items():
        ShardIndex.from_entries(folder, written).save()
