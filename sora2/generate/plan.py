"""A request as a sequence of windows: each asks the model for one stretch of the clip, and is told what was
made.

`plan(request, world)` is a generator: it yields `Window`s that do not wait for each other, is sent their decoded clips,
and returns the finished clip. The pipeline runs many plans side by side and batches their windows.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import torch
from torch import Tensor

from sora2.codecs.quotes import said_between, with_natural_times
from sora2.generate.canvas import Canvas, concatenate
from sora2.generate.grid import Grid, World
from sora2.generate.inputs import (
    Film,
    fit_samples,
    load_audio,
    load_image,
    load_mask,
    load_person,
    load_video,
)
from sora2.generate.long import Chunk, backward_chunks, forward_chunks, streamed_chunk
from sora2.generate.request import Request, RequestError, SamplingConfig, Source, resolve_task
from sora2.generate.story import Scene, scenes
from sora2.types import Clip

#: Tasks in which nothing that is given says when words are said.
UNHEARD = ("text_to_av", "audio_only", "staircase", "image_to_av")


@dataclass(frozen=True)
class Line:
    """What a window is told from a second of its own on; times in it are of the window's clock."""

    start: float
    prompt: str

    def chunk(self, seconds: float) -> int:
        """The first chunk of a streamed window to be told it: the one that begins nearest to it."""
        return int(self.start / seconds + 0.5)


@dataclass(frozen=True)
class Window:
    """One call of the model for one request."""

    frames: int  # 1 + k * temporal_stride; the sound has the same length
    task: str
    arguments: dict[str, Tensor]  # of the task, without the batch dimension
    source: Clip  # what is known, on the window's clock; a stream is None where nothing of it is known
    video: bool  # which streams are there
    audio: bool
    grid: Grid
    # one line, of words with a time those that are said in it; or, where streamed, one for each card
    script: tuple[Line, ...]
    person: Clip | None  # whose face and voice it is to have
    streamed: bool  # chunk after chunk by a causal model, each told the line of its time
    negative_prompt: str | None
    seed: int
    sampling: SamplingConfig

    @property
    def prompt(self) -> str:
        """What it is told; where it is streamed, at first."""
        return self.script[0].prompt

    def told(self, chunk: int, seconds: float) -> str:
        """What its chunk of that number, so many seconds long, is told where it is streamed."""
        return [line.prompt for line in self.script if line.chunk(seconds) <= chunk][-1]


Plan = Generator[list[Window], list[Clip], Clip]


def plan(request: Request, world: World) -> Plan:
    """Raises RequestError or MediaError, before the first window, when the request cannot be met."""
    return _Planner(request, world).run()


