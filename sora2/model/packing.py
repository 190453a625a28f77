"""How the modalities of a batch lie in memory and in the attention sequence.

Between attentions every operation is token-wise, so tokens are kept modality-major: a flat (T, D) tensor
whose rows are all text tokens of the batch, then all reference, video and audio tokens. A modality is then
one contiguous slice: its own feed-forward and its own modulation need no gather and no copy. Only attention
sees the per-sample sequence [text | reference_video | reference_audio | video | audio] of length N.

Where attention has a pattern, the video tokens of a sample lie in tile order, not in raster order, from the
projection in to the projection out; so do their positions, levels and masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.host import on_host, send
from sora2.kernels import Rule, Runs, Span, TilePattern, Tiling, cached_tiling
from sora2.model.cache import KVCache
from sora2.model.config import GROUP_OF, AttentionConfig, ModelError, TransformerConfig
from sora2.model.rope import rotation_angles
from sora2.model.share import Share, Sharing
from sora2.types import Batch, Modality

#: The patterns of a tiling, made once.
Known = dict[tuple[Rule, torch.device], TilePattern]
#: Runs of at least this many tokens are few.
RUN_TOKENS = 4

#: The modalities that are generated; the others are always conditions.
OUTPUTS = ("video", "audio")


@dataclass(frozen=True)
class Segment:
    """One modality: rows [row, row + batch * tokens) of the stream, [start, start + tokens) of each sequence."""

    name: str
    group: str
    batch: int
    tokens: int
    row: int
    start: int

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + self.batch * self.tokens)

    @property
    def sequence(self) -> slice:
        return slice(self.start, self.start + self.tokens)


@dataclass(frozen=True)
class Packing:
    """The layout of one batch, computed once per forward and read by every block."""

    segments: tuple[Segment, ...]
    batch: int
    tokens: int  # N of the attention sequence
    cosine: Tensor  # (B or 1, N, head_width / 2)
    sine: Tensor
    modalities: dict[str, Modality]  # of the stream, in its order
    text: Modality | None  # all of a sequence's, also where the stream has some of its tokens
    raster: dict[str, Tensor]  # per reordered modality (n,): where each raster token lies in tile order
    patterns: dict[Rule, TilePattern | None]  # per rule of the layers, padding included; None = everything
    key_mask: Tensor | None  # (B, N) bool for layers without a pattern; None when no token is padding
    cache: KVCache | None  # keys and values of tokens that are not in this batch
    share: (
        Share | None
    )  # where the stream has some of a sequence's tokens: patterns and masks are of all of them
    levels: tuple[Tensor, ...]  # per segment (U,): its distinct noise levels
    level_of_run: tuple[Tensor, ...]  # per segment (batch * runs,): the distinct level of each run of tokens
    runs: tuple[Runs, ...]  # per segment: where its runs lie

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(Span(s.rows, s.sequence) for s in self.segments)

    def split(self, flat: Tensor) -> list[Tensor]:
        """(T, C) -> one (B * tokens, C) view per segment."""
        return list(flat.split([s.batch * s.tokens for s in self.segments]))


def places(name: str, modality: Modality, batch: Batch, config: TransformerConfig) -> Tensor:
    """(B, N, 3) of (seconds, y, x) for the rotation, float32 on the CPU; the ablation `rope_fps` puts pictures where
    they would be at that rate.

    Raises:
        ModelError: `rope_fps` without the shape that knows the clip's rate.
    """
    positions = on_host(modality.positions).float()
    if config.rope_fps is None or name != "video":
        return positions
    if batch.video_shape is None:
        raise ModelError(
            f"model.rope_fps={config.rope_fps} needs batch.video_shape, which has the frame rate"
        )
    return positions * torch.tensor([batch.video_shape.fps / config.rope_fps, 1.0, 1.0])


def pack(
    batch: Batch,
    config: TransformerConfig,
    cache: KVCache | None = None,
    among: Sharing | None = None,
) -> Packing:
    """Plan the packed sequence of a batch, or of the chunk of a film whose earlier tokens are in `cache`.

    With `among` the stream holds a share of the tokens, and only attention sees the others.

    Raises:
        ModelError: a modality's token width differs from the configuration's; a film with a cache is to be shared.
    """
    if cache is not None and among is not None:
        raise ModelError(
            "a film that is streamed with a cache cannot be shared by processes: let each make its own"
        )
    present = batch.modalities()
    size = batch.size
    segments, raster = plan_segments(batch), dict[str, Tensor]()
    for s in segments:
        m = present[s.name]
        if m.latent.shape[0] != size or m.latent.shape[2] != config.token_width(s.group):
            raise ModelError(
                f"batch.{s.name}.latent is {tuple(m.latent.shape)}; expected ({size}, N, "
                f"{config.token_width(s.group)}) from the batch size and model.{s.group}_width"
            )
    device = next(iter(present.values())).latent.device
    tiling: Tiling | None = None
    known: Known = {}
    if cache is None and not config.attention.is_dense:
        tiling, known = tile(batch, segments, config.attention)
        present, raster = reorder(present, segments, tiling.order.to(device))
    whole = all(bool(on_host(m.mask).all()) for m in present.values())
    mask = torch.cat([m.mask for m in present.values()], dim=1)  # (B, N)
    text = present.get("text")
    share = None if among is None else among.divide(present)
    if share is not None:
        present = share.modalities
        segments = lay_out(present, size)
    # Everything that decides how to compute is read on the host, each tensor once: no waiting inside the blocks.
    clocks = [places(name, m, batch, config) for name, m in present.items()]
    if all(c.stride(0) == 0 for c in clocks):
        clocks = [c[:1] for c in clocks]
    positions = torch.cat(clocks, dim=1)  # (B or 1, N, 3)
    if len(positions) > 1 and bool((positions == positions[:1]).all()):
        positions = positions[:1]  # one bucket, one clock: the rotation is computed once and broadcast
    angles = rotation_angles(positions, config)  # 0 at the origin, where text lies that has no time
    key_mask = None if whole else mask
    if cache is not None:
        patterns, key_mask = cache.view(mask)
    else:
        patterns = {
            rule: find_pattern(rule, tiling, known, key_mask, device) for rule in set(config.attention.layers)
        }
    levels, level_of_run, by_run = [], [], []
    for s in segments:
        per_run = level_runs(on_host(present[s.name].noise_level).detach())  # (B, R)
        distinct, index = distinct_levels(per_run)  # (U,), (B, R)
        by_run.append(lay_out_by_run(s.tokens, per_run, distinct))
        levels.append(distinct)
        level_of_run.append(index.flatten())
    cosine, sine, *sent = send([angles.cos(), angles.sin(), *levels, *level_of_run], device)
    levels, level_of_run = sent[: len(segments)], sent[len(segments) :]
    runs = [
        Runs(s.rows, size, len(index) // max(1, size), None if yes else index)
        for s, index, yes in zip(segments, level_of_run, by_run, strict=True)
    ]
    return Packing(
        segments=segments,
        batch=size,
        tokens=sum(s.tokens for s in segments),
        cosine=cosine,
        sine=sine,
        modalities=present,
        text=text,
        raster=raster,
        patterns=patterns,
        key_mask=key_mask,
        cache=cache,
        share=share,
        levels=tuple(levels),
        level_of_run=tuple(level_of_run),
        runs=tuple(runs),
    )


def plan_segments(batch: Batch) -> tuple[Segment, ...]:
    """Where the modalities of a batch lie, in packing order."""
    return lay_out(batch.modalities(), batch.size)


def lay_out(present: dict[str, Modality], size: int) -> tuple[Segment, ...]:
    """One segment after the other, for a batch of `size`."""
    segments, row, start = [], 0, 0
    for name, m in present.items():
        segments.append(Segment(name, GROUP_OF[name], size, m.tokens, row, start))
        row, start = row + size * m.tokens, start + m.tokens
    return tuple(segments)


def tile(batch: Batch, segments: tuple[Segment, ...], attention: AttentionConfig) -> tuple[Tiling, Known]:
    """The tiles of a batch's sequence, and the patterns found so far for them; both are remembered.

    The grid of the video is that of `batch.video_shape`; without it, or with padding behind it, tiles run along the
    raster.
    """
    present = batch.modalities()
    times = [on_host(present[s.name].positions)[..., 0] for s in segments]
    times = [
        t * 0 if s.name == "text" else t for t, s in zip(times, segments, strict=True)
    ]  # all see all of it
    clock = torch.cat(times, dim=1).float()  # (B, N)
    if bool((clock == clock[:1]).all()):
        clock = clock[:1]
    parts = []
    for s in segments:
        shape = batch.video_shape if s.name == "video" else None
        parts.append(
            (s.name, s.tokens, shape.grid if shape is not None and shape.tokens == s.tokens else None)
        )
    return cached_tiling(
        tuple(parts),
        clock.contiguous().numpy().tobytes(),
        attention.tile,
        attention.flat_tile,
        attention.chunk_seconds,
    )


def reorder(
    present: dict[str, Modality], segments: tuple[Segment, ...], order: Tensor
) -> tuple[dict[str, Modality], dict[str, Tensor]]:
    """The modalities in tile order, and per modality that this changes the way back to its raster."""
    found, raster = dict(present), {}
    for s in segments:
        local = order[s.sequence] - s.start
        if bool((local.diff() == 1).all()):
            continue
        m = present[s.name]
        found[s.name] = Modality(
            *(x.index_select(1, local) for x in (m.latent, m.positions, m.noise_level, m.mask))
        )
        raster[s.name] = local.argsort()
    return found, raster


def find_pattern(
    rule: Rule,
    tiling: Tiling | None,
    known: Known,
    key_mask: Tensor | None,
    device: torch.device,
) -> TilePattern | None:
    """The pattern of a rule with the batch's padding; None where all see all."""
    if tiling is None or (rule.is_dense and tiling.rank is None):
        return None
    where = device if key_mask is None else torch.device("cpu")
    if (rule, where) not in known:
        known[rule, where] = tiling.pattern(rule).to(where)
    pattern = known[rule, where]  # and what kernels have prepared of it
    return pattern if key_mask is None else pattern.with_padding(on_host(key_mask)).to(device)


