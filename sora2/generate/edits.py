"""Tasks that change or join clips, in one window each."""

from __future__ import annotations

from collections.abc import Generator

import torch

from sora2.generate.canvas import Canvas, concatenate
from sora2.generate.inputs import Film, load_mask
from sora2.generate.planner import Planner
from sora2.generate.request import RequestError
from sora2.generate.window import Plan, Window
from sora2.types import Clip


def loop(planner: Planner) -> Plan:
    film = planner.film()
    made = yield from _between(planner, film, film)
    return concatenate(planner.grid, film, made)


def inbetween(planner: Planner) -> Plan:
    first, second = planner.film("video", "--inbetween"), planner.film("video_end", "--inbetween")
    made = yield from _between(planner, first, second)
    return concatenate(planner.grid, first, made, second)


def _between(planner: Planner, first: Film, second: Film) -> Generator[list[Window], list[Clip], Film]:
    """The frames between two clips: as much of both as fits into one window stands around the gap."""
    world, grid = planner.world, planner.grid
    gap, stride = planner.added, world.temporal_stride
    room = world.frames - gap
    before = min(first.frames, max(1, room // 2))
    before = 1 + (before - 1) // stride * stride  # whole latent frames: 1 + k * stride
    after = min(second.frames, max(1, world.frames - before - gap))
    total = world.whole(before + gap + after)
    if total > world.frames:
        raise RequestError(
            f"--seconds {gap / grid.fps:g} between two clips does not fit into the "
            f"{world.frames} frames that this checkpoint makes at once; ask for less"
        )
    after = min(second.frames, total - before - gap)
    canvas = Canvas.empty(grid, before + gap + after, audio=first.audio is not None)
    for at, film in ((0, first.tail(before, grid)), (before + gap, second.cut(after, grid))):
        canvas.put(at, film.video, film.audio)
    window = planner.window(
        planner.task,
        total,
        canvas.window(0, total),
        canvas,
        first.frames - before,
        prefix_seconds=before / grid.fps,
        suffix_seconds=(before + gap) / grid.fps,
    )
    (made,) = yield [window]
    canvas.write(0, made)
    return canvas.film(before, before + gap)


def inpaint(planner: Planner) -> Plan:
    film, world = planner.cut(planner.film()), planner.world
    grid, request = planner.grid, planner.request
    total = film.frames
    span = request.time_span
    first, last = 0, total
    if span is not None:
        first, last = round(span[0] * grid.fps), round(span[1] * grid.fps)
        if first >= total:
            raise RequestError(
                f"--time-span {span[0]}:{span[1]} begins after the end of {total / grid.fps:g} s"
            )
        last = min(max(last, first + 1), total)
    start, frames = _around(planner, first, last, total)
    canvas = Canvas.empty(grid, total, audio=film.audio is not None)
    canvas.put(0, film.video, film.audio)
    gy, gx = grid.height // world.cell, grid.width // world.cell
    region = torch.ones(gy, gx, dtype=torch.bool)
    times = torch.tensor([first - start, last - start]) / grid.fps
    if request.mask is not None:
        marked = load_mask(request.mask, grid)
        canvas.keep = ~marked
        region = marked.view(gy, world.cell, gx, world.cell).any(dim=3).any(dim=1)
    source = canvas.window(start, frames)  # as in training, known tokens are those of the whole clip
    sound_kept = canvas.known_audio.clone()
    canvas.forget(first, last)
    if span is None:
        canvas.known_audio = sound_kept
    sound = torch.zeros(2) if span is None else times
    window = planner.window(
        "inpaint", frames, source, canvas, start, region=region, video_span=times, audio_span=sound
    )
    (made,) = yield [window]
    canvas.write(start, made)
    return canvas.clip()


def remix(planner: Planner) -> Plan:
    film = planner.cut(planner.film())
    total = film.frames
    _, frames = _around(planner, 0, total, total)
    canvas = Canvas.empty(planner.grid, total, audio=film.audio is not None)
    canvas.put(0, film.video, film.audio)
    source = canvas.window(0, frames)
    canvas.forget(0, total)
    strength = torch.tensor(planner.request.strength)
    (made,) = yield [planner.window("remix", frames, source, canvas, 0, strength=strength)]
    canvas.write(0, made)
    return canvas.clip()


def _around(planner: Planner, first: int, last: int, total: int) -> tuple[int, int]:
    """Start and length of a window that holds frames first .. last - 1 in its middle."""
    world = planner.world
    frames = min(world.frames, world.whole(total))
    if last - first > frames:
        raise RequestError(
            f"--video is {total} frames at {planner.grid.fps:g} fps, and {last - first} of them are to be "
            f"made anew, but this checkpoint makes {world.frames} at once; give a shorter clip, --seconds"
            f"{' of its beginning' if planner.task == 'remix' else ', or a --time-span'}"
        )
    start = min(max(0, (first + last - frames) // 2), max(0, total - frames))
    return start, frames
