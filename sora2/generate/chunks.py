"""Clips longer than the model was trained on, in chunks: a clean piece of what is there, and new frames
beside it.

Every chunk is a window of the trained length on a clock of its own, shared by video and sound: the overlap
with what exists is its known prefix (or suffix), encoded anew from pixels and samples, so positions never
leave the trained range and any codec works. About half of a window is overlap.

A causal model needs no windows: a shot is one chunk of any length here, streamed by `generate/streaming.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sora2.generate.grid import World


@dataclass(frozen=True)
class Chunk:
    """Frames start .. start + frames - 1 of the clip, of which `known_frames` at one end are there already.

    The end of a forward chunk may reach beyond `end`, and the beginning of a backward one beyond the clip; that part
    is dropped.
    """

    start: int
    frames: int
    known_frames: int  # 0: nothing but the request's own known parts is there
    end: int
    suffix: bool = False  # the known frames are the last ones


def overlap(world: World, available: int) -> int:
    """Known frames of a forward chunk, 1 + k * stride: at most half a window, at least one frame."""
    stride = world.temporal_stride
    most = min(available, 1 + (world.frames - 1) // stride // 2 * stride)
    return 1 + (most - 1) // stride * stride


def forward_chunks(world: World, total: int, known: int = 0, shot: int = 0) -> list[Chunk]:
    """Chunks that fill frames known .. total - 1 from the left, and see nothing of what is before frame `shot`."""
    chunks: list[Chunk] = []
    while known < total:
        before = overlap(world, known - shot) if known > shot else 0
        start = known - before
        frames = min(world.frames, world.whole(total - start))
        chunks.append(Chunk(start, frames, before, total))
        known = start + frames
    return chunks


def streamed_chunk(world: World, total: int, known: int = 0, shot: int = 0) -> list[Chunk]:
    """One chunk from the known frames of a shot to its end, for a causal model; none when all is known."""
    if known >= total:
        return []
    before = 1 + (known - shot - 1) // world.temporal_stride * world.temporal_stride if known > shot else 0
    start = known - before
    return [Chunk(start, world.whole(total - start), before, total)]


def backward_chunks(world: World, total: int, known: int) -> list[Chunk]:
    """Chunks that fill frames total - known - 1 .. 0 from the right; the last `known` frames are there.

    A causal codec gives the first frame of a window a latent of its own and every other `stride` frames one:
    a known suffix is whole latents when its length is a multiple of the stride.
    """
    stride = world.temporal_stride
    chunks: list[Chunk] = []
    while known < total:
        most = min(known, (world.frames - 1) // stride // 2 * stride)
        after = max(stride, most // stride * stride)
        missing = total - known
        frames = min(world.frames, world.whole(missing + after))
        made = frames - after
        chunks.append(Chunk(missing - made, frames, after, total, suffix=True))
        known += made
    return chunks
