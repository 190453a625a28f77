"""A causal transformer run chunk by chunk: the same velocities as over the whole film, each token computed once.

`Film` says which tokens a chunk holds and what its layers see; `Stream` runs a model over the chunks in order with a
key-value cache. Sampling may run the current chunk many times, at any levels, before it moves on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.kernels import Rule, TilePattern, Tiles, Tiling
from sora2.kernels.rules import TIMELESS
from sora2.model.cache import KVCache
from sora2.model.config import AttentionConfig, ModelError, TransformerConfig
from sora2.model.packing import OUTPUTS, Segment, plan_segments, tile
from sora2.types import Batch, Modality

Network = Callable[[Batch, KVCache], dict[str, Tensor]]


@dataclass(frozen=True)
class Chunk:
    """The tokens of a film in one stretch of `chunk_seconds`."""

    index: int  # it covers [index, index + 1) * chunk_seconds
    tokens: dict[str, Tensor]  # stream of the film -> (n,) raster indices, in tile order; n may be 0
    tiles: Tensor  # (tiles,) int64 of the film's tiling

    @property
    def count(self) -> int:
        return sum(len(index) for index in self.tokens.values())

    def of(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per stream, the chunk's tokens of (B, N, ...)."""
        return {n: values[n].index_select(1, i.to(values[n].device)) for n, i in self.tokens.items()}

    def take(self, batch: Batch) -> Batch:
        """The same batch with the chunk's tokens of video and audio only."""
        changes = {}
        for name, index in self.tokens.items():
            m = getattr(batch, name)
            index = index.to(m.latent.device)
            parts = (m.latent, m.positions, m.noise_level, m.mask)
            changes[name] = Modality(*(x.index_select(1, index) for x in parts))
        return batch.replace(**changes)


@dataclass(frozen=True)
class Film:
    """The chunks of a whole film, in order of time."""

    attention: AttentionConfig
    tiling: Tiling
    prefix: Tensor  # tiles of text and references
    chunks: list[Chunk]

    @classmethod
    def of(cls, batch: Batch, attention: AttentionConfig) -> Film:
        """From a batch of the whole film; of its latents and levels nothing is read.

        Raises ModelError when the model is not causal, or the samples differ in their clock.
        """
        if attention.chunk_seconds is None:
            raise ModelError("only a causal model streams: this one has model.attention.chunk_seconds=null")
        segments = plan_segments(batch)
        tiling, _ = tile(batch, segments, attention)
        assert tiling.rank is not None
        if tiling.rank.shape[0] > 1:
            raise ModelError("the samples of a streamed batch must share one clock")
        start = tiling.tiles.start[:-1].long()
        rank = tiling.rank[0, start]  # (tiles,)
        if not torch.equal(rank.repeat_interleave(tiling.tiles.length), tiling.rank[0]):
            raise ModelError("the tokens of a streamed film must be in order of time")
        chunks = []
        for index in rank[rank != TIMELESS].unique().tolist():
            tiles = (rank == index).nonzero()[:, 0]
            chunks.append(Chunk(index, _tokens(tiling, segments, index), tiles))
        return cls(attention, tiling, (rank == TIMELESS).nonzero()[:, 0], chunks)

    def oldest(self, current: int, history_seconds: float | None) -> int:
        """Position in `chunks` of the first chunk that the `current`-th sees.

        With `history_seconds`, a chunk and what it sees together are at most that long, and the chunk before it is
        always seen.
        """
        if history_seconds is None or self.attention.chunk_seconds is None:
            return 0
        reach = max(2, int(history_seconds / self.attention.chunk_seconds + 1e-6))
        first = self.chunks[current].index - reach + 1
        return next(i for i, c in enumerate(self.chunks) if c.index >= first)

    def clock(self, current: int, history_seconds: float | None) -> float:
        """Seconds by which the clock of the `current`-th chunk is set back, for those that are forgotten."""
        gone = self.chunks[self.oldest(current, history_seconds)].index - self.chunks[0].index
        return gone * (self.attention.chunk_seconds or 0.0)

    def patterns(
        self, current: int, oldest: int, prefix: bool, device: torch.device
    ) -> dict[Rule, TilePattern | None]:
        """What the `current`-th chunk sees under each rule: keys in order of arrival, [prefix | oldest .. current]."""
        seen = [c.tiles for c in self.chunks[oldest : current + 1]]
        keys = torch.cat([self.prefix, *seen] if prefix else seen)
        queries = self.chunks[current].tiles
        found: dict[Rule, TilePattern | None] = {}
        for rule in set(self.attention.layers):
            if rule.is_dense:
                found[rule] = None
                continue
            kept = self.tiling.kept(rule, queries, keys).unsqueeze(0)
            found[rule] = TilePattern.of_matrix(self._of(queries), self._of(keys), kept).to(device)
        return found

    def _of(self, tiles: Tensor) -> Tiles:
        own = self.tiling.tiles
        return Tiles.of_lengths(own.length[tiles], own.kind[tiles])


