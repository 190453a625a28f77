"""One call of the model for one request, and the sequence of calls that a request is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from sora2.generate.grid import Grid
from sora2.generate.request import SamplingConfig
from sora2.types import Clip


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


#: Yields windows that do not wait for each other, is sent their decoded clips, and returns the finished clip.
Plan = Generator[list[Window], list[Clip], Clip]
