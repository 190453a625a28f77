"""Tasks whose clips may be of any length: made in chunks, or by a causal model in one stream, and told in cards."""

from __future__ import annotations

from itertools import pairwise, zip_longest

from torch import Tensor

from sora2.generate.canvas import Canvas
from sora2.generate.chunks import Chunk, backward_chunks, forward_chunks, streamed_chunk
from sora2.generate.inputs import fit_samples, load_audio, load_image, load_video
from sora2.generate.planner import SINGLE, Planner
from sora2.generate.request import RequestError
from sora2.generate.story import Scene, scenes
from sora2.generate.window import Line, Plan, Window


def free(planner: Planner) -> Plan:
    """text_to_av, staircase, image_only, audio_only: nothing is known."""
    task, request = planner.task, planner.request
    frames = 1 if task == "image_only" else planner.asked
    sound = task != "image_only" and not request.silent
    canvas = Canvas.empty(planner.grid, frames, video=task != "audio_only", audio=sound)
    arguments = {"slope": request.slope} if task == "staircase" else {}
    return (yield from _fill(planner, canvas, _forward(planner, frames), **arguments))


def image_to_av(planner: Planner) -> Plan:
    frames = planner.asked
    canvas = Canvas.empty(planner.grid, frames, audio=not planner.request.silent)
    canvas.put(0, load_image(planner.source("image"), planner.grid, "--image"))
    return (yield from _fill(planner, canvas, _forward(planner, frames)))


def video_to_audio(planner: Planner) -> Plan:
    film = planner.cut(load_video(planner.source("video"), planner.grid, "--video", sound=False))
    canvas = Canvas.empty(planner.grid, film.frames)
    canvas.put(0, film.video)
    return (yield from _fill(planner, canvas, _forward(planner, canvas.frames), prefix_seconds=0.0))


def audio_to_video(planner: Planner) -> Plan:
    grid = planner.grid
    audio = load_audio(planner.source("audio"), grid, "--audio")
    frames = grid.frames_of(audio.shape[1] / grid.sample_rate)
    if planner.request.seconds is not None:
        frames = min(frames, planner.asked)
    canvas = Canvas.empty(grid, frames)
    canvas.put(0, audio=fit_samples(audio, grid.samples(frames)))
    return (yield from _fill(planner, canvas, _forward(planner, frames), prefix_seconds=0.0))


def extend(planner: Planner) -> Plan:
    """extend_forward, extend_backward."""
    film, world = planner.film(), planner.world
    given, more, backward = film.frames, planner.added, planner.task == "extend_backward"
    if backward and given < world.temporal_stride:
        raise RequestError(
            f"--video has {given} frames; to extend it backward, {world.temporal_stride} are needed"
        )
    if more == 0:
        raise RequestError(SINGLE)
    total = given + more
    if planner.request.seconds is None and planner.request.story:
        total = max(total, planner.asked)
    canvas = Canvas.empty(planner.grid, total, audio=film.audio is not None)
    canvas.put(more if backward else 0, film.video, film.audio)
    chunks = backward_chunks(world, total, given) if backward else _forward(planner, total, given)
    return (yield from _fill(planner, canvas, chunks))


def _streams(planner: Planner) -> bool:
    return planner.world.causal and planner.task != "staircase"


def _forward(planner: Planner, total: int, known: int = 0) -> list[Chunk]:
    """Windows from the left, none of two scenes; one for each shot where a causal model streams it."""
    story, streams = scenes(planner.request, total, planner.grid), _streams(planner)
    chunks: list[Chunk] = []
    for scene, after in zip(story, [*story[1:], None], strict=True):
        if streams and after is not None and after.shot == scene.shot:
            continue  # one with the next
        begin = scene.shot if streams else scene.first
        fill = streamed_chunk if streams else forward_chunks
        chunks += fill(planner.world, scene.last, max(known, begin), scene.shot)
    return chunks


def _fill(planner: Planner, canvas: Canvas, chunks: list[Chunk], **arguments: float | Tensor) -> Plan:
    """Run chunks over the canvas; the first has the request's task, the others continue it, or begin a shot."""
    first_task, fps = planner.task, planner.grid.fps
    given = first_task in ("video_to_audio", "audio_to_video")
    later = first_task if given else "extend_forward"
    shot = first_task if given or first_task == "audio_only" else "text_to_av"
    # number 0 is for the window that continues nothing, and follows no film
    first = 0 if chunks[0].known_frames == 0 and first_task != "extend_forward" else 1
    story = scenes(planner.request, canvas.frames, planner.grid)
    scripts = [_script(planner, chunk, story) for chunk in chunks]

    def window(number: int) -> Window:
        chunk, (script, streamed) = chunks[number], scripts[number]
        index = first + number
        if index == 0:
            task, extent = first_task, arguments
        elif chunk.suffix:
            task = "extend_backward"
            extent = {"suffix_seconds": (chunk.frames - chunk.known_frames) / fps}
        elif chunk.known_frames:
            task, extent = later, {"prefix_seconds": chunk.known_frames / fps}
        else:
            task, extent = shot, arguments if given else {}
        source = canvas.window(chunk.start, chunk.frames)
        where = (chunk.frames, source, canvas, chunk.start, index, script, streamed)
        return planner.window(task, *where, **extent)

    for together in _waves(chunks):
        made = yield [window(number) for number in together]
        for number, clip in zip(together, made, strict=True):
            canvas.write(chunks[number].start, clip, chunks[number].end)
    return canvas.clip()


def _script(planner: Planner, chunk: Chunk, story: list[Scene]) -> tuple[tuple[Line, ...], bool]:
    """What a chunk is told, a line for each scene of which it makes something; and whether it is streamed."""
    world, fps = planner.world, planner.grid.fps
    new = chunk.start if chunk.suffix else chunk.start + chunk.known_frames
    told = [s for s in story if s.last > max(0, new) and s.first < chunk.end]
    streamed = _streams(planner) and (chunk.frames > world.frames or len(told) > 1)
    begins = [0.0, *((s.first - chunk.start) / fps for s in told[1:])]
    prompts = [planner.prompt(scene, chunk.start, chunk.frames) for scene in told]
    script = tuple(map(Line, begins, prompts))
    if streamed:
        assert world.chunk_seconds is not None
        _check_chunks(script, world.chunk_seconds, (chunk.end - chunk.start) / fps)
    return script, streamed


def _waves(chunks: list[Chunk]) -> list[list[int]]:
    """Numbers of chunks that can be made at once: the first of every shot, then the second of those that have one."""
    shots: list[list[int]] = []
    for number, chunk in enumerate(chunks):
        if chunk.known_frames == 0 or not shots:
            shots.append([])
        shots[-1].append(number)
    return [[number for number in wave if number is not None] for wave in zip_longest(*shots)]


def _check_chunks(script: tuple[Line, ...], seconds: float, end: float) -> None:
    """Raises RequestError for two lines that one chunk of a streamed window would have to be told, or for one that
    would only be told after its `end`."""
    last = script[-1]
    if last.chunk(seconds) * seconds >= end:
        raise RequestError(
            f"--story: the card {last.start:g} s after its shot begins comes too late in {end:g} s; this checkpoint "
            f"makes chunks of {seconds:g} s, each of which is told one card: begin it earlier, or give more --seconds"
        )
    for one, other in pairwise(script):
        if one.chunk(seconds) == other.chunk(seconds):
            raise RequestError(
                f"--story: the card {other.start:g} s after its shot begins falls into the same chunk as the one "
                f"before it; this checkpoint makes chunks of {seconds:g} s, each of which is told one card"
            )
