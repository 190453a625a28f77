"""Reading what a request gives onto one grid: the frame rate, size and sound format of what is generated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sora2.generate.grid import Grid
from sora2.generate.request import RequestError, Source
from sora2.media import probe, read_clip, resample_audio, to_channels
from sora2.media.picture import centre_crop_resize
from sora2.types import Clip

#: Endings of files that hold one picture.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Film:
    """Pictures on a grid and, perhaps, their sound."""

    video: Tensor  # (T, H, W, 3) uint8
    audio: Tensor | None  # (channels, S), of the same length

    @property
    def frames(self) -> int:
        return self.video.shape[0]

    def cut(self, frames: int, grid: Grid) -> Film:
        """The first `frames` frames."""
        audio = None if self.audio is None else fit_samples(self.audio, grid.samples(frames))
        return Film(self.video[:frames], audio)

    def tail(self, frames: int, grid: Grid) -> Film:
        """The last `frames` frames."""
        skip = self.frames - frames
        if self.audio is None:
            return Film(self.video[skip:], None)
        return Film(self.video[skip:], fit_samples(self.audio[:, grid.samples(skip) :], grid.samples(frames)))


def load_video(source: Source, grid: Grid, flag: str, *, sound: bool) -> Film:
    """Pictures on the grid, and the sound of the same length where `sound`.

    Raises:
        RequestError: there is no picture, or no sound where it is needed.
        MediaError: the file cannot be read.
    """
    if isinstance(source, Clip):
        clip = conform(source, grid)
    else:
        clip = read_clip(
            source,
            fps=grid.fps,
            size=(grid.height, grid.width),
            sample_rate=grid.sample_rate,
            channels=grid.channels,
            audio="optional" if sound else "ignore",
        )
    name = _name(source)
    if clip.video is None:
        raise RequestError(f"{flag}: {name} has no pictures; give a video")
    if not sound:
        return Film(clip.video, None)
    if clip.audio is None:
        raise RequestError(
            f"{flag}: {name} has no sound, which this task continues or keeps; make some "
            f"first (--video {name} alone adds it), or pass --silent to work on the pictures alone"
        )
    return Film(clip.video, fit_samples(clip.audio, grid.samples(clip.video.shape[0])))


def load_audio(source: Source, grid: Grid, flag: str) -> Tensor:
    """(channels, S) on the grid.

    Raises:
        RequestError: the source has no sound. MediaError: the file cannot be read.
    """
    if isinstance(source, Clip):
        clip = conform(source, grid)
    else:
        clip = read_clip(
            source, video=False, audio="required", sample_rate=grid.sample_rate, channels=grid.channels
        )
    if clip.audio is None:
        raise RequestError(f"{flag}: {_name(source)} has no sound")
    return clip.audio


def load_image(source: Source, grid: Grid, flag: str) -> Tensor:
    """(1, H, W, 3) uint8: a picture file, or the first frame of a clip; transparency becomes white.

    Raises:
        RequestError: the file is missing or not a picture.
    """
    if isinstance(source, Clip):
        if source.video is None:
            raise RequestError(f"{flag}: the clip has no pictures")
        return centre_crop_resize(source.video[:1], (grid.height, grid.width))
    return centre_crop_resize(_read_picture(source, flag, "RGB")[None], (grid.height, grid.width))


def load_person(source: Source, grid: Grid, seconds: float, flag: str) -> Clip:
    """A person's face (1, H, W, 3), the first picture of a clip or a picture, and voice, the first `seconds` of its
    sound; a stream that the source lacks is None.

    Raises:
        RequestError: a picture that cannot be read. MediaError: another file that cannot be read.
    """
    if isinstance(source, Clip):
        clip = conform(source, grid)
    elif Path(source).suffix.lower() in PICTURES:
        return Clip(video=load_image(source, grid, flag), fps=grid.fps)
    else:
        pictures = probe(source).has_video
        clip = read_clip(
            source,
            fps=grid.fps if pictures else None,
            size=(grid.height, grid.width) if pictures else None,
            sample_rate=grid.sample_rate,
            channels=grid.channels,
            video=pictures,
            audio="optional",
        )
    face = None if clip.video is None else clip.video[:1]
    voice = None if clip.audio is None else clip.audio[:, : round(seconds * grid.sample_rate)]
    return Clip(
        video=face,
        audio=voice,
        fps=0.0 if face is None else grid.fps,
        sample_rate=0 if voice is None else grid.sample_rate,
    )


def load_mask(mask: tuple[float, float, float, float] | Tensor | Path | str, grid: Grid) -> Tensor:
    """(H, W) bool, True where the picture is made anew: a box in parts of the picture, or a picture file
    (bright = anew) that is cropped and resized as the video is.

    Raises:
        RequestError: the file cannot be read, or nothing is marked.
    """
    if isinstance(mask, tuple):
        y0, x0, y1, x1 = mask
        y, x = (torch.arange(grid.height) + 0.5) / grid.height, (torch.arange(grid.width) + 0.5) / grid.width
        marked = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    else:
        if isinstance(mask, Tensor):
            gray = mask.to(torch.uint8) * 255 if mask.dtype == torch.bool else mask
        else:
            gray = _read_picture(mask, "--mask", "L")
        scaled = centre_crop_resize(gray[None, :, :, None].expand(-1, -1, -1, 3), (grid.height, grid.width))
        marked = scaled[0, :, :, 0] >= 128
    if not marked.any():
        raise RequestError("--mask marks no pixel of the picture; give a larger region")
    return marked


def conform(clip: Clip, grid: Grid) -> Clip:
    """A clip in memory brought onto the grid: frames nearest in time, cropped, resized; resampled sound."""
    if clip.video is not None:
        frames = grid.frames_of(clip.video_seconds)
        index = (torch.arange(frames) * clip.fps / grid.fps).round().long().clamp(max=clip.video.shape[0] - 1)
        clip = clip.replace(
            video=centre_crop_resize(clip.video[index], (grid.height, grid.width)), fps=grid.fps
        )
    if clip.audio is not None:
        audio = to_channels(clip.audio, grid.channels)
        audio = resample_audio(audio, clip.sample_rate, grid.sample_rate)
        clip = clip.replace(audio=audio, sample_rate=grid.sample_rate)
    return clip


def fit_samples(audio: Tensor, samples: int) -> Tensor:
    """(channels, S) cut, or continued by silence, to exactly `samples`."""
    return torch.nn.functional.pad(audio[:, :samples], (0, max(0, samples - audio.shape[1])))


def _read_picture(path: str | Path, flag: str, mode: str) -> Tensor:
    try:
        with Image.open(path) as stored:
            image: Image.Image = _of_eight_bits(ImageOps.exif_transpose(stored), path, flag)
            if mode == "RGB" and image.mode in ("RGBA", "LA", "P"):
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return torch.from_numpy(np.array(image.convert(mode)))
    except FileNotFoundError as error:
        raise RequestError(f"{flag}: {path} does not exist") from error
    except (UnidentifiedImageError, OSError) as error:
        raise RequestError(
            f"{flag}: {path} is not a picture that can be read ({error}); give a PNG or JPEG"
        ) from error


def _of_eight_bits(image: Image.Image, path: str | Path, flag: str) -> Image.Image:
    """Grey of 16 bits is brought to 8, which `convert` would clip."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise RequestError(f"{flag}: {path} has numbers of 32 bits; give a picture of 8 or 16 bits a channel")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _name(source: Source) -> str:
    return f"clip {source.key!r}" if isinstance(source, Clip) else str(source)