def lay_out_by_run(tokens: int, per_run: Tensor, distinct: Tensor) -> bool:
    """Whether a segment's modulation has one row per run, made once per forward.

    Else it has one row per distinct level, looked up where it is used: right when runs are many and levels few.
    """
    return per_run.shape[1] * RUN_TOKENS <= tokens or 2 * len(distinct) > per_run.numel()


def distinct_levels(per_run: Tensor) -> tuple[Tensor, Tensor]:
    """(B, R) -> the rising distinct levels (U,), and which of them each run has, (B, R).

    Neighbours are often alike: only the first of each stretch of equals is sorted, a tenth of the time.
    """
    flat = per_run.flatten()
    new = torch.ones(len(flat), dtype=torch.bool)
    new[1:] = flat[1:] != flat[:-1]
    distinct, index = flat[new].unique(return_inverse=True)
    return distinct, index[new.cumsum(0) - 1].view(per_run.shape)


def level_runs(level: Tensor) -> Tensor:
    """(B, N) -> (B, R): the level of each run, for the fewest runs of equal length N / R that hold one level.

    One level per clip is one run; one per frame is one run per frame; one per token is runs of one token.
    """
    n = level.shape[1]
    changes = ((level[:, 1:] != level[:, :-1]).any(dim=0).nonzero()[:, 0] + 1).tolist()  # in some sample
    for runs in range(1, n):
        if n % runs == 0 and not any(at % (n // runs) for at in changes):
            return level[:, :: n // runs]
    return level
