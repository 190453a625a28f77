"""Pasting and chunking: known parts keep their bits, seams do not click, chunks tile what is missing."""

import pytest
import torch

from sora2.generate.canvas import Canvas, join
from sora2.generate.chunks import backward_chunks, forward_chunks
from sora2.generate.grid import Grid, World
from sora2.generate.request import SamplingConfig
from sora2.types import Clip

GRID = Grid(8, 8, 8.0, 800, 1)
WORLD = World(GRID, frames=33, temporal_stride=4, cell=8, sampling=SamplingConfig())


@pytest.mark.parametrize("known", [0, 1, 2, 7, 17, 33, 50])
@pytest.mark.parametrize("more", [1, 4, 15, 16, 33, 100])
def test_forward_chunks_cover_without_gaps(known, more):
    total, at = known + more, known
    chunks = forward_chunks(WORLD, total, known)
    for chunk in chunks:
        assert chunk.frames <= 33 and chunk.frames % 4 == 1
        assert chunk.start + chunk.known_frames == at and chunk.start >= 0
        assert chunk.known_frames == 0 or chunk.known_frames % 4 == 1
        at = chunk.start + chunk.frames
    assert at >= total and (len(chunks) == 1 or at - total < 4)
    assert (chunks[0].known_frames == 0) == (known == 0)


@pytest.mark.parametrize("known", [4, 7, 17, 50])
@pytest.mark.parametrize("more", [1, 4, 15, 16, 33, 100])
def test_backward_chunks_cover_without_gaps(known, more):
    missing = more
    for chunk in backward_chunks(WORLD, known + more, known):
        assert chunk.suffix and chunk.frames % 4 == 1 and chunk.frames <= 33
        assert chunk.known_frames % 4 == 0 and chunk.known_frames <= known + more - missing
        assert chunk.start + chunk.frames - chunk.known_frames == missing
        missing = chunk.start
    assert missing <= 0


def test_known_pixels_and_samples_survive_any_write():
    canvas = Canvas.empty(GRID, 10)
    video = torch.randint(0, 255, (4, 8, 8, 3), dtype=torch.uint8)
    audio = torch.randn(1, 400)
    canvas.put(3, video, audio)
    made = Clip(
        video=torch.full((16, 8, 8, 3), 7, dtype=torch.uint8),
        fps=8.0,
        audio=torch.ones(1, 1600),
        sample_rate=800,
    )
    canvas.write(-2, made)
    assert torch.equal(canvas.video[3:7], video) and torch.equal(canvas.audio[:, 300:700], audio)
    assert (canvas.video[:3] == 7).all() and (canvas.video[7:] == 7).all()
    assert canvas.known_video.all() and canvas.known_audio.all()


def test_window_fills_the_unknown_with_what_is_near():
    canvas = Canvas.empty(GRID, 6)
    video = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 8, 8, 3) + 10
    canvas.put(2, video, torch.linspace(1, 2, 200)[None])
    window = canvas.window(0, 9)
    assert window.video[:, 0, 0, 0].tolist() == [10, 10, 10, 11, 11, 11, 11, 11, 11]
    assert torch.equal(window.audio[:, 200:400], canvas.audio[:, 200:400])
    assert torch.allclose(window.audio[:, 100:200], canvas.audio[:, 201:301].flip(1))  # mirrored at the edge
    assert window.audio.shape[1] == 900
    empty = Canvas.empty(GRID, 6).window(0, 5)
    assert empty.video is None and empty.audio is None


def test_join_removes_the_step_and_touches_nothing_known():
    known_audio = torch.full((1, 100), 0.5)
    made = torch.full((1, 100), -0.5)
    known = (torch.arange(100) < 40) | (torch.arange(100) >= 80)
    result = join(known_audio, made, known, 10)
    assert torch.equal(result[:, known], known_audio[:, known])
    assert result.diff().abs().max() < 0.15
    assert torch.allclose(result[:, 52:68], made[:, 52:68])
