"""Writing shards: whole tars only, byte-identical for identical content."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import webdataset as wds

from sora2.atomic import save_json, write_atomic
from sora2.data.errors import DataError
from sora2.data.index import INDEX_NAME, ShardEntry, ShardIndex, scan_shard
from sora2.data.samples import LATENTS, RAW

JOB_NAME = "job.json"


def shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def write_shard(path: Path, samples: Sequence[tuple[str, Mapping[str, bytes]]]) -> ShardEntry:
    """Write one tar of (key, {extension: bytes}) under a temporary name, rename it, and return its index
    entry."""

    def write(temporary: Path) -> None:
        # a fixed mtime makes the tar a function of its content
        with open(temporary, "wb") as file, wds.TarWriter(file, encoder=False, mtime=0.0) as tar:
            for key, members in samples:
                if "." in key or "/" in key:
                    raise DataError(f"key {key!r} must not contain '.' or '/': webdataset splits names there")
                tar.write({"__key__": key, **members})

    write_atomic(path, write)
    return scan_shard(path)


class ShardWriter:
    """Collects samples into shards of `shard_size` clips; `close()` writes the last one and the index.

    Leaving the `with` block by an exception (Ctrl-C included) drops the unfinished shard and writes no index,
    so the folder holds whole shards only.
    """

    def __init__(self, folder: str | Path, shard_size: int = 256) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shard_size = shard_size
        self.entries: list[ShardEntry] = []
        self._pending: list[tuple[str, Mapping[str, bytes]]] = []

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        self._pending.append((key, members))
        if len(self._pending) >= self.shard_size:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            path = self.folder / shard_name(len(self.entries))
            self.entries.append(write_shard(path, self._pending))
            self._pending = []

    def close(self) -> ShardIndex | None:
        """The index of the folder, or None when nothing was written."""
        self._flush()
        if not self.entries:
            return None
        index = ShardIndex.from_entries(self.folder, self.entries)
        index.save()
        return index

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self.close()
        self._pending = []


def begin_job(folder: str | Path, job: Mapping[str, Any], *, overwrite: bool = False) -> list[Path]:
    """Claim a folder for a resumable job; returns the whole shards that an earlier run of the same job left.

    The job (every setting that shapes the bytes) is kept in `job.json`. A folder of another job is an error
    unless `overwrite`, which empties it of shards.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JOB_NAME
    job = json.loads(json.dumps(job))  # as it will be read back
    shards = sorted(folder.glob("[!.]*.tar"))
    if overwrite:
        for old in [*shards, folder / INDEX_NAME, path]:
            old.unlink(missing_ok=True)
        shards = []
    elif shards or path.exists():
        if not path.exists():
            raise DataError(
                f"{folder} already holds shards of unknown origin. Choose another --out or pass --overwrite."
            )
        earlier = json.loads(path.read_text())
        changed = [k for k in sorted({*earlier, *job}) if earlier.get(k) != job.get(k)]
        if changed:
            what = "; ".join(f"{k}: {earlier.get(k)!r} -> {job.get(k)!r}" for k in changed)
            raise DataError(
                f"{folder} was begun with other settings ({what}). Repeat those settings to resume, choose "
                "another --out, or pass --overwrite to start again."
            )
    remove_leftovers(folder)
    save_json(job, path)
    return shards


def write_counterparts(
    source: ShardIndex,
    out: str | Path,
    job: Mapping[str, Any],
    make: Callable[[int], Iterable[Sequence[tuple[str, Mapping[str, bytes]]]]],
    *,
    overwrite: bool = False,
) -> Iterator[int]:
    """A shard in `out` for every one of `source`, of its name, then the index; yields clips as they are done.

    `make(number)` gives the samples of a shard, some at a time. Whole shards that an earlier run of the same job left
    are kept. `DataError` where `out` is the folder of `source`, or holds another job and not `overwrite`.
    """
    out = Path(out)
    if out.resolve() == source.folder.resolve():
        what = {RAW: "raw shards", LATENTS: "latents"}[source.kind]
        raise DataError(f"--out {out} is the folder of the {what}: choose another one")
    there = {path.name for path in begin_job(out, job, overwrite=overwrite)}
    entries: list[ShardEntry] = []
    for number, shard in enumerate(source.shards):
        path = out / shard["file"]
        if path.name in there:
            entries.append(scan_shard(path))
            yield shard["samples"]
            continue
        done: dict[str, Mapping[str, bytes]] = {}
        for samples in make(number):
            done.update(samples)
            yield len(samples)
        entries.append(write_shard(path, sorted(done.items())))
    ShardIndex.from_entries(out, entries).save()


def remove_leftovers(folder: Path) -> None:
    """Delete temporary shards of writers that were killed (their process is gone)."""
    for temporary in folder.glob(".*.tmp"):
        process = temporary.name.rsplit(".", 2)[-2]
        if not process.isdigit() or not _alive(int(process)):
            temporary.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
