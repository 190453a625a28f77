"""What all plans of a request have in common: its grid, what it gives, and windows that ask for a stretch of it."""

from __future__ import annotations

import torch
from torch import Tensor

from sora2.codecs.quotes import said_between, with_natural_times
from sora2.generate.canvas import Canvas
from sora2.generate.grid import Grid, World
from sora2.generate.inputs import Film, load_person, load_video
from sora2.generate.request import Request, RequestError, Source, resolve_task
from sora2.generate.story import Scene
from sora2.generate.window import Line, Window
from sora2.types import Clip

SINGLE = "this checkpoint makes single pictures only: train one on clips of several frames"
#: What is asked of such a checkpoint.
OF_PICTURES = ("text_to_av", "image_only", "inpaint", "remix")
#: Tasks in which nothing that is given says when words are said.
UNHEARD = ("text_to_av", "audio_only", "staircase", "image_to_av")


class Planner:
    """A request on the grid that its clip will have."""

    def __init__(self, request: Request, world: World) -> None:
        """Raises RequestError or MediaError when the request does not fit the checkpoint."""
        self.request = request
        self.task = resolve_task(request)
        if world.frames == 1 and self.task not in OF_PICTURES:
            raise RequestError(f"--task {self.task}: {SINGLE}")
        base = world.grid
        height, width = (base.height, base.width) if request.size is None else request.size
        if height % world.cell or width % world.cell or min(height, width) < world.cell:
            raise RequestError(
                f"--size {height}x{width}: both must be multiples of {world.cell} for this checkpoint"
            )
        fps = base.fps if request.fps is None else request.fps
        self.grid = Grid(height, width, fps, base.sample_rate, base.channels)
        self.world = world.at(fps)
        self.sampling = world.sampling if request.sampling is None else request.sampling
        self.person = self._person(world.seconds)

    def _person(self, seconds: float) -> Clip | None:
        if self.request.cameo is None:
            return None
        if not self.world.references:
            raise RequestError(
                "--cameo: this checkpoint has learned nothing of references; train with `references` of a dataset "
                "(data.datasets, docs/training.md)"
            )
        return load_person(self.request.cameo, self.grid, seconds, "--cameo")

    @property
    def asked(self) -> int:
        """Frames asked for: --seconds, or the longest window, from the last card on."""
        if self.request.seconds is None:
            story = self.request.story
            return (round(story[-1].start * self.grid.fps) if story else 0) + self.world.frames
        frames = self.grid.frames_of(self.request.seconds)
        if frames > 1 and self.world.frames == 1:
            raise RequestError(f"--seconds {self.request.seconds}: {SINGLE}")
        return frames

    @property
    def added(self) -> int:
        """Frames to add to a source: --seconds, or half a window."""
        return (self.world.frames - 1) // 2 if self.request.seconds is None else self.asked

    def source(self, name: str) -> Source:
        """A part that `resolve_task` has made sure of."""
        return getattr(self.request, name)

    def film(self, name: str = "video", flag: str = "--video") -> Film:
        return load_video(self.source(name), self.grid, flag, sound=not self.request.silent)

    def cut(self, film: Film) -> Film:
        """The first --seconds of a source."""
        if self.request.seconds is None:
            return film
        return film.cut(min(film.frames, self.asked), self.grid)

    def window(
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
        """`start`: the frame of the finished clip that is the window's first.

        Raises:
            RequestError: of the person nothing could be used, for the clip has no such stream.
        """
        if self.person is not None:
            of_use = (self.person.video, canvas.video), (self.person.audio, canvas.audio)
            if not any(given is not None and made is not None for given, made in of_use):
                part = "a voice" if self.person.video is None else "a face"
                raise RequestError(f"--cameo gives {part} alone, and the clip is to have no such stream")
        seed = (self.request.seed + 0x9E3779B97F4A7C1 * index) % 2**62
        if script is None:
            whole = Scene(0, canvas.frames, 0, self.request.prompt)
            script = (Line(0.0, self.prompt(whole, start, frames)),)
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

    def prompt(self, scene: Scene, start: int, frames: int) -> str:
        """A scene's prompt for the `frames` frames of the clip from `start` on: told when words are said, if the model
        reads times, and by nature where nothing else says when."""
        if not self.world.reads_times:
            return scene.prompt
        prompt, fps = scene.prompt, self.grid.fps
        if self.task in UNHEARD:
            prompt = with_natural_times(prompt, (scene.last - scene.first) / fps)
        begin = start - scene.first
        return said_between(prompt, begin / fps, (begin + frames) / fps)
