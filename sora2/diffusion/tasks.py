"""Every task is a noise-level map: THE one place where a task's name becomes levels per token.

A task is a function that says, for each token of R clips, at which level it starts (0 = known, 1 = made from
noise, between = made from a noised source), how late it starts (its delay, for staircases along time) and
whether it is there at all. Training and sampling use the same function: in training its arguments are drawn
at random by `draw`, in sampling they come from a request. The network is never told which task it is.

| task              | video                     | audio         | arguments                              |
|-------------------|---------------------------|---------------|----------------------------------------|
| text_to_av        | 1                         | 1             |                                        |
| video_to_audio    | 0                         | 1             | prefix_seconds (sound known before it) |
| audio_to_video    | 1                         | 0             | prefix_seconds (video known before it) |
| image_to_av       | first frame 0, rest 1     | 1             |                                        |
| extend_forward    | 0 before, 1 after         | same times    | prefix_seconds                         |
| extend_backward   | 1 before, 0 after         | same times    | suffix_seconds                         |
| loop, inbetween   | 0 at both ends, 1 between | same times    | prefix_seconds, suffix_seconds         |
| inpaint           | 1 in region and span      | 1 in its span | region, video_span, audio_span         |
| remix             | strength                  | strength      | strength                               |
| image_only        | first frame 1, no rest    | absent        |                                        |
| audio_only        | absent                    | 1             |                                        |
| staircase         | 1, later moments later    | same clock    | slope                                  |
| diffusion_forcing | 1, each moment its own    | same clock    | block_delay                            |

To add one: write a function `(layout, rows, its arguments...) -> NoiseMap` here and decorate it with `@task`.
Times are seconds from the start of the clip. A token is known only if all of its time and picture is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.diffusion.layout import Layout, NoiseMap
from sora2.errors import UserError

Arguments = dict[str, Tensor]  # name -> (R, ...)


class TaskError(UserError):
    """An unknown task, or one whose arguments are missing."""


@dataclass(frozen=True)
class Task:
    """A named way to fill a noise-level map."""

    name: str
    fill: Callable[..., NoiseMap]  # (layout, rows, **arguments) -> NoiseMap
    draw: Callable[[Layout, int, torch.Generator], Arguments]  # random arguments, for training
    needs: tuple[str, ...]  # modalities a clip must have to train this; () = either one is enough
    moving: bool  # needs more than one latent frame

    def __call__(self, layout: Layout, rows: int, arguments: Arguments) -> NoiseMap:
        """The map of `rows` clips.

        Raises:
            TaskError: an argument of the task is missing or is not one of its arguments.
        """
        code = self.fill.__code__
        names = set(code.co_varnames[2 : code.co_argcount])
        if names != set(arguments):
            raise TaskError(f"task {self.name} takes {sorted(names)}, got {sorted(arguments)}")
        return self.fill(layout, rows, **arguments)


TASKS: dict[str, Task] = {}


def get_task(name: str) -> Task:
    """Raises TaskError with the known names."""
    if name not in TASKS:
        raise TaskError(f"unknown task {name!r}; one of: {', '.join(TASKS)}")
    return TASKS[name]


def nothing(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    return {}


def task(draw: Callable = nothing, needs: tuple[str, ...] = (), moving: bool = False) -> Callable:
    """Register a function as a task under its own name."""

    def register(fill: Callable[..., NoiseMap]) -> Callable[..., NoiseMap]:
        TASKS[fill.__name__] = Task(fill.__name__, fill, draw, needs, moving)
        return fill

    return register


def uniform(rows: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(rows,) on the CPU."""
    draw = torch.rand(rows, generator=generator, device=generator.device).cpu()
    return low + (high - low) * draw


