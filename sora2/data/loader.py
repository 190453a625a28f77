"""The training loader: endless, exactly ordered, resumable at any sample.

The order of samples is `SampleOrder`'s; threads only read ahead along it, so neither their number nor their
timing changes a batch. Ranks take consecutive slices of each global batch, so the global sequence does not
depend on the world size either, as long as batch_size * world_size is kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch

from sora2.data.collate import collate_latents, collate_raw
from sora2.data.datasets import LatentDataset, RawDataset
from sora2.data.errors import DataError
from sora2.data.order import SampleOrder, Stream, uniform
from sora2.data.raw import FOREGROUND, STREAMS
from sora2.data.references import References
from sora2.data.resident import ResidentLatents
from sora2.data.samples import LATENTS, Bucket
from sora2.data.windows import WindowConfig, cut_windows, is_window_batch, mirror
from sora2.toybox.foreground import foreground
from sora2.types import Clip

_STATE_VERSION = 1
_DROPPABLE = ("video", "audio", "text", "reference_video", "reference_audio")


@dataclass(frozen=True)
class DatasetConfig:
    """One folder of shards and its share in the mixture."""

    path: str
    weight: float = 1.0
    clips: int | None = None  # only its first so many, in the order of its shards; None = all
    # Latents: what is used of its clips. [audio] is sound alone, in batches of their own, at a third of the cost.
    streams: tuple[str, ...] = STREAMS
    # Latents: share of its clips that lie beside another clip of their person, whose face and voice they are to have;
    # in batches of their own, so that others have no room for references to compute.
    references: float = 0.0

    @property
    def whole(self) -> bool:
        return set(self.streams) == set(STREAMS)

    def count(self, dataset: LatentDataset | RawDataset) -> int:
        """How many clips of the opened folder are used. `DataError` where it holds fewer."""
        total = len(dataset) if self.clips is None else self.clips
        if not 0 < total <= len(dataset):
            raise DataError(
                f"clips={self.clips} of {dataset.index.folder} must be in 1 .. {len(dataset)}, which it holds"
            )
        return total


@dataclass(frozen=True)
class LoaderConfig:
    """What to read, in which mixture, in which batches."""

    datasets: tuple[DatasetConfig, ...]
    batch_size: int = 16  # per rank
    seed: int = 0
    workers: int = 1  # reading threads; 0 reads in the caller's thread
    prefetch: int = 2  # batches read ahead per worker
    kind: Literal["raw", "latents"] = LATENTS
    require_audio: bool = True  # False: silent clips are legal, masked
    require_video: bool = True  # False: sound without pictures is legal, masked
    patch_size: int = 2  # of the transformer (model.patch_size); latent cells per patch side
    max_text_tokens: int = 24  # width of the padded text; 0 pads to the longest of each batch
    cache_in_memory: bool = False  # keep every decoded sample (bf16 latents, uint8 pixels)
    on_device: bool = False  # all latents in one stack on the device that trains; needs clips of one size
    shuffle_shards: int = 16  # shards mixed at a time; more shuffles better and seeks more
    drop: dict[str, float] = field(default_factory=dict)  # modality -> probability of masking it out
    window: WindowConfig | None = None  # raw clips only: batches of windows cut where things move
    mirror: float = 0.0  # raw clips only: share of samples with left and right exchanged
    streams: tuple[str, ...] = STREAMS  # raw clips only: what is decoded; foreground: see `collate_raw`

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("prefetch", 1), ("shuffle_shards", 1)):
            if getattr(self, name) < least:
                raise DataError(f"data.{name}={getattr(self, name)} must be at least {least}")


def build_loader(
    config: LoaderConfig,
    codecs_fingerprints: Mapping[str, str] | None = None,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
) -> StatefulLoader:
    """Open the datasets, check them against the config, and return the loader of this rank.

    device: that of the batches of `config.on_device`; others are on the CPU.

    `DataError`: a missing or broken index, latents of other codecs than `codecs_fingerprints` ({"video": ...,
    "audio": ..., "text": ...}; None checks nothing), clips without a required stream (counted and named).
    """
    if not config.datasets:
        raise DataError(
            "data.datasets is empty: name at least one folder of shards, e.g. [{path: data/toybox/train}]"
        )
    for name, p in config.drop.items():
        if name not in _DROPPABLE or not 0 <= p <= 1:
            raise DataError(f"data.drop.{name}={p}: keys are {', '.join(_DROPPABLE)}, values probabilities")
    if config.kind == LATENTS and (config.window is not None or config.mirror):
        raise DataError("data.window and data.mirror change pixels: they need data.kind=raw")
    if not 0 <= config.mirror <= 1:
        raise DataError(f"data.mirror={config.mirror} must be in [0, 1]")
    if not set(config.streams) & set(STREAMS) or not set(config.streams) <= {*STREAMS, FOREGROUND}:
        raise DataError(
            f"data.streams={list(config.streams)}: name one or both of {', '.join(STREAMS)}, and {FOREGROUND} beside "
            "audio for the sound without ambience"
        )
    for d in config.datasets:
        if not d.streams or not set(d.streams) <= set(STREAMS):
            raise DataError(
                f"data.datasets: streams={list(d.streams)} of {d.path} must be one or both of {', '.join(STREAMS)}"
            )
        if not d.whole and (config.kind != LATENTS or config.on_device):
            raise DataError(
                f"data.datasets: streams={list(d.streams)} of {d.path} needs data.kind=latents and data.on_device=false"
            )
        if d.references and config.kind != LATENTS:
            raise DataError(f"data.datasets: references={d.references} of {d.path} needs data.kind=latents")
    if FOREGROUND in config.streams and "audio" not in config.streams:
        raise DataError(
            f"data.streams={list(config.streams)}: {FOREGROUND} needs audio, from which it is made"
        )
    if config.kind != LATENTS and config.on_device:
        raise DataError(f"data.on_device=true holds latents, not data.kind={config.kind}: set it to false")
    cached = config.cache_in_memory and not config.on_device
    datasets: list[LatentDataset | RawDataset] = [
        LatentDataset(d.path, cache_in_memory=cached, streams=d.streams)
        if config.kind == LATENTS
        else RawDataset(d.path, cache_in_memory=cached, streams=config.streams)
        for d in config.datasets
    ]
    if cached or config.on_device:
        needed = sum(d.held_bytes(c.clips) for c, d in zip(config.datasets, datasets, strict=True))
        setting, where = ("cache_in_memory", "cpu") if cached else ("on_device", device)
        _check_memory(needed, setting, torch.device(where))
    for dataset in datasets:
        _check_streams(dataset, config)
        if config.kind == LATENTS and codecs_fingerprints is not None:
            check_fingerprints(dataset.index.folder, dataset.index.fingerprints, codecs_fingerprints)
    geometries = [d.index.geometry for d in datasets]
    if any(g != geometries[0] for g in geometries):
        paths = ", ".join(d.path for d in config.datasets)
        raise DataError(
            f"the datasets {paths} were encoded by codecs of different strides; mix only latents of one"
        )
    return StatefulLoader(datasets, config, rank, world_size, device)


def _check_memory(needed: int, setting: str, device: torch.device) -> None:
    """A machine that runs out of memory stands still before it fails, a card fails halfway: say so at the start."""
    if device.type == "cuda":
        available = torch.cuda.mem_get_info(device)[0]
    else:
        available = psutil.virtual_memory().available
    if needed > 0.9 * available:
        raise DataError(
            f"data.{setting}=true would keep {needed / 1e9:.1f} GB of decoded samples on {device}, and "
            f"{available / 1e9:.1f} GB of memory are free there: set data.{setting}=false, which reads every sample "
            "when it is needed"
        )


def check_fingerprints(folder: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    stale = [name for name in wanted if found.get(name) != wanted[name]]
    if stale:
        what = "; ".join(f"{n}: {found.get(n)!r}, the run uses {wanted[n]!r}" for n in stale)
        raise DataError(
            f"latents in {folder} were made by other codecs ({what}). Encode the raw shards again "
            f"with the codecs of the run: `sora2 encode RAW --out {folder} --overwrite`, or point the run at "
            "the codecs that made them."
        )


def _check_streams(dataset: LatentDataset | RawDataset, config: LoaderConfig) -> None:
    index = dataset.index
    for name, required in (("audio", config.require_audio), ("video", config.require_video)):
        if not (required and name in dataset.streams):
            continue
        lacking = [i for i, b in enumerate(index.buckets) if not getattr(b, f"has_{name}")]
        rows = np.flatnonzero(np.isin(index.bucket, lacking))
        if len(rows):
            shown = ", ".join(dataset.where(int(i)) for i in rows[:5]) + (" ..." if len(rows) > 5 else "")
            raise DataError(
                f"{len(rows)} of {len(index)} clips in {index.folder} have no {name}, which "
                f"data.require_{name}=true needs: {shown}. Ingest again with `--audio required`, or set "
                f"data.require_{name}=false to train on them with the {name} masked."
            )


def _bucket_names(buckets: Sequence[Bucket], counts: np.ndarray) -> dict[Bucket, str]:
    """Bucket -> name of the batch group it joins.

    Clips that lack a stream join the most frequent group that agrees in the stream they have, and are masked
    there; without such a group they form their own.
    """
    whole = sorted(
        (b for b in buckets if b.has_video and b.has_audio), key=lambda b: (-counts[buckets.index(b)], b)
    )
    names = {}
    for bucket in buckets:
        host = bucket
        if not bucket.has_audio:
            host = next((b for b in whole if b.picture == bucket.picture), bucket)
        elif not bucket.has_video:
            host = next((b for b in whole if b.sound == bucket.sound), bucket)
        names[bucket] = str(host)
    return names


def _streams(
    datasets: Sequence[LatentDataset | RawDataset], configs: Sequence[DatasetConfig]
) -> list[Stream]:
    table = sorted({b for d in datasets for b in d.index.buckets})
    counts = np.zeros(len(table), dtype=np.int64)
    for d in datasets:
        for i, n in enumerate(np.bincount(d.index.bucket, minlength=len(d.index.buckets))):
            counts[table.index(d.index.buckets[i])] += n
    names = _bucket_names(table, counts)
    streams = []
    for number, (dataset, config) in enumerate(zip(datasets, configs, strict=True)):
        if not config.weight > 0:
            raise DataError(
                f"the weight of {dataset.index.folder} is {config.weight}: it must be positive, or leave it out"
            )
        total = config.count(dataset)
        groups: dict[str, list[int]] = {}
        for i, bucket in enumerate(dataset.index.buckets):
            name = names[bucket] if config.whole else f"{bucket.only(config.streams)} alone"
            name += ", beside references" if config.references else ""
            groups.setdefault(name, []).append(i)
        for name, members in sorted(groups.items()):
            rows = np.flatnonzero(np.isin(dataset.index.bucket[:total], members))
            share = config.weight * len(rows) / total
            if len(rows):
                streams.append(
                    Stream(f"{number}/{name}", number, name, rows, dataset.index.shard[rows], share)
                )
    return streams


class StatefulLoader:
    """Iterates `Batch` (latents) or dicts (raw) without end. `samples_seen` counts samples over all ranks."""

    def __init__(
        self,
        datasets: Sequence[LatentDataset | RawDataset],
        config: LoaderConfig,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if config.batch_size < 1 or not 0 <= rank < world_size:
            raise DataError(f"batch_size={config.batch_size}, rank={rank}, world_size={world_size} cannot be")
        self.datasets = list(datasets)
        self.config = config
        self.rank = rank
        self.global_batch = config.batch_size * world_size
        streams = _streams(self.datasets, config.datasets)
        self.order = SampleOrder(streams, self.global_batch, config.seed, config.shuffle_shards)
        contents = [d.index.content_hash() for d in self.datasets]
        parts: tuple[Any, ...] = (contents, [d.weight for d in config.datasets], config.shuffle_shards)
        if any(d.clips is not None for d in config.datasets):
            parts += ([d.clips for d in config.datasets],)
        if not all(d.whole for d in config.datasets):
            parts += ([sorted(d.streams) for d in config.datasets],)
        if any(d.references for d in config.datasets):
            parts += ([d.references for d in config.datasets],)
        self.identity = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        self.references = [
            References(d.index, c.count(d), c.references, config.seed) if c.references else None
            for c, d in zip(config.datasets, datasets, strict=True)
        ]
        self.samples_seen = 0
        self.wait_seconds = 0.0
        self._ahead = 0  # where the next batch to be read starts
        self._pending: deque[Future[Any]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._resident: ResidentLatents | None = None
        if config.on_device:
            self._resident = ResidentLatents(
                self.datasets,
                [c.count(d) for c, d in zip(config.datasets, datasets, strict=True)],
                torch.device(device),
                patch_size=config.patch_size,
                max_text_tokens=config.max_text_tokens,
            )

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        started = time.perf_counter()
        if self.config.workers == 0 or self._resident is not None:  # a gather is queued, not waited for
            batch = self._read(*self._plan())
        else:
            while len(self._pending) < max(1, self.config.prefetch) * self.config.workers:
                self._pending.append(self._submit())
            batch = self._pending.popleft().result()
            self._pending.append(self._submit())
        self.samples_seen += self.global_batch
        self.wait_seconds += time.perf_counter() - started
        return batch

    def _submit(self) -> Future[Any]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="sora2-loader")
        return self._pool.submit(self._read, *self._plan())

    def _plan(self) -> tuple[int, list[tuple[int, int]]]:
        """Where the next global batch starts, and (dataset, sample) of this rank's slice of it."""
        planned = self.order.plan(self._ahead)
        batch_start = self._ahead
        first = self.rank * self.config.batch_size
        self._ahead += self.global_batch
        return batch_start, planned[first : first + self.config.batch_size]

    def _read(self, batch_start: int, rows: list[tuple[int, int]]) -> Any:
        start = batch_start + self.rank * self.config.batch_size
        if self._resident is not None:
            return self._resident.batch(rows, self._dropped(start, len(rows)), self._companions(start, rows))
        samples = [self.datasets[d][i] for d, i in rows]
        if self.config.kind != LATENTS:
            clips = self._augment(samples, batch_start, start)
            quiet = None
            if FOREGROUND in self.config.streams:
                quiet = self._augment([foreground(clip) for clip in samples], batch_start, start)
            return collate_raw(clips, quiet)
        return collate_latents(
            samples,
            self.datasets[0].index.geometry,
            patch_size=self.config.patch_size,
            max_text_tokens=self.config.max_text_tokens,
            dropped=self._dropped(start, len(rows)),
            references=[
                None if c is None else self.datasets[c[0]][c[1]] for c in self._companions(start, rows)
            ],
        )

    def _dropped(self, start: int, count: int) -> dict[str, np.ndarray]:
        """Modality -> (count,) bool: the samples from `start` on that go without it."""
        return {
            name: uniform(self.config.seed, name, start, count) < p
            for name, p in self.config.drop.items()
            if p > 0
        }

    def _companions(self, start: int, rows: list[tuple[int, int]]) -> list[tuple[int, int] | None]:
        """(dataset, sample) of another clip of each sample's person; None where there is to be none."""
        found: list[tuple[int, int] | None] = [None] * len(rows)
        for number, references in enumerate(self.references):
            if references is None:
                continue
            chosen = references.choose([i if d == number else -1 for d, i in rows], start)
            for row, other in enumerate(chosen):
                if other is not None:
                    found[row] = (number, other)
        return found

    def _augment(self, clips: list[Clip], batch_start: int, start: int) -> list[Clip]:
        config = self.config
        if config.window is not None and is_window_batch(config.window, config.seed, batch_start):
            clips = cut_windows(clips, config.window, config.seed, start)
        if config.mirror:
            chosen = uniform(config.seed, "mirror", start, len(clips)) < config.mirror
            clips = [mirror(clip) if yes else clip for clip, yes in zip(clips, chosen, strict=True)]
        return clips

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch delivered (not after the last one read ahead)."""
        return {
            "version": _STATE_VERSION,
            "samples_seen": self.samples_seen,
            "seed": self.config.seed,
            "global_batch": self.global_batch,
            "datasets": self.identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at `state["samples_seen"]`, whatever the number of workers or ranks that wrote the state.

        `DataError` when the order would not be the same: other data, weights or seed, or, with several
        buckets, another global batch.
        """
        mine = self.state_dict()
        if state["version"] != _STATE_VERSION:
            raise DataError(f"loader state of version {state['version']}; this code reads {_STATE_VERSION}")
        names = {"seed": "the seed", "datasets": "the samples, their order on disk or their weights"}
        if len(self.order.buckets) > 1:
            names["global_batch"] = (
                f"batch_size * world size (with {len(self.order.buckets)} buckets it shapes the order)"
            )
        for key, what in names.items():
            if state[key] != mine[key]:
                raise DataError(
                    f"cannot continue at sample {state['samples_seen']}: {what} changed since the checkpoint "
                    f"({key}: {state[key]} -> {mine[key]}). Restore it, or start a new run "
                    "from the weights alone."
                )
        self._discard()
        self.order.seek(int(state["samples_seen"]))
        self.samples_seen = self._ahead = int(state["samples_seen"])

    def _discard(self) -> None:
        for future in self._pending:
            future.cancel()
        for future in self._pending:
            if not future.cancelled():
                future.exception()  # wait until it no longer reads; what it read is not needed
        self._pending.clear()

    def close(self) -> None:
        self._discard()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        for dataset in self.datasets:
            dataset.close()

    def __enter__(self) -> StatefulLoader:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
