"""Shards of the procedural world: any shard can be written by any process, at any time, to the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sora2.data.errors import DataError
from sora2.data.index import ShardEntry, ShardIndex, scan_shard
from sora2.data.parallel import run_tasks
from sora2.data.raw import pack_clip
from sora2.data.shards import begin_job, shard_name, write_shard
from sora2.toybox import Toybox, ToyboxConfig


@dataclass(frozen=True)
class ToyboxShards:
    """Clips 0 ... clips - 1 of a world, `shard_size` to a shard, in `folder`."""

    folder: Path
    config: ToyboxConfig
    clips: int
    shard_size: int = 128
    crf: int = 8

    def settings(self) -> dict[str, object]:
        """What shapes the bytes of a shard. `clips` is not among them: a world can grow."""
        return {"command": "toybox", **asdict(self.config), "shard_size": self.shard_size, "crf": self.crf}


@dataclass(frozen=True)
class _Task:
    path: Path
    config: ToyboxConfig
    first: int
    count: int
    crf: int


def _write(task: _Task) -> tuple[Path, ShardEntry]:
    clips = Toybox(task.config).clips(range(task.first, task.first + task.count))
    samples = [(clip.key, pack_clip(clip, crf=task.crf)) for clip in clips]
    return task.path.parent, write_shard(task.path, samples)


def write_toybox(jobs: Sequence[ToyboxShards], *, workers: int = 1, overwrite: bool = False) -> Iterator[int]:
    """Write the missing shards, then the indexes; yields the number of clips of each shard once it is there.

    Run again after an interruption it keeps the whole shards. `DataError` when a folder holds another world,
    or more clips than are asked for.
    """
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