def draw_no_prefix(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    """Mostly from the beginning; one clip in four continues a known prefix, as the windows of a long video
    do.
    """
    prefix = uniform(rows, -2.4, 0.8, generator).clamp_min(0.0)
    return {"prefix_seconds": prefix * layout.seconds}


def draw_prefix(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    return {"prefix_seconds": uniform(rows, 0.05, 0.9, generator) * layout.seconds}


def draw_suffix(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    return {"suffix_seconds": uniform(rows, 0.1, 0.95, generator) * layout.seconds}


def draw_ends(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    return {
        "prefix_seconds": uniform(rows, 0.05, 0.45, generator) * layout.seconds,
        "suffix_seconds": uniform(rows, 0.55, 0.95, generator) * layout.seconds,
    }


def draw_inpaint(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    """A third each: a box for the whole clip with the sound kept, a time span of both, a box within a time
    span.
    """
    y, x = (1, 1) if layout.grid is None else layout.grid[1:]
    kind = (uniform(rows, 0, 3, generator)).long()  # 0 box, 1 span, 2 box within span
    inside = torch.ones(rows, y, x, dtype=torch.bool)
    for axis, cells in ((1, y), (2, x)):
        size = (uniform(rows, 0.2, 0.8, generator) * cells).round().clamp(1, cells)  # (R,)
        start = (uniform(rows, 0, 1, generator) * (cells - size + 1)).floor().clamp_max(cells - 1)  # (R,)
        index = torch.arange(cells).view((1, cells, 1) if axis == 1 else (1, 1, cells))
        inside &= (index >= start.view(-1, 1, 1)) & (index < (start + size).view(-1, 1, 1))
    length = uniform(rows, 0.2, 0.8, generator)
    begin = uniform(rows, 0, 1, generator) * (1 - length)
    span = torch.stack([begin, begin + length], dim=1) * layout.seconds  # (R, 2)
    whole = torch.tensor([0.0, layout.seconds]).expand(rows, 2)
    box, timed = (kind != 1), (kind != 0)
    return {
        "region": torch.where(box.view(-1, 1, 1), inside, True),
        "video_span": torch.where(timed.view(-1, 1), span, whole),
        "audio_span": torch.where(timed.view(-1, 1), span, 0.0),
    }


def draw_strength(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    return {"strength": uniform(rows, 0.3, 1.0, generator)}


def draw_slope(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    return {"slope": uniform(rows, 0.25, 2.0, generator)}


def draw_blocks(layout: Layout, rows: int, generator: torch.Generator) -> Arguments:
    """As many blocks as latent frames, each with its own delay (Chen et al. 2024, arXiv:2407.01392)."""
    blocks = 8 if layout.grid is None else layout.grid[0]
    return {"block_delay": uniform(rows * blocks, 0.0, 2.0, generator).view(rows, blocks)}


@task()
def text_to_av(layout: Layout, rows: int) -> NoiseMap:
    """Nothing is known but the words."""
    return layout.make(rows)


@task(draw_no_prefix, needs=("video", "audio"))
def video_to_audio(layout: Layout, rows: int, prefix_seconds: Tensor) -> NoiseMap:
    """Foley: the pictures are known."""
    return layout.make(
        rows, {"video": layout.all("video", rows), "audio": layout.before("audio", prefix_seconds)}
    )


@task(draw_no_prefix, needs=("video", "audio"))
def audio_to_video(layout: Layout, rows: int, prefix_seconds: Tensor) -> NoiseMap:
    """The sound is known."""
    return layout.make(
        rows, {"video": layout.before("video", prefix_seconds), "audio": layout.all("audio", rows)}
    )


@task(needs=("video",), moving=True)
def image_to_av(layout: Layout, rows: int) -> NoiseMap:
    """The first frame is known; a causal codec holds it in a latent frame of its own."""
    return layout.make(rows, {"video": layout.first_frame(rows)})


@task(draw_prefix, moving=True)
def extend_forward(layout: Layout, rows: int, prefix_seconds: Tensor) -> NoiseMap:
    """Both streams are known before `prefix_seconds` (R,)."""
    return layout.make(rows, {name: layout.before(name, prefix_seconds) for name in layout.names})


@task(draw_suffix, moving=True)
def extend_backward(layout: Layout, rows: int, suffix_seconds: Tensor) -> NoiseMap:
    """Both streams are known from `suffix_seconds` (R,) on."""
    return layout.make(rows, {name: layout.after(name, suffix_seconds) for name in layout.names})


@task(draw_ends, moving=True)
def inbetween(layout: Layout, rows: int, prefix_seconds: Tensor, suffix_seconds: Tensor) -> NoiseMap:
    """Both streams are known before `prefix_seconds` and from `suffix_seconds` on."""
    known = {n: layout.before(n, prefix_seconds) | layout.after(n, suffix_seconds) for n in layout.names}
    return layout.make(rows, known)


@task(draw_ends, moving=True)
def loop(layout: Layout, rows: int, prefix_seconds: Tensor, suffix_seconds: Tensor) -> NoiseMap:
    """An in-between from the end of a clip to its own beginning."""
    return inbetween(layout, rows, prefix_seconds, suffix_seconds)


@task(draw_inpaint)
def inpaint(layout: Layout, rows: int, region: Tensor, video_span: Tensor, audio_span: Tensor) -> NoiseMap:
    """Made anew: video inside `region` (R, y, x) bool of the token grid during `video_span` (R, 2), and sound
    during
    `audio_span` (R, 2). An empty span keeps its stream."""
    new = {name: layout.during(name, span) for name, span in (("video", video_span), ("audio", audio_span))}
    if "video" in layout.names:
        new["video"] &= layout.within(region)
    return layout.make(rows, {name: ~new[name] for name in layout.names})


@task(draw_strength)
def remix(layout: Layout, rows: int, strength: Tensor) -> NoiseMap:
    """Start from the source noised to `strength` (R,) (SDEdit, Meng et al. 2021, arXiv:2108.01073)."""
    return layout.make(
        rows, start={n: strength.view(-1, 1).expand(rows, layout.tokens(n)) for n in layout.names}
    )


@task(needs=("video",))
def image_only(layout: Layout, rows: int) -> NoiseMap:
    """One picture: the other frames and the sound are absent."""
    return layout.make(rows, present={"video": layout.first_frame(rows), "audio": ~layout.all("audio", rows)})


@task(needs=("audio",))
def audio_only(layout: Layout, rows: int) -> NoiseMap:
    """Sound without pictures."""
    return layout.make(rows, present={"video": ~layout.all("video", rows)})


@task(draw_slope, moving=True)
def staircase(layout: Layout, rows: int, slope: Tensor) -> NoiseMap:
    """Levels rise along time: the last moment starts `slope` (R,) full denoisings later than the first."""
    delay = {n: slope.view(-1, 1) * layout.centres(n) / layout.seconds for n in layout.names}
    return layout.make(rows, delay=delay)


@task(draw_blocks, moving=True)
def diffusion_forcing(layout: Layout, rows: int, block_delay: Tensor) -> NoiseMap:
    """Each of K equal blocks of time has its own delay, `block_delay` (R, K)."""
    blocks = block_delay.shape[1]
    index = {
        n: (layout.centres(n) / layout.seconds * blocks).long().clamp(0, blocks - 1) for n in layout.names
    }
    return layout.make(rows, delay={n: block_delay[:, index[n]] for n in layout.names})
