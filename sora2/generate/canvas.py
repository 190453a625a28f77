"""A clip in the making: pixels and samples with a note of which are known. All pasting happens here.

A window of the canvas is what the model sees at once. What it makes is written only where nothing is known,
so known parts stay exactly as they were given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.generate.grid import Grid
from sora2.generate.inputs import Film
from sora2.types import Clip

#: Length over which a step between known and made sound is spread out, against clicks.
JOIN_SECONDS = 0.005


@dataclass
class Canvas:
    """`frames` frames and their sound. `known_*` say per frame and per sample what is given or already made;
    `keep` (H, W) bool marks pixels that are known at every time (in-painting)."""

    grid: Grid
    video: Tensor | None  # (T, H, W, 3) uint8
    audio: Tensor | None  # (channels, S) float32
    known_video: Tensor  # (T,) bool
    known_audio: Tensor  # (S,) bool
    keep: Tensor | None = None

    @classmethod
    def empty(cls, grid: Grid, frames: int, *, video: bool = True, audio: bool = True) -> Canvas:
        samples = grid.samples(frames)
        return cls(
            grid,
            torch.zeros(frames, grid.height, grid.width, 3, dtype=torch.uint8) if video else None,
            torch.zeros(grid.channels, samples) if audio else None,
            torch.zeros(frames, dtype=torch.bool),
            torch.zeros(samples, dtype=torch.bool),
        )

    @property
    def frames(self) -> int:
        return self.known_video.shape[0]

    def put(self, at: int, video: Tensor | None = None, audio: Tensor | None = None) -> None:
        """Set known frames, and known samples, from frame `at` on."""
        if video is not None:
            assert self.video is not None
            self.video[at : at + len(video)] = video
            self.known_video[at : at + len(video)] = True
        if audio is not None:
            assert self.audio is not None
            begin = self.grid.samples(at)
            length = min(audio.shape[1], self.known_audio.shape[0] - begin)
            self.audio[:, begin : begin + length] = audio[:, :length]
            self.known_audio[begin : begin + length] = True

    def forget(self, first: int, last: int) -> None:
        """Frames first .. last - 1 and their sound are to be made anew."""
        self.known_video[first:last] = False
        self.known_audio[self.grid.samples(first) : self.grid.samples(last)] = False

    def window(self, start: int, frames: int) -> Clip:
        """What the codecs are to encode for frames start .. start + frames - 1.

        Beyond the canvas, and where nothing is known, the nearest known frame stands still and the nearest known
        sound is mirrored, so that codecs whose view crosses an edge see natural input. A stream of which nothing
        is known is None.
        """
        video = audio = None
        if self.video is not None and self.known_video.any():
            index = torch.arange(start, start + frames).clamp(0, self.frames - 1)
            video = self.video[nearest_known(self.known_video)[index]]
        if self.audio is not None and self.known_audio.any():
            begin, samples = self.grid.samples(start), self.grid.samples(frames)
            wanted = torch.arange(begin, begin + samples)
            last = self.known_audio.shape[0] - 1
            nearest = nearest_known(self.known_audio)[wanted.clamp(0, last)]
            mirrored = (2 * nearest - wanted).clamp(0, last)
            audio = torch.where(self.known_audio[mirrored], self.audio[:, mirrored], 0.0)
        return Clip(
            video=video,
            audio=audio,
            fps=self.grid.fps if video is not None else 0.0,
            sample_rate=self.grid.sample_rate if audio is not None else 0,
        )

    def write(self, start: int, made: Clip, end: int | None = None) -> None:
        """Take what was made for frames from `start` on, before `end`, where nothing is known; then it is known."""
        end = self.frames if end is None else min(end, self.frames)
        if self.video is not None and made.video is not None:
            first, last = max(0, start), min(start + len(made.video), end)
            new = ~self.known_video[first:last].view(-1, 1, 1, 1)
            if self.keep is not None:
                new = new & ~self.keep.view(1, *self.keep.shape, 1)
            self.video[first:last] = torch.where(
                new, made.video[first - start : last - start], self.video[first:last]
            )
            self.known_video[first:last] = True
        if self.audio is not None and made.audio is not None:
            begin = self.grid.samples(start)
            first, last = max(0, begin), min(begin + made.audio.shape[1], self.grid.samples(end))
            fade = round(JOIN_SECONDS * self.grid.sample_rate)
            sound = made.audio[:, first - begin : last - begin]
            self.audio[:, first:last] = join(
                self.audio[:, first:last], sound, self.known_audio[first:last], fade
            )
            self.known_audio[first:last] = True

    def film(self, first: int, last: int) -> Film:
        """Frames first .. last - 1 and their sound."""
        assert self.video is not None
        audio = None
        if self.audio is not None:
            audio = self.audio[:, self.grid.samples(first) : self.grid.samples(last)]
        return Film(self.video[first:last], audio)

    def clip(self) -> Clip:
        return Clip(
            video=self.video,
            audio=self.audio,
            fps=self.grid.fps if self.video is not None else 0.0,
            sample_rate=self.grid.sample_rate if self.audio is not None else 0,
        )


def nearest_known(known: Tensor) -> Tensor:
    """(N,) index of the nearest True of `known` (N,) bool, which has one."""
    index = torch.arange(known.shape[0])
    where = index[known]
    after = torch.searchsorted(where, index).clamp(max=len(where) - 1)
    before = (after - 1).clamp(min=0)
    closer = (index - where[before]).abs() <= (where[after] - index).abs()
    return torch.where(closer, where[before], where[after])


def join(known_audio: Tensor, made: Tensor, known: Tensor, samples: int) -> Tensor:
    """(channels, S): `known_audio` where `known` (S,), else `made`, without a click where they meet.

    At each edge the made sound is offset by what it missed of the last known sample, fading out over
    `samples`; the known sound is not touched.
    """
    result = torch.where(known, known_audio, made)
    edges = (known[1:] != known[:-1]).nonzero()[:, 0].tolist()
    for edge in edges:  # known[edge] != known[edge + 1]
        forward = bool(known[edge])
        given = edge if forward else edge + 1
        offset = known_audio[:, given] - made[:, given]  # (channels,)
        span = (
            range(edge + 1, min(edge + 1 + samples, len(known)))
            if forward
            else range(edge, max(edge - samples, -1), -1)
        )
        index = torch.tensor(list(span))
        fade = 1 - (torch.arange(len(index)) + 1) / (samples + 1)
        inside = ~known[index]
        result[:, index] += torch.where(inside, offset[:, None] * fade, 0.0)
    return result


def concatenate(grid: Grid, *films: Film) -> Clip:
    """One after the other on one clock: sound starts with its own frames."""
    canvas = Canvas.empty(grid, sum(f.frames for f in films), audio=films[0].audio is not None)
    at = 0
    for film in films:
        canvas.put(at, film.video, film.audio)
        at += film.frames
    if canvas.audio is not None:  # lengths are rounded to samples film by film; one may be missing at a seam
        canvas.audio = canvas.audio[:, nearest_known(canvas.known_audio)]
    return canvas.clip()
