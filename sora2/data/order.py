"""The order of training samples: a pure function of (seed, samples seen), whatever reads them.

Samples fall into streams, one per (dataset, bucket). Every global batch is drawn from one bucket; within it,
each slot takes the next sample of one stream. Both choices follow a golden-ratio (Weyl) sequence in exact
integer arithmetic, so that any number of draws is proportional to the weights to within a few samples, and
the number of draws of every stream after n samples can be counted without replaying reads. Each stream runs
through epochs of permutations; a permutation shuffles shards, then samples within a window of a few shards,
so that a pass over a disk touches few files at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sora2.data.errors import DataError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
_PLASTIC = np.uint64(0xC13FA9A902A6328F)  # a second irrational rotation, for the buckets
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Stream:
    """Samples that may share a batch: one bucket of one dataset."""

    name: str
    dataset: int
    bucket: str
    samples: np.ndarray  # (n,) sample numbers within the dataset, in disk order
    shards: np.ndarray  # (n,) shard number of each
    weight: float  # share of all draws; need not be normalised


@dataclass
class _Epoch:
    number: int = -1
    samples: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


def _rotation(start: int, stop: int, multiplier: np.uint64, phase: int) -> np.ndarray:
    """(stop - start,) uint64: the Weyl sequence phase + k * multiplier modulo 2**64."""
    k = np.arange(start, stop, dtype=np.uint64)
    return k * multiplier + np.uint64(phase)


def _thresholds(weights: Sequence[float]) -> np.ndarray:
    """Upper ends of the intervals of [0, 2**64) that belong to each choice, all but the last."""
    share = np.cumsum(np.asarray(weights, dtype=np.float64) / np.sum(weights))
    return np.array([min(int(s * 2**64), 2**64 - 1) for s in share[:-1]], dtype=np.uint64)


class SampleOrder:
    """Endless sequence of global batches. `plan(samples_seen)` gives the batch that starts there.

    `batch` is the global batch size (all ranks). With one bucket the sequence of samples does not depend on
    it; with several, the bucket changes at batch boundaries, so it does, and `samples_seen` must be a
    multiple of it.
    """

    def __init__(self, streams: Sequence[Stream], batch: int, seed: int, shuffle_shards: int = 16) -> None:
        if not streams:
            raise DataError("no samples to order: every dataset is empty")
        self.streams = list(streams)
        self.batch = batch
        self.seed = seed
        self.shuffle_shards = shuffle_shards
        names = sorted({s.bucket for s in self.streams})
        self.buckets = [[i for i, s in enumerate(self.streams) if s.bucket == name] for name in names]
        phase = np.random.default_rng([seed, 1]).integers(0, 2**63, size=1 + len(self.buckets))
        self._phases = [int(p) for p in phase]
        self._bucket_ends = _thresholds([sum(self.streams[i].weight for i in b) for b in self.buckets])
        self._stream_ends = [_thresholds([self.streams[i].weight for i in b]) for b in self.buckets]
        self._epochs = [_Epoch() for _ in self.streams]
        self._position = 0
        self._batches = [0] * len(self.buckets)  # batches drawn from each bucket before `_position`
        self._drawn = [0] * len(self.streams)  # samples drawn from each stream before `_position`

    def _bucket_choice(self, start: int, stop: int) -> np.ndarray:
        return np.searchsorted(
            self._bucket_ends, _rotation(start, stop, _PLASTIC, self._phases[0]), side="right"
        )

    def _stream_choice(self, bucket: int, start: int, stop: int) -> np.ndarray:
        rotation = _rotation(start, stop, _GOLDEN, self._phases[1 + bucket])
        return np.searchsorted(self._stream_ends[bucket], rotation, side="right")

    def seek(self, samples_seen: int) -> None:
        """Count what was drawn from every stream in the first `samples_seen` samples."""
        if len(self.buckets) == 1:
            slots = [samples_seen]
            self._batches = [0]
        else:
            if samples_seen % self.batch:
                raise DataError(
                    f"samples_seen={samples_seen} is not a multiple of the global batch {self.batch}: with "
                    f"several buckets training can only continue at a batch boundary"
                )
            counts = np.zeros(len(self.buckets), dtype=np.int64)
            steps = samples_seen // self.batch
            for start in range(0, steps, _CHUNK):
                choice = self._bucket_choice(start, min(start + _CHUNK, steps))
                counts += np.bincount(choice, minlength=len(self.buckets))
            self._batches = counts.tolist()
            slots = [c * self.batch for c in self._batches]
        for bucket, members in enumerate(self.buckets):
            drawn = np.zeros(len(members), dtype=np.int64)
            if len(members) == 1:
                drawn[0] = slots[bucket]
            else:
                for start in range(0, slots[bucket], _CHUNK):
                    choice = self._stream_choice(bucket, start, min(start + _CHUNK, slots[bucket]))
                    drawn += np.bincount(choice, minlength=len(members))
            for member, count in zip(members, drawn.tolist(), strict=True):
                self._drawn[member] = count
        self._position = samples_seen

    def plan(self, samples_seen: int) -> list[tuple[int, int]]:
        """(dataset, sample) of the `batch` slots that follow `samples_seen`. Cheap when called in
        sequence."""
        if samples_seen != self._position:
            self.seek(samples_seen)
        if len(self.buckets) == 1:
            bucket, first_slot = 0, samples_seen
        else:
            step = samples_seen // self.batch
            bucket = int(self._bucket_choice(step, step + 1)[0])
            first_slot = self._batches[bucket] * self.batch
        members = self.buckets[bucket]
        choice = self._stream_choice(bucket, first_slot, first_slot + self.batch)
        planned: list[tuple[int, int]] = [(-1, -1)] * self.batch
        for local, member in enumerate(members):
            slots = np.flatnonzero(choice == local)
            taken = self._take(member, len(slots))
            dataset = self.streams[member].dataset
            for slot, sample in zip(slots.tolist(), taken.tolist(), strict=True):
                planned[slot] = (dataset, sample)
        self._batches[bucket] += 1
        self._position = samples_seen + self.batch
        return planned

    def _take(self, member: int, count: int) -> np.ndarray:
        length = len(self.streams[member].samples)
        parts = []
        while count:
            epoch, at = divmod(self._drawn[member], length)
            part = self._permutation(member, epoch)[at : at + count]
            parts.append(part)
            count -= len(part)
            self._drawn[member] += len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _permutation(self, member: int, epoch: int) -> np.ndarray:
        cached = self._epochs[member]
        if cached.number != epoch:
            stream = self.streams[member]
            rng = np.random.default_rng([self.seed, zlib.crc32(stream.name.encode()), epoch])
            shards, inverse = np.unique(stream.shards, return_inverse=True)
            window = rng.permutation(len(shards))[inverse] // self.shuffle_shards
            order = np.argsort(window + rng.random(len(stream.samples)), kind="stable")
            cached.number, cached.samples = epoch, stream.samples[order]
        return cached.samples


def uniform(seed: int, purpose: str, start: int, count: int) -> np.ndarray:
    """(count,) float64 in [0, 1): one number per global sample position, whatever the batch or the rank
    (splitmix64)."""
    z = np.arange(start, start + count, dtype=np.uint64)
    z += np.uint64(zlib.crc32(purpose.encode())) << np.uint64(32)
    z += np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    z *= _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53
