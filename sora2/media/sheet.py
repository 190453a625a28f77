"""Contact sheet: the pictures of a clip over its waveform and mel spectrogram, on one time axis."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.ticker
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torchaudio.transforms import MelSpectrogram

from sora2.atomic import write_atomic
from sora2.errors import UserError
from sora2.media.errors import MediaError
from sora2.types import Clip

Event = float | Mapping[str, Any]

#: Inches. Pictures, waveform and spectrogram share left and right edges, so that a time is one vertical line.
WIDTH, LEFT, RIGHT = 12.8, 0.75, 0.2
TOP, LINE, FOOTER, GAP = 0.42, 0.22, 0.48, 0.1
WAVE_HEIGHT, MEL_HEIGHT = 1.35, 1.9
DOTS_PER_INCH = 110

NARROWEST_LABELLED = 0.65  # inches of a picture that has room for its time

MOST_MEL_BANDS = 96
MEL_WINDOW_SECONDS = 0.032
HERTZ_PER_MEL = 700.0 * math.log(10.0) / 2595.0  # at 0 Hz, where bands are narrowest
DYNAMIC_RANGE_DB = 75.0
COLOURS = {"text": "#22262b", "soft": "#7b838c", "left": "#2f6fb2", "right": "#c8553d", "event": "#d62f6b"}


def contact_sheet(
    clip: Clip,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    events: Sequence[Event] | None = None,
    columns: int = 8,
) -> Path:
    """Draw a clip as one PNG: what is seen and what is heard, when.

    The time axis is cut into `columns` equal slots; above each stands the picture shown at the slot's middle.
    Below are the waveform (left over right) and the mel spectrogram in dB under the loudest point. `events`
    are onset seconds, or mappings with "onset_seconds" and perhaps "kind", each marked by a line through the
    sound. None marks the events of `clip.meta["truth"]` where there are any; an empty sequence marks none.

    Raises:
        MediaError: a clip without pictures and sound, or an event without a time.
    """
    if clip.seconds <= 0:
        raise MediaError(f"cannot draw {clip.key!r}: it has neither pictures nor sound")
    if columns < 1:
        raise MediaError(f"columns={columns} must be at least 1")
    target = Path(path)
    marks = _event_marks(clip, events)
    heading = title if title else clip.caption if clip.caption else clip.key
    lines = textwrap.wrap(heading, 112)[:3]
    header = TOP + LINE * len(lines)
    rows = _row_heights(clip, columns)
    height = header + FOOTER + sum(rows.values()) + GAP * (len(rows) - 1)
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = {}
    top = height - header
    for name, row in rows.items():
        box = (LEFT / WIDTH, (top - row) / height, (WIDTH - LEFT - RIGHT) / WIDTH, row / height)
        axes[name] = figure.add_axes(box)
        top -= row + GAP
    for name, draw in (("pictures", _draw_pictures), ("wave", _draw_wave), ("mel", _draw_mel)):
        if name in axes:
            draw(axes[name], clip, columns)
            axes[name].set_xlim(0, clip.seconds)
    _draw_events([axes[name] for name in ("wave", "mel") if name in axes], marks, clip.seconds)
    _draw_time_axis(list(axes.values()))
    left, over = LEFT / WIDTH, 1 - 0.13 / height
    figure.text(left, over, "\n".join(lines), va="top", size=11, color=COLOURS["text"], parse_math=False)
    under = over - (LINE * len(lines) + 0.03) / height
    figure.text(left, under, _facts(clip), va="top", size=8, color=COLOURS["soft"], parse_math=False)
    try:
        write_atomic(target, canvas.print_png)
    except (OSError, UserError) as error:
        raise MediaError(f"cannot write {target}: {error}; check the folder and its permissions") from error
    return target


def _row_heights(clip: Clip, columns: int) -> dict[str, float]:
    """Inches of each row that the clip has something for, from the top."""
    rows = {}
    if clip.video is not None:
        _, height, width, _ = clip.video.shape
        slot = (WIDTH - LEFT - RIGHT) / columns
        rows["pictures"] = min(4.0, slot * height / width)
    if clip.audio is not None:
        rows |= {"wave": WAVE_HEIGHT, "mel": MEL_HEIGHT}
    return rows


def _draw_pictures(axes: Axes, clip: Clip, columns: int) -> None:
    frames, height, width, _ = clip.video.shape
    slot = clip.seconds / columns
    box = axes.get_window_extent()
    # A slot is `slot` seconds wide; pictures keep their aspect, so a tall one is narrower than its slot.
    picture_width = min(slot, clip.seconds * (box.height * width / height) / box.width)
    smooth = "nearest" if width * 3 < box.width / columns else "antialiased"
    for index in range(columns):
        middle = (index + 0.5) * slot
        frame = min(frames - 1, int(middle * clip.fps))
        inset = picture_width * 0.008
        left, right = middle - picture_width / 2 + inset, middle + picture_width / 2 - inset
        axes.imshow(
            clip.video[frame].numpy(force=True),
            extent=(left, right, 0, 1),
            aspect="auto",
            interpolation=smooth,
        )
        if box.width / columns < NARROWEST_LABELLED * DOTS_PER_INCH:
            continue
        axes.text(
            left,
            0.02,
            f" {frame / clip.fps:.2f} s ",
            size=7.5,
            color="white",
            va="bottom",
            bbox={"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 0.8},
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_wave(axes: Axes, clip: Clip, columns: int) -> None:
    sound = clip.audio.detach().float().cpu()
    channels = sound.shape[0]
    loudest = float(sound.abs().max())
    scale = 1.0 if loudest == 0 else 0.92 / loudest
    names = ("left", "right") if channels == 2 else ("mono",)
    for lane, (name, wave) in enumerate(zip(names, sound, strict=True)):
        seconds, low, high = _envelope(wave, clip.sample_rate)
        middle = 1.0 - 2.0 * lane
        colour = COLOURS.get(name, COLOURS["left"])
        axes.fill_between(seconds, middle + low * scale, middle + high * scale, color=colour, lw=0.4)
        axes.axhline(middle, color=colour, lw=0.4, alpha=0.6)
    axes.set_ylim(1.0 - 2.0 * (channels - 1) - 1.0, 2.0)
    axes.set_yticks([1.0 - 2.0 * lane for lane in range(channels)], [name[0].upper() for name in names])
    axes.text(
        0.995,
        0.97,
        f"peak {loudest:.2f}",
        transform=axes.transAxes,
        ha="right",
        va="top",
        size=7.5,
        color=COLOURS["soft"],
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1.0},
    )


def _envelope(
    wave: Tensor, sample_rate: int, points: int = 1600
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest sample of each of at most `points` spans: (seconds, low, high)."""
    step = max(1, wave.shape[0] // points)
    whole = math.ceil(wave.shape[0] / step) * step
    spans = torch.nn.functional.pad(wave, (0, whole - wave.shape[0])).reshape(-1, step)
    seconds = (torch.arange(spans.shape[0]) + 0.5) * step / sample_rate
    return seconds.numpy(), spans.amin(1).numpy(), spans.amax(1).numpy()


def _draw_mel(axes: Axes, clip: Clip, columns: int) -> None:
    window = 2 ** round(math.log2(MEL_WINDOW_SECONDS * clip.sample_rate))
    sound = clip.audio.detach().float().cpu().mean(0)
    hop = max(1, min(window // 8, sound.shape[0] // 200 + 1))
    mirror = "reflect" if sound.shape[0] > window else "constant"  # no false click at either end
    padded = torch.nn.functional.pad(sound[None], (window // 2, window // 2), mode=mirror)[0]
    top = _mel(clip.sample_rate / 2)
    narrowest = (
        clip.sample_rate / window / HERTZ_PER_MEL
    )  # in mel: a narrower band could hold no frequency bin
    bands = max(1, min(MOST_MEL_BANDS, int(top / narrowest)))
    transform = MelSpectrogram(clip.sample_rate, window, hop_length=hop, n_mels=bands, center=False)
    power = transform(padded)  # (bands, frames); frame i is centred on sample i * hop
    floor = 10 ** (-DYNAMIC_RANGE_DB / 10)
    level = 10 * torch.log10((power / power.max().clamp_min(1e-10)).clamp_min(floor))
    end = power.shape[1] * hop / clip.sample_rate
    shift = hop / clip.sample_rate / 2
    axes.imshow(
        level.numpy(),
        extent=(-shift, end - shift, 0, bands),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-DYNAMIC_RANGE_DB,
        vmax=0,
    )
    axes.set_facecolor("black")
    axes.set_ylim(0, bands)
    ticks = [f for f in (250, 500, 1000, 2000, 4000, 8000, 16000) if f < clip.sample_rate / 2]
    labels = [f"{f}" if f < 1000 else f"{f // 1000}k" for f in ticks]
    axes.set_yticks([_mel(f) / top * bands for f in ticks], labels)
    axes.set_ylabel("Hz (mel)", size=8, color=COLOURS["soft"])


def _mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def _event_marks(clip: Clip, events: Sequence[Event] | None) -> list[tuple[float, str]]:
    """(onset seconds, label) in order of time."""
    if events is None:
        events = clip.meta.get("truth", {}).get("events", ())
    marks = []
    for event in events:
        if isinstance(event, Mapping):
            if "onset_seconds" not in event:
                raise MediaError(f'an event of {clip.key!r} has no "onset_seconds": {dict(event)}')
            marks.append((float(event["onset_seconds"]), str(event.get("kind", ""))))
        else:
            marks.append((float(event), ""))
    return sorted(marks)


def _draw_events(panels: list[Axes], marks: list[tuple[float, str]], seconds: float) -> None:
    last_label = -math.inf
    for onset, label in marks:
        if not 0 <= onset <= seconds:
            continue
        for axes in panels:
            axes.axvline(onset, color=COLOURS["event"], lw=0.9, alpha=0.85, ls=(0, (4, 2)))
        if label and panels and onset - last_label > seconds * 0.045:  # labels never overlap
            panels[0].text(
                onset, 0.985, f" {label}", transform=panels[0].get_xaxis_transform(), va="top", size=7.5,
                color=COLOURS["event"], parse_math=False,
            )  # fmt: skip
            last_label = onset


def _draw_time_axis(panels: list[Axes]) -> None:
    for axes in panels:
        axes.tick_params(labelsize=8, colors=COLOURS["soft"], length=3)
        for side in axes.spines.values():
            side.set_color("#c9ced4")
        if axes is not panels[-1]:
            axes.tick_params(labelbottom=False, bottom=False)
    panels[-1].xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(12, steps=[1, 2, 2.5, 5, 10]))
    panels[-1].set_xlabel("seconds", size=8.5, color=COLOURS["soft"], labelpad=2)


def _facts(clip: Clip) -> str:
    parts = [] if not clip.key else [clip.key]
    if clip.video is not None:
        frames, height, width, _ = clip.video.shape
        parts.append(f"{frames} frames of {width} x {height} at {clip.fps:g} fps")
    if clip.audio is not None:
        parts.append(f"{clip.sample_rate / 1000:g} kHz {'stereo' if clip.audio.shape[0] == 2 else 'mono'}")
    return "   ".join([*parts, f"{clip.seconds:.3f} s"])
