"""Where the tokens of a clip lie in time and picture, and the map of levels that a task draws over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.types import AudioShape, Batch, VideoShape

#: Slack in seconds when the end of a known part is compared with the end of a token.
TOLERANCE = 1e-5

#: The modalities that are made; text and references are conditions, always clean.
STREAMS = ("video", "audio")


@dataclass(frozen=True)
class NoiseMap:
    """What a task says about each token of R clips, per present stream."""

    start: dict[str, Tensor]  # (R, N) in [0, 1]: the level a token starts from; 0 = known
    delay: dict[str, Tensor]  # (R, N) >= 0: how many full denoisings later than the first token it starts
    present: dict[str, Tensor]  # (R, N) bool: False = the token is not there


def token_spans(shape: VideoShape | AudioShape) -> Tensor:
    """(n, 2) first and last moment in seconds of each latent frame, video or audio. They tile time."""
    k = torch.arange(shape.latent_shape[1] + 1, dtype=torch.float64)
    if isinstance(shape, VideoShape):
        edges = torch.where(k == 0, 0.0, 1 + (k - 1) * shape.temporal_stride) / shape.fps
    else:
        edges = k * shape.hop_samples / shape.sample_rate
    return torch.stack([edges[:-1], edges[1:]], dim=1).float()


@dataclass(frozen=True)
class Layout:
    """Time spans and picture cells of the tokens of one bucket. Boolean results are (R, N)."""

    spans: dict[str, Tensor]  # stream -> (N, 2) seconds
    grid: tuple[int, int, int] | None  # (t, y, x) of the video tokens
    seconds: float  # length of the longer stream

    @classmethod
    def of(cls, video_shape: VideoShape | None, audio_shape: AudioShape | None) -> Layout:
        spans: dict[str, Tensor] = {}
        seconds = 0.0
        if video_shape is not None:
            cells = video_shape.grid[1] * video_shape.grid[2]
            spans["video"] = token_spans(video_shape).repeat_interleave(cells, dim=0)
            seconds = video_shape.seconds
        if audio_shape is not None:
            spans["audio"] = token_spans(audio_shape)
            seconds = max(seconds, audio_shape.seconds)
        return cls(spans, None if video_shape is None else video_shape.grid, seconds)

    @classmethod
    def of_batch(cls, batch: Batch) -> Layout:
        """Of the streams that the batch has."""
        return cls.of(
            batch.video_shape if batch.video is not None else None,
            batch.audio_shape if batch.audio is not None else None,
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.spans)

    def tokens(self, name: str) -> int:
        return self.spans[name].shape[0] if name in self.spans else 0

    def centres(self, name: str) -> Tensor:
        """(N,) seconds."""
        return self.spans[name].mean(dim=1)

    def all(self, name: str, rows: int) -> Tensor:
        return torch.ones(rows, self.tokens(name), dtype=torch.bool)

    def before(self, name: str, seconds: Tensor) -> Tensor:
        """Tokens that end by `seconds` (R,)."""
        return self.spans[name][:, 1] <= seconds.view(-1, 1) + TOLERANCE

    def after(self, name: str, seconds: Tensor) -> Tensor:
        """Tokens that begin at `seconds` (R,) or later."""
        return self.spans[name][:, 0] >= seconds.view(-1, 1) - TOLERANCE

    def during(self, name: str, span: Tensor) -> Tensor:
        """Tokens that have any of their time in `span` (R, 2)."""
        if name not in self.spans:
            return torch.zeros(span.shape[0], 0, dtype=torch.bool)
        first, last = self.spans[name].unbind(dim=1)  # (N,), (N,)
        begin, end = span.unsqueeze(-1).unbind(dim=1)  # (R, 1), (R, 1)
        return (last > begin + TOLERANCE) & (first < end - TOLERANCE) & (end > begin)

    def within(self, region: Tensor) -> Tensor:
        """Video tokens inside `region` (R, y, x) bool of the token grid, at every time."""
        assert self.grid is not None
        t = self.grid[0]
        return region.unsqueeze(1).expand(-1, t, -1, -1).reshape(region.shape[0], -1)

    def first_frame(self, rows: int) -> Tensor:
        """Video tokens of the first frame."""
        assert self.grid is not None
        first = torch.arange(self.tokens("video")) < self.tokens("video") // self.grid[0]
        return first.expand(rows, -1)

    def make(
        self,
        rows: int,
        known: dict[str, Tensor] | None = None,
        *,
        start: dict[str, Tensor] | None = None,
        delay: dict[str, Tensor] | None = None,
        present: dict[str, Tensor] | None = None,
    ) -> NoiseMap:
        """A map in which all is made from noise at once, but for what is given per stream, each (R, N)."""
        known, start, delay, present = (({} if x is None else x) for x in (known, start, delay, present))
        maps = NoiseMap({}, {}, {})
        for name in self.names:
            one = torch.ones(rows, self.tokens(name))
            level = start.get(name, one)
            maps.start[name] = torch.where(known[name], 0.0, level) if name in known else level
            maps.delay[name] = delay.get(name, torch.zeros_like(one))
            maps.present[name] = present.get(name, self.all(name, rows))
        return maps
