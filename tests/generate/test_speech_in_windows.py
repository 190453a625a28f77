"""A clip made in several windows says its words once, each when it is to be said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sora2.codecs.quotes import quoted, said_between, spoken
from sora2.generate.grid import Grid, World
from sora2.generate.plan import plan
from sora2.generate.request import Request, SamplingConfig
from sora2.generate.window import Window
from sora2.types import Clip

GRID = Grid(16, 16, 8.0, 800, 1)
WORLD = World(GRID, frames=33, temporal_stride=4, cell=8, sampling=SamplingConfig(), reads_times=True)
CLIP = Clip(torch.zeros(33, 16, 16, 3, dtype=torch.uint8), torch.zeros(1, 3300), 8.0, 800)


def windows(request: Request, world: World = WORLD) -> list[Window]:
    steps, found = plan(request, world), []
    try:
        (window,) = next(steps)
        while True:
            found.append(window)
            n = window.frames
            made = Clip(
                torch.zeros(n, 16, 16, 3, dtype=torch.uint8), torch.zeros(1, GRID.samples(n)), 8.0, 800
            )
            (window,) = steps.send([made])
    except StopIteration:
        return found


def said(request: Request, world: World = WORLD) -> list[list[tuple[str, tuple[float, float] | None]]]:
    return [[(w.letters, w.span) for w in spoken(window.prompt)] for window in windows(request, world)]


def test_a_stretch_has_the_words_that_are_said_in_it_on_its_own_clock():
    text = 'he says "<0.5>river<1>  <3.5>music<4.25> <9>hello<9.5>", she "apple"'
    middle = said_between(text, 4.0, 8.0)
    assert middle == 'he says "<0.00>music<0.25>", she "apple"'
    assert quoted(said_between(text, 5.0, 8.0)) == ["apple"]
    assert said_between('says "apple"', 5.0, 8.0) == 'says "apple"'
    assert quoted(said_between(text, 0.0, 10.0)) == quoted(text)


def test_words_of_a_long_clip_are_said_once():
    prompt = 'a face says "<0.5>river<1.0> <5.0>music<5.5>"'
    found = said(Request(prompt=prompt, seconds=8.0))
    assert found == [  # windows of 33 frames, of which the first 17 are known but in the first
        [("river", (0.5, 1.0))],
        [("music", (3.0, 3.5))],
        [("music", (1.0, 1.5))],  # in what is known of it
    ]
    fast = said(Request(prompt='says "river music"', seconds=8.0))  # as one speaks, from the start
    assert [w for w, _ in fast[0]] == ["river", "music"] and not any(fast[1:])
    assert all(span is not None for _, span in fast[0])


def test_a_clip_that_goes_on_or_back_has_its_words_on_the_clock_of_all_of_it():
    on = said(Request(prompt='says "<1>river<1.5> <5>music<5.5>"', video=CLIP, extend="forward", seconds=2.0))
    assert on == [[("music", (5.0 - 2.0, 5.5 - 2.0))]]  # from 2 s on, of which 17 frames are known
    back = windows(Request(prompt='says "<0.5>river<1>"', video=CLIP, extend="backward", seconds=2.0))
    assert spoken(back[-1].prompt)[0].span == pytest.approx(
        (0.625, 1.125), abs=0.006
    )  # begins a frame earlier
    assert said(Request(prompt='says "river"', video=CLIP)) == [[("river", None)]]  # the mouth says when


@pytest.mark.parametrize(
    "world", [replace(WORLD, reads_times=False), replace(WORLD, reads_times=False, chunk_seconds=0.5)]
)
def test_prompts_stay_as_they_are_where_times_are_not_read(world):
    for prompt in ('says "<0.5>river<1.0> <5.0>music<5.5>"', 'says "river"'):
        assert {w.prompt for w in windows(Request(prompt=prompt, seconds=8.0), world)} == {prompt}