class _Planner:
    def __init__(self, request: Request, world: World) -> None:
        self.request, self.world = request, world
        self.task = resolve_task(request)
        base = world.grid
        height, width = (base.height, base.width) if request.size is None else request.size
        if height % world.cell or width % world.cell or min(height, width) < world.cell:
            raise RequestError(
                f"--size {height}x{width}: both must be multiples of {world.cell} for this checkpoint"
            )
        fps = base.fps if request.fps is None else request.fps
        self.grid = Grid(height, width, fps, base.sample_rate, base.channels)
        self.sampling = world.sampling if request.sampling is None else request.sampling
        self.person = self._person()

    def run(self) -> Plan:
        work = getattr(self, f"_{self.task}", None)
        clip = yield from (self._free() if work is None else work())
        return clip.replace(
            caption=self.request.caption,
            key=self.request.key,
            meta={"task": self.task, "seed": self.request.seed},
        )

    def _person(self) -> Clip | None:
        if self.request.cameo is None:
            return None
        if not self.world.references:
            raise RequestError(
                "--cameo: this checkpoint has learned nothing of references; train with `references` of a dataset "
                "(data.datasets, docs/training.md)"
            )
        return load_person(self.request.cameo, self.grid, self.world.seconds, "--cameo")

    def _last_card(self) -> int:
        """The frame at which it begins."""
        return round(self.request.story[-1].start * self.grid.fps) if self.request.story else 0

    def _seconds(self) -> int:
        """Frames asked for: --seconds, or the trained length, from the last card on."""
        if self.request.seconds is None:
            return self._last_card() + self.world.frames
        frames = self.grid.frames_of(self.request.seconds)
        if frames > 1 and self.world.frames == 1:
            raise RequestError(
                f"--seconds {self.request.seconds}: this checkpoint makes single pictures only"
            )
        return frames

    def _window(
        self,
        task: str,
        frames: int,
        source: Clip,
        canvas: Canvas,
        start: int,
        index: int = 0,
        script: tuple[Line, ...] | None = None,
        streamed: bool = False,
        **arguments: float | Tensor,
    ) -> Window:
        """`start`: the frame of the finished clip that is the window's first."""
        seed = self.request.seed if index == 0 else (self.request.seed + 0x9E3779B97F4A7C1 * index) % 2**62
        if script is None:
            whole = Scene(0, canvas.frames, 0, self.request.prompt)
            script = (Line(0.0, self._prompt(whole, start, frames)),)
        return Window(
            frames=frames,
            task=task,
            arguments={name: torch.as_tensor(value) for name, value in arguments.items()},
            source=source,
            video=canvas.video is not None,
            audio=canvas.audio is not None,
            grid=self.grid,
            script=script,
            person=self.person,
            streamed=streamed,
            negative_prompt=self.request.negative_prompt,
            seed=seed,
            sampling=self.sampling,
        )

    def _prompt(self, scene: Scene, start: int, frames: int) -> str:
        """A scene's prompt for the `frames` frames of the clip from `start` on: told when words are said, if the model
        reads times, and by nature where nothing else says when."""
        if not self.world.reads_times:
            return scene.prompt
        prompt, fps = scene.prompt, self.grid.fps
        if self.task in UNHEARD:
            prompt = with_natural_times(prompt, (scene.last - scene.first) / fps)
        begin = start - scene.first
        return said_between(prompt, begin / fps, (begin + frames) / fps)

    def _script(self, chunk: Chunk, story: list[Scene]) -> tuple[tuple[Line, ...], bool]:
        """What a chunk is told, a line for each scene of which it makes something; and whether it is streamed."""
        new = chunk.start if chunk.suffix else chunk.start + chunk.known_frames
        told = [s for s in story if s.last > max(0, new) and s.first < chunk.end]
        streamed = self._streams() and (chunk.frames > self.world.frames or len(told) > 1)
        begins = [0.0, *((s.first - chunk.start) / self.grid.fps for s in told[1:])]
        prompts = [self._prompt(scene, chunk.start, chunk.frames) for scene in told]
        script = tuple(map(Line, begins, prompts))
        if streamed:
            assert self.world.chunk_seconds is not None
            _check_chunks(script, self.world.chunk_seconds)
        return script, streamed

    def _chunks(
        self, canvas: Canvas, chunks: list[Chunk], first_task: str, **arguments: float | Tensor
    ) -> Plan:
        """Run chunks over the canvas; the first has the request's task, the others continue it, or begin a shot."""
        given = first_task in ("video_to_audio", "audio_to_video")
        later = first_task if given else "extend_forward"
        shot = first_task if given or first_task == "audio_only" else "text_to_av"
        # number 0 is for the window that continues nothing
        first = 0 if chunks and chunks[0].known_frames == 0 else 1
        story = scenes(self.request, canvas.frames, self.grid)
        scripts = [self._script(chunk, story) for chunk in chunks]

        def window(number: int) -> Window:
            chunk, (script, streamed) = chunks[number], scripts[number]
            index = first + number
            if index == 0:
                task, extent = first_task, arguments
            elif chunk.suffix:
                begin = (chunk.frames - chunk.known_frames) / self.grid.fps
                task, extent = "extend_backward", {"suffix_seconds": begin}
            elif chunk.known_frames:
                task, extent = later, {"prefix_seconds": chunk.known_frames / self.grid.fps}
            else:
                task, extent = shot, arguments if given else {}
            source = canvas.window(chunk.start, chunk.frames)
            where = (chunk.frames, source, canvas, chunk.start, index, script, streamed)
            return self._window(task, *where, **extent)

        for together in _waves(chunks):
            made = yield [window(number) for number in together]
            for number, clip in zip(together, made, strict=True):
                canvas.write(chunks[number].start, clip, chunks[number].end)
        return canvas.clip()

    def _free(self) -> Plan:
        """text_to_av, staircase, image_only, audio_only: nothing is known."""
        frames = 1 if self.task == "image_only" else self._seconds()
        sound = self.task != "image_only" and not self.request.silent
        canvas = Canvas.empty(self.grid, frames, video=self.task != "audio_only", audio=sound)
        arguments = {"slope": self.request.slope} if self.task == "staircase" else {}
        return (yield from self._chunks(canvas, self._forward(frames), self.task, **arguments))

    def _image_to_av(self) -> Plan:
        frames = self._seconds()
        canvas = Canvas.empty(self.grid, frames, audio=not self.request.silent)
        canvas.put(0, load_image(self._source("image"), self.grid, "--image"))
        return (yield from self._chunks(canvas, self._forward(frames), "image_to_av"))

    def _video_to_audio(self) -> Plan:
        film = self._cut(load_video(self._source("video"), self.grid, "--video", sound=False))
        canvas = Canvas.empty(self.grid, film.frames)
        canvas.put(0, film.video)
        chunks = self._forward(canvas.frames)
        return (yield from self._chunks(canvas, chunks, "video_to_audio", prefix_seconds=0.0))

    def _audio_to_video(self) -> Plan:
        audio = load_audio(self._source("audio"), self.grid, "--audio")
        frames = self.grid.frames_of(audio.shape[1] / self.grid.sample_rate)
        if self.request.seconds is not None:
            frames = min(frames, self._seconds())
        canvas = Canvas.empty(self.grid, frames)
        canvas.put(0, audio=fit_samples(audio, self.grid.samples(frames)))
        return (yield from self._chunks(canvas, self._forward(frames), "audio_to_video", prefix_seconds=0.0))

    def _extend_forward(self) -> Plan:
        return (yield from self._extend(backward=False))

    def _extend_backward(self) -> Plan:
        return (yield from self._extend(backward=True))

    def _streams(self) -> bool:
        return self.world.causal and self.task != "staircase"

    def _forward(self, total: int, known: int = 0) -> list[Chunk]:
        """Windows from the left, none of two scenes; one for each shot where a causal model streams it."""
        story = scenes(self.request, total, self.grid)
        chunks: list[Chunk] = []
        for scene, after in zip(story, [*story[1:], None], strict=True):
            if self._streams() and after is not None and after.shot == scene.shot:
                continue  # one with the next
            begin = scene.shot if self._streams() else scene.first
            fill = streamed_chunk if self._streams() else forward_chunks
            chunks += fill(self.world, scene.last, max(known, begin), scene.shot)
        return chunks

    def _extend(self, backward: bool) -> Plan:
        film = self._film()
        given, more = film.frames, self._added()
        if backward and given < self.world.temporal_stride:
            raise RequestError(
                f"--video has {given} frames; to extend it backward, {self.world.temporal_stride} are needed"
            )
        canvas = Canvas.empty(self.grid, given + more, audio=film.audio is not None)
        canvas.put(more if backward else 0, film.video, film.audio)
        total = given + more
        chunks = backward_chunks(self.world, total, given) if backward else self._forward(total, given)
        return (yield from self._chunks(canvas, chunks, self.task))

    def _added(self) -> int:
        """Frames to add to a source: --seconds, or half a window."""
        return (self.world.frames - 1) // 2 if self.request.seconds is None else self._seconds()

    def _between(self, first: Film, second: Film) -> Generator[list[Window], list[Clip], Film]:
        """The frames between two clips: as much of both as fits into one window stands around the gap."""
        gap, stride = self._added(), self.world.temporal_stride
        room = self.world.frames - gap
        before = min(first.frames, max(1, room // 2))
        before = 1 + (before - 1) // stride * stride  # whole latent frames: 1 + k * stride
        after = min(second.frames, max(1, self.world.frames - before - gap))
        total = self.world.whole(before + gap + after)
        if total > self.world.frames:
            raise RequestError(
                f"--seconds {gap / self.grid.fps:g} between two clips does not fit into the "
                f"{self.world.frames} frames that this checkpoint was trained on; ask for less"
            )
        after = min(second.frames, total - before - gap)
        canvas = Canvas.empty(self.grid, before + gap + after, audio=first.audio is not None)
        for at, film in ((0, first.tail(before, self.grid)), (before + gap, second.cut(after, self.grid))):
            canvas.put(at, film.video, film.audio)
        window = self._window(
            self.task,
            total,
            canvas.window(0, total),
            canvas,
            first.frames - before,
            prefix_seconds=before / self.grid.fps,
            suffix_seconds=(before + gap) / self.grid.fps,
        )
        (made,) = yield [window]
        canvas.write(0, made)
        return canvas.film(before, before + gap)

    def _loop(self) -> Plan:
        film = self._film()
        made = yield from self._between(film, film)
        return concatenate(self.grid, film, made)

    def _inbetween(self) -> Plan:
        first, second = self._film("video", "--inbetween"), self._film("video_end", "--inbetween")
        made = yield from self._between(first, second)
        return concatenate(self.grid, first, made, second)

    def _inpaint(self) -> Plan:
        film = self._film()
        total = film.frames
        span = self.request.time_span
        first, last = 0, total
        if span is not None:
            first, last = round(span[0] * self.grid.fps), round(span[1] * self.grid.fps)
            if first >= total:
                raise RequestError(
                    f"--time-span {span[0]}:{span[1]} begins after the end of {total / self.grid.fps:g} s"
                )
            last = min(max(last, first + 1), total)
        start, frames = self._around(first, last, total)
        canvas = Canvas.empty(self.grid, total, audio=film.audio is not None)
        canvas.put(0, film.video, film.audio)
        gy, gx = self.grid.height // self.world.cell, self.grid.width // self.world.cell
        region = torch.ones(gy, gx, dtype=torch.bool)
        times = torch.tensor([first - start, last - start]) / self.grid.fps
        if self.request.mask is not None:
            marked = load_mask(self.request.mask, self.grid)
            canvas.keep = ~marked
            region = marked.view(gy, self.world.cell, gx, self.world.cell).any(dim=3).any(dim=1)
        source = canvas.window(start, frames)  # as in training, known tokens are those of the whole clip
        sound_kept = canvas.known_audio.clone()
        canvas.forget(first, last)
        if span is None:
            canvas.known_audio = sound_kept
        sound = torch.zeros(2) if span is None else times
        window = self._window(
            "inpaint", frames, source, canvas, start, region=region, video_span=times, audio_span=sound
        )
        (made,) = yield [window]
        canvas.write(start, made)
        return canvas.clip()

    def _around(self, first: int, last: int, total: int) -> tuple[int, int]:
        """Start and length of a window that holds frames first .. last - 1 in its middle."""
        frames = min(self.world.frames, self.world.whole(total))
        if last - first > frames:
            raise RequestError(
                f"--video is {total} frames at {self.grid.fps:g} fps, and {last - first} of them are to be "
                f"made anew, but this checkpoint was trained on {self.world.frames}; give a shorter clip "
                "or a --time-span"
            )
        start = min(max(0, (first + last - frames) // 2), max(0, total - frames))
        return start, frames

    def _remix(self) -> Plan:
        film = self._cut(self._film())
        total = film.frames
        _, frames = self._around(0, total, total)
        canvas = Canvas.empty(self.grid, total, audio=film.audio is not None)
        canvas.put(0, film.video, film.audio)
        source = canvas.window(0, frames)
        canvas.forget(0, total)
        strength = torch.tensor(self.request.strength)
        (made,) = yield [self._window("remix", frames, source, canvas, 0, strength=strength)]
        canvas.write(0, made)
        return canvas.clip()

    def _source(self, name: str) -> Source:
        """A part that `resolve_task` has made sure of."""
        return getattr(self.request, name)

    def _film(self, name: str = "video", flag: str = "--video") -> Film:
        return load_video(self._source(name), self.grid, flag, sound=not self.request.silent)

    def _cut(self, film: Film) -> Film:
        """The first --seconds of a source."""
        if self.request.seconds is None:
            return film
        return film.cut(min(film.frames, self._seconds()), self.grid)


def _waves(chunks: list[Chunk]) -> list[list[int]]:
    """Numbers of chunks that can be made at once: the first of every shot, then the second of those that have one."""
    shots: list[list[int]] = []
    for number, chunk in enumerate(chunks):
        if chunk.known_frames == 0 or not shots:
            shots.append([])
        shots[-1].append(number)
    return [[number for number in wave if number is not None] for wave in zip_longest(*shots)]


def _check_chunks(script: tuple[Line, ...], seconds: float) -> None:
    """Raises RequestError for two lines that one chunk of a streamed window would have to be told."""
    for one, other in pairwise(script):
        if one.chunk(seconds) == other.chunk(seconds):
            raise RequestError(
                f"--story: the card {other.start:g} s after its shot begins falls into the same chunk as the one "
                f"before it; this checkpoint makes chunks of {seconds:g} s, each of which is told one card"
            )