def _tokens(tiling: Tiling, segments: tuple[Segment, ...], index: int) -> dict[str, Tensor]:
    assert tiling.rank is not None
    found = {}
    for s in segments:
        mine = tiling.rank[0, s.sequence] == index
        if s.name in OUTPUTS:
            found[s.name] = tiling.order[s.sequence][mine] - s.start
    return found


class Stream:
    """One model over one film, from its first chunk to its last. Use under `torch.no_grad` or `inference_mode`."""

    def __init__(
        self,
        model: Network,
        config: TransformerConfig,
        film: Film,
        conditions: Batch | Sequence[Batch],
        history_seconds: float | None = None,
    ) -> None:
        """
        Args:
            model: the transformer of `config`, or a function around it.
            conditions: text and references, as in the film's batch; its video and audio are not read. One batch for
                each chunk, or one for all; other ones of as many tokens take the place of those before them, and
                text that has a time has it on the clock of its chunk (`Film.clock`).
            history_seconds: how much film attention spans, the current chunk included; None = all of it. Beyond, old
                chunks are forgotten and the clock is set back, so that the model meets no time it was not trained on.
        """
        self.model, self.film, self.history_seconds = model, film, history_seconds
        self.current, self._oldest = 0, 0
        self.clock = 0.0  # seconds by which positions are set back
        self.told = [conditions] * len(film.chunks) if isinstance(conditions, Batch) else list(conditions)
        shown = [list(_prefix(batch).modalities().values()) for batch in self.told]
        counts = {sum(m.tokens for m in modalities) for modalities in shown}
        if len(self.told) != len(film.chunks) or len(counts) > 1:
            raise ModelError(
                f"a streamed film of {len(film.chunks)} chunks is told by one batch for each, all of as many tokens "
                f"of text and references; given are {len(self.told)} of {sorted(counts)}"
            )
        self.prefix = any(bool(m.mask.any()) for modalities in shown for m in modalities)
        self.prefix_tokens = counts.pop() if self.prefix else 0
        first = next(iter(self.told[0].modalities().values())).latent
        self.cache = KVCache(config, self.told[0].size, self._capacity(), first.device)
        self._begin()

    def _capacity(self) -> int:
        counts = [c.count for c in self.film.chunks]
        spans = [sum(counts[self._first(i) : i + 1]) for i in range(len(counts))]
        return self.prefix_tokens + max(spans)

    def _first(self, current: int) -> int:
        return self.film.oldest(current, self.history_seconds)

    @property
    def chunk(self) -> Chunk:
        return self.film.chunks[self.current]

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Velocities of the current chunk's tokens, given as `chunk.take` gives them, at any levels."""
        streams = {n: getattr(batch, n) for n in self.chunk.tokens}
        shown = Batch(**{n: _set_back(m, self.clock) for n, m in streams.items() if m.tokens})
        velocity = self.model(shown, self.cache)
        return {n: velocity[n] if n in velocity else torch.zeros_like(m.latent) for n, m in streams.items()}

    def advance(self, clean: Batch) -> None:
        """Keep the current chunk, finished: its tokens as later chunks are to see them, at level 0. Go to the next."""
        self(clean)
        self.cache.commit()
        self.current += 1
        if self.current < len(self.film.chunks):
            self._begin()

    def _begin(self) -> None:
        oldest = self._first(self.current)
        if oldest > self._oldest:
            gone = self.film.chunks[self._oldest : oldest]
            first = self.prefix_tokens
            self.cache.drop(first, first + sum(c.count for c in gone))
            clock = self.film.clock(self.current, self.history_seconds)
            self.cache.set_back(first, clock - self.clock)
            self.clock, self._oldest = clock, oldest
        if self.prefix and (self.current == 0 or self.told[self.current] is not self.told[self.current - 1]):
            with self.cache.anew():
                self.model(_prefix(self.told[self.current]), self.cache)
            self.cache.text = self.told[self.current].text
        self.cache.patterns = self.film.patterns(self.current, oldest, self.prefix, self.cache.mask.device)


def _prefix(batch: Batch) -> Batch:
    """Its text and references: what sees nothing else of a film."""
    return batch.replace(video=None, audio=None)


def _set_back(modality: Modality, seconds: float) -> Modality:
    shift = torch.tensor([seconds, 0.0, 0.0], device=modality.positions.device)
    return modality.replace(positions=modality.positions - shift)
