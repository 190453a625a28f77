"""The index of a folder of shards: byte offsets of every member, so that any sample is one read away.

Shards are plain tars and remain readable by `webdataset` without the index. The index is a function of the
tars (`ShardIndex.scan`), written last and atomically; a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sora2.atomic import save_text
from sora2.data.errors import DataError
from sora2.data.samples import LATENTS, MEMBERS, RAW, Bucket

INDEX_NAME = "index.json"
_VERSION = 1


@dataclass(frozen=True)
class ShardEntry:
    """One shard as found in its tar."""

    file: str
    bytes: int
    kind: str
    keys: list[str]
    buckets: list[Bucket]
    offsets: list[list[int]]  # per sample, one per member of MEMBERS[kind]
    sizes: list[list[int]]
    checksums: list[list[int]]  # crc32
    persons: list[str]  # who is in each; "" = nobody, or nobody knows
    info: dict[str, Any]  # "fingerprints", "geometry" of latent shards, from the first sample


def shard_remedy(path: Path) -> str:
    return (
        f"Delete {path} and run the command that wrote the folder again (it keeps whole shards), "
        f"or drop it with `rm {path} && sora2 inspect {path.parent} --reindex`."
    )


def scan_shard(path: Path) -> ShardEntry:
    """Read one tar whole. `DataError` names the file when it is truncated or a member is missing or
    broken."""
    path = Path(path)
    members: dict[str, dict[str, tuple[int, int, int]]] = {}
    metas: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(path, "r:") as tar, open(path, "rb") as file:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file.seek(member.offset_data)
                data = file.read(member.size)
                if len(data) != member.size:
                    raise tarfile.ReadError(f"{member.name} has {len(data)} of {member.size} bytes")
                members.setdefault(key, {})[extension] = (member.offset_data, member.size, zlib.crc32(data))
                if extension == "json":
                    metas[key] = json.loads(data)
            # webdataset closes a tar with zero blocks; without them the writer was interrupted
            file.seek(-1024, 2)
            if any(file.read()):
                raise tarfile.ReadError("the end-of-archive blocks are missing")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"shard {path} is truncated or broken: {error}. {shard_remedy(path)}") from error
    if not members:
        raise DataError(f"shard {path} holds no samples. {shard_remedy(path)}")

    first = next(iter(members.values()))
    kind = next((k for k in (LATENTS, RAW) if MEMBERS[k][0] in first), None)
    if kind is None:
        raise DataError(f"shard {path} holds neither KEY.mp4 nor KEY.safetensors, but {sorted(first)}")
    names = MEMBERS[kind]
    for key, found in members.items():
        lacking = [n for n in names if n not in found]
        if lacking:
            raise DataError(f"shard {path}: sample {key!r} lacks {lacking}. {shard_remedy(path)}")
    column = [[[members[k][n][i] for n in names] for k in members] for i in range(3)]
    first_meta = metas[next(iter(members))]
    return ShardEntry(
        file=path.name,
        bytes=path.stat().st_size,
        kind=kind,
        keys=list(members),
        buckets=[Bucket.from_meta(metas[k], f"{path}: {k}.json") for k in members],
        offsets=column[0],
        sizes=column[1],
        checksums=column[2],
        persons=[str(metas[k].get("person", "")) for k in members],
        info={name: first_meta[name] for name in ("fingerprints", "geometry") if name in first_meta},
    )


@dataclass(frozen=True)
class ShardIndex:
    """All samples of a folder, as columns; row i is sample i, in disk order."""

    folder: Path
    kind: str
    shards: tuple[dict[str, Any], ...]  # {"file", "bytes", "samples"}
    buckets: tuple[Bucket, ...]
    keys: tuple[str, ...]
    shard: np.ndarray  # (n,) int32
    bucket: np.ndarray  # (n,) int32
    offset: np.ndarray  # (n, members) int64
    size: np.ndarray  # (n, members) int64
    checksum: np.ndarray  # (n, members) uint32
    persons: tuple[str, ...]  # (n,); () = nobody in any
    fingerprints: dict[str, str]  # of the codecs that made latents; {} for raw shards
    geometry: dict[str, Any]  # strides and channels of those codecs

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def members(self) -> tuple[str, ...]:
        return MEMBERS[self.kind]

    def bucket_of(self, sample: int) -> Bucket:
        return self.buckets[self.bucket[sample]]

    def shard_path(self, sample: int) -> Path:
        return self.folder / self.shards[self.shard[sample]]["file"]

    def content_hash(self) -> str:
        """Identity of the sample set and its order, whatever the folder is called: which clips, not what they hold."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(f"{shard['file']}:{shard['samples']};".encode())
        digest.update("\n".join(self.keys).encode())
        digest.update(repr(self.buckets).encode() + self.bucket.tobytes())
        digest.update("\n".join(self.persons).encode())
        return digest.hexdigest()[:16]

    def bytes_hash(self) -> str:
        """Identity of all that the clips hold, captions included."""
        return hashlib.sha256(self.content_hash().encode() + self.checksum.tobytes()).hexdigest()[:16]

    @classmethod
    def from_entries(cls, folder: Path, entries: Iterable[ShardEntry]) -> ShardIndex:
        entries = sorted(entries, key=lambda e: e.file)
        if not entries:
            raise DataError(
                f"{folder} holds no shards (*.tar). Write some with `sora2 toybox` or `sora2 ingest`."
            )
        kinds = {e.kind for e in entries}
        if len(kinds) > 1:
            raise DataError(f"{folder} mixes raw and latent shards; keep each kind in its own folder")
        kind = kinds.pop()
        for entry in entries[1:]:
            if entry.info != entries[0].info:
                raise DataError(
                    f"{folder}: {entry.file} and {entries[0].file} were encoded by different codecs. "
                    "Delete the older ones and run `sora2 encode` again."
                )
        table = sorted({b for e in entries for b in e.buckets})
        number = {b: i for i, b in enumerate(table)}
        keys = tuple(k for e in entries for k in e.keys)
        persons = tuple(p for e in entries for p in e.persons)
        if len(set(keys)) != len(keys):
            twice = next(k for k, count in Counter(keys).items() if count > 1)
            raise DataError(f"{folder}: key {twice!r} occurs twice; keys must be unique within a folder")
        width = len(MEMBERS[kind])
        return cls(
            folder=Path(folder),
            kind=kind,
            shards=tuple({"file": e.file, "bytes": e.bytes, "samples": len(e.keys)} for e in entries),
            buckets=tuple(table),
            keys=keys,
            shard=np.repeat(np.arange(len(entries), dtype=np.int32), [len(e.keys) for e in entries]),
            bucket=np.array([number[b] for e in entries for b in e.buckets], dtype=np.int32),
            offset=np.array([o for e in entries for o in e.offsets], dtype=np.int64).reshape(-1, width),
            size=np.array([s for e in entries for s in e.sizes], dtype=np.int64).reshape(-1, width),
            checksum=np.array([c for e in entries for c in e.checksums], dtype=np.uint32).reshape(-1, width),
            persons=persons if any(persons) else (),
            fingerprints=dict(entries[0].info.get("fingerprints", {})),
            geometry=dict(entries[0].info.get("geometry", {})),
        )

    @classmethod
    def scan(cls, folder: Path) -> ShardIndex:
        """Rebuild from the tars. Temporary files of interrupted writers are ignored."""
        folder = Path(folder)
        return cls.from_entries(folder, [scan_shard(p) for p in sorted(folder.glob("[!.]*.tar"))])

    def save(self) -> Path:
        path = self.folder / INDEX_NAME
        value = {
            "version": _VERSION,
            "kind": self.kind,
            "fingerprints": self.fingerprints,
            "geometry": self.geometry,
            "members": list(self.members),
            "shards": list(self.shards),
            "buckets": [b.fields() for b in self.buckets],
            "samples": {
                "key": list(self.keys),
                "shard": self.shard.tolist(),
                "bucket": self.bucket.tolist(),
                "offset": self.offset.tolist(),
                "size": self.size.tolist(),
                "crc32": self.checksum.tolist(),
                **({"person": list(self.persons)} if self.persons else {}),
            },
        }
        save_text(json.dumps(value) + "\n", path)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> ShardIndex:
        """`DataError` for a missing index, a missing shard or one whose size is not what the index says."""
        folder = Path(folder)
        path = folder / INDEX_NAME
        if not path.exists():
            raise DataError(_why_no_index(folder))
        try:
            value = json.loads(path.read_text())
            if value["version"] != _VERSION:
                raise DataError(
                    f"{path} has version {value['version']}, this code reads {_VERSION}. " + _reindex(folder)
                )
            rows = value["samples"]
            index = cls(
                folder=folder,
                kind=value["kind"],
                shards=tuple(value["shards"]),
                buckets=tuple(Bucket(**b) for b in value["buckets"]),
                keys=tuple(rows["key"]),
                shard=np.array(rows["shard"], dtype=np.int32),
                bucket=np.array(rows["bucket"], dtype=np.int32),
                offset=np.array(rows["offset"], dtype=np.int64),
                size=np.array(rows["size"], dtype=np.int64),
                checksum=np.array(rows["crc32"], dtype=np.uint32),
                persons=tuple(rows.get("person", ())),
                fingerprints=value["fingerprints"],
                geometry=value["geometry"],
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a shard index ({error!r}). " + _reindex(folder)) from error
        for shard in index.shards:
            tar = folder / shard["file"]
            found = tar.stat().st_size if tar.exists() else None
            if found is None:
                raise DataError(f"shard {tar} is missing although {path} lists it. " + _reindex(folder))
            if found != shard["bytes"]:
                raise DataError(
                    f"shard {tar} has {found} bytes, its index says {shard['bytes']}. {shard_remedy(tar)}"
                )
        return index


def _reindex(folder: Path) -> str:
    return f"Rebuild the index with `sora2 inspect {folder} --reindex`."


def _why_no_index(folder: Path) -> str:
    if not folder.is_dir():
        return (
            f"data folder {folder} does not exist. "
            "Write it with `sora2 toybox`, `sora2 ingest` or `sora2 encode`."
        )
    nested = sorted(p.parent.name for p in folder.glob(f"*/{INDEX_NAME}"))
    if nested:
        return (
            f"{folder} has no {INDEX_NAME}, but its folders {nested} do: "
            f"name one of them, e.g. {folder / nested[0]}"
        )
    if any(folder.glob("[!.]*.tar")):
        return (
            f"{folder} holds shards but no {INDEX_NAME}: the command that wrote it was interrupted. "
            f"Run it again to finish, or index what is there with `sora2 inspect {folder} --reindex`."
        )
    return f"{folder} holds no shards. Write some with `sora2 toybox`, `sora2 ingest` or `sora2 encode`."


def find_shard_folders(root: str | Path) -> list[Path]:
    """`root` itself when it is indexed, else its direct subfolders that are (train, validation ...)."""
    root = Path(root)
    if (root / INDEX_NAME).exists():
        return [root]
    nested = sorted(p.parent for p in root.glob(f"*/{INDEX_NAME}"))
    if not nested:
        raise DataError(_why_no_index(root))
    return nested
