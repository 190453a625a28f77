"""Decoded pictures, chosen by their timestamps and turned into (H, W, 3) uint8 RGB of the wanted size."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import torch
from torch import Tensor

from sora2.media.errors import MediaError
from sora2.media.hdr import rgb_of


def centre_crop_resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, h, w, 3) uint8: centre crop to the aspect of `size`, antialiased bicubic."""
    height, width = frames.shape[1:3]
    h, w = size
    if (height, width) == (h, w):
        return frames
    crop_h, crop_w = min(height, max(1, round(width * h / w))), min(width, max(1, round(height * w / h)))
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    frames = frames[:, top : top + crop_h, left : left + crop_w]
    return _resize(frames, size)


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(frames.shape[1:3]) == tuple(size):
        return frames.contiguous()
    planes = frames.permute(0, 3, 1, 2)  # (T, 3, H, W), channels last in memory
    scaled = torch.nn.functional.interpolate(planes, size=size, mode="bicubic", antialias=True)
    return scaled.permute(0, 2, 3, 1).contiguous()


class PictureFinisher:
    """One decoded picture, as stored -> as shown: rotation, square pixels, wanted size."""

    def __init__(self, size: tuple[int, int] | None, pixel_aspect: Fraction) -> None:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise MediaError(f"size={size!r} must be (height, width) in pixels")
        self.size = size
        self.pixel_aspect = pixel_aspect

    def __call__(self, rgb: np.ndarray, rotation: int) -> Tensor:
        """(H, W, 3) uint8 -> (h, w, 3) uint8; `rotation` counter-clockwise in degrees, a multiple of 90."""
        if rotation % 90:
            raise MediaError(
                f"a picture rotated by {rotation} degrees; only multiples of 90 can be shown upright"
            )
        picture = torch.from_numpy(rgb)
        if self.pixel_aspect != 1:
            height, width = picture.shape[:2]
            picture = _resize(picture[None], (height, max(1, round(width * self.pixel_aspect))))[0]
        if rotation:
            picture = torch.rot90(picture, rotation // 90, dims=(0, 1))
        if self.size is not None:
            picture = centre_crop_resize(picture.contiguous()[None], self.size)[0]
        return picture.contiguous()


class FrameGrid:
    """Which decoded picture stands at which frame of a clip with frames at start + k / fps.

    Frame k is the picture nearest in time to start + k / fps where the file is evenly spaced, and the picture
    shown at that time where it is not: a picture may be taken early by at most half the file's shortest frame
    interval. Before the first picture stands the first one, after the last the last one.

    Times of pictures come in ticks of the stream (`time_base` seconds each, clip second 0 at `zero`); the
    comparison is exact, in integers.
    """

    def __init__(
        self,
        start: Fraction,
        fps: Fraction,
        frames: int | None,
        *,
        densest_rate: Fraction,
        time_base: Fraction,
        zero: Fraction,
    ) -> None:
        self.fps, self.frames = fps, frames
        half = 1 / densest_rate / 2
        # Ties, and time stamps that were rounded to milliseconds, go to the earlier picture.
        early = half - min(half / 4, Fraction(1, 1000))
        # Frame k lies before a picture at `tick` if start + k / fps + early < tick * time_base - zero,
        # which is k < tick * slope - offset; multiplied by a common denominator.
        slope = time_base * fps
        self._scale = slope.denominator * (zero + start + early).denominator * fps.denominator
        self._slope = int(slope * self._scale)
        self._offset = int((zero + start + early) * fps * self._scale)
        self._end_offset = (zero + start) * fps
        self._end_slope = slope
        self.filled = 0  # frames that are decided

    def before(self, tick: int) -> int:
        """How many more frames belong to the picture before one that starts at `tick`."""
        count = -((self._offset - tick * self._slope) // self._scale)
        if self.frames is not None:
            count = min(count, self.frames)
        more = max(0, count - self.filled)
        self.filled += more
        return more

    def rest(self, end_tick: int) -> int:
        """How many frames belong to the last picture, when pictures end at `end_tick`."""
        total = self.frames
        if total is None:
            total = max(1, round(end_tick * self._end_slope - self._end_offset))
        more = max(0, total - self.filled)
        self.filled += more
        return more

    @property
    def complete(self) -> bool:
        return self.frames is not None and self.filled >= self.frames


class PictureTrack:
    """Receives decoded frames in order of presentation and keeps what the grid asks for."""

    def __init__(self, name: str, grid: FrameGrid, finish: PictureFinisher, frame_ticks: int) -> None:
        self.name, self.grid, self.finish = name, grid, finish
        self.frame_ticks = frame_ticks  # length of a picture that does not state its own
        self.current: av.VideoFrame | None = None
        self.pictures: list[Tensor] = []
        self.first_tick: int | None = None
        self.end_tick = 0  # where the last decoded picture ends

    @property
    def complete(self) -> bool:
        return self.grid.complete

    def add(self, frame: av.VideoFrame) -> None:
        """Take the next picture; it decides which frames the one before it fills."""
        if frame.is_corrupt:
            raise MediaError(
                f"{self.name}: the picture at {frame.time:.3f} s is damaged; copy or download the file again"
            )
        tick = self.end_tick if frame.pts is None else frame.pts
        if self.first_tick is None:
            self.first_tick = tick
        elif self.current is not None:
            self._keep(self.grid.before(tick))
        self.current = frame
        self.end_tick = tick + (frame.duration if frame.duration else self.frame_ticks)

    def add_array(self, rgb: np.ndarray, count: int) -> None:
        """Let an upright (H, W, 3) uint8 picture stand for the next `count` frames."""
        self.pictures += [self.finish(rgb, 0)] * count

    def finish_track(self) -> Tensor:
        """-> (T, H, W, 3) uint8, once no more frames will come."""
        if self.current is not None and not self.complete:
            self._keep(self.grid.rest(self.end_tick))
        if not self.pictures:
            raise MediaError(
                f"{self.name}: no picture could be decoded; it is truncated or damaged, copy it again"
            )
        shapes = {tuple(picture.shape) for picture in self.pictures}
        if len(shapes) > 1:
            raise MediaError(
                f"{self.name}: the picture changes size midway {sorted(shapes)}: give a size to read"
            )
        return torch.stack(self.pictures)

    def _keep(self, count: int) -> None:
        if count:
            self.pictures += [self.finish(rgb_of(self.current), self.current.rotation)] * count
