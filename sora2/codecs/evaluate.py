"""Reconstruction of held-out clips: measured per clip, summed up with confidence intervals, drawn side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sora2.codecs import measure
from sora2.codecs.bundle import Codecs
from sora2.codecs.losses import log_mel, magnitudes
from sora2.media import resample_audio, to_channels
from sora2.toybox.foreground import foreground, has_own_noise
from sora2.types import Clip

#: Ambiences that are noise: a codec is not asked to repeat their samples.
NOISE_LIKE = ("rain", "wind", "city")

#: More values of (clip, its reconstruction): one number per clip, and lists of one number per event.
Judge = Callable[[Clip, Clip], tuple[dict[str, float], dict[str, list[float]]]]


@dataclass(frozen=True)
class Row:
    """Reconstruction of one clip. NaN where a value does not apply.

    `events` holds what there are several of in a clip; they are pooled over clips. Names that end in "_percent" or
    "_points" are summed up by their mean, all others by the median and 90th percentile of their size.
    """

    key: str
    groups: tuple[str, ...]
    values: dict[str, float]
    events: dict[str, list[float]] = field(default_factory=dict)


def has_noise(truth: dict[str, Any]) -> bool:
    """Whether noise sounds in a Toybox clip: ambience, weather, traffic, friction, or a strand that has any."""
    ambience = truth["ambience"] in NOISE_LIKE or any(map(has_noise, truth.get("strands", [])))
    return ambience or has_own_noise(truth)


def reconstruct(codecs: Codecs, clip: Clip) -> Clip:
    """The clip through both codecs, with the mean of the posterior."""
    latents = codecs.encode_clip(clip)
    video_shape = audio_shape = None
    if clip.video is not None:
        frames, height, width, _ = clip.video.shape
        video_shape = codecs.video_shape(frames, height, width, clip.fps, patch_size=1)
    if clip.audio is not None:
        audio_shape = codecs.audio_shape(clip.audio_seconds)
    decoded = codecs.decode_clip(latents.get("video"), latents.get("audio"), video_shape, audio_shape)
    return decoded.replace(caption=clip.caption, key=clip.key)


def measure_clip(
    codecs: Codecs, clip: Clip, groups: Sequence[str], judge: Judge | None = None, waveform: bool = True
) -> tuple[Row, Clip]:
    """The row of one clip, and its reconstruction. `groups` name the clips it is summed up with.

    waveform: whether SI-SDR is asked for, which noise has no use for.
    """
    other = reconstruct(codecs, clip)
    values: dict[str, float] = {}
    events: dict[str, list[float]] = {}
    if clip.video is not None:
        values["psnr_db"] = measure.psnr(clip.video, other.video)
    if clip.audio is not None:
        sound = resample_audio(
            to_channels(clip.audio, codecs.audio.channels), clip.sample_rate, other.sample_rate
        )
        samples = min(sound.shape[1], other.audio.shape[1])
        sound, back = sound[:, :samples], other.audio[:, :samples]
        if waveform:
            values["si_sdr_db"] = measure.si_sdr(sound, back)
        values["log_mel_db"] = measure.log_mel_distance(sound, back, other.sample_rate)
        onsets = [e["onset_seconds"] for e in clip.meta.get("truth", {}).get("events", [])]
        # against the sound alone: the grain of the original's ambience is nothing that a codec has to repeat
        alone = resample_audio(
            to_channels(foreground(clip).audio, codecs.audio.channels), clip.sample_rate, other.sample_rate
        )[:, :samples]
        events["onset_shift_ms"] = measure.onset_shifts(alone, back, other.sample_rate, onsets, mixture=sound)
    if judge is not None:
        more, lists = judge(clip, other)
        values |= more
        events |= lists
    return Row(clip.key, tuple(groups), values, events), other


def evaluate_clips(
    codecs: Codecs,
    clips: Iterable[tuple[Sequence[str], Clip]],
    total: int | None = None,
    judge: Judge | None = None,
    waveform: Callable[[Clip], bool] = lambda clip: True,
) -> list[Row]:
    """Rows of (groups, clip) pairs, with a progress bar; `waveform` says of which clips SI-SDR is measured."""
    return [
        measure_clip(codecs, clip, groups, judge, waveform(clip))[0]
        for groups, clip in tqdm(clips, total=total, desc="codec round trip", unit="clip", leave=False)
    ]


def side_by_side(pairs: list[tuple[Clip, Clip]], path: str | Path, frames: int = 8) -> Path:
    """PNG: for each clip the original above its reconstruction, frames on the left and log-mel on the right."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(
        2 * len(pairs),
        2,
        figsize=(15, 2.4 * len(pairs)),
        width_ratios=[3, 1.4],
        squeeze=False,
        layout="constrained",
    )
    for i, pair in enumerate(pairs):
        for j, clip in enumerate(pair):
            left, right = axes[2 * i + j]
            left.set_ylabel(("original", "codec")[j], fontsize=8)
            for axis in (left, right):
                axis.set_xticks([])
                axis.set_yticks([])
            if clip.video is not None:
                chosen = torch.linspace(0, clip.video.shape[0] - 1, frames).round().long()
                left.imshow(torch.cat(list(clip.video[chosen]), dim=1).numpy(), interpolation="nearest")
            if clip.audio is not None:
                right.imshow(
                    _mel_picture(clip.audio, clip.sample_rate),
                    origin="lower",
                    aspect="auto",
                    vmin=-4.6,
                    vmax=2,
                )
        axes[2 * i][0].set_title(f"{pair[0].key}  {pair[0].caption}"[:120], fontsize=8, loc="left")
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path


def _mel_picture(audio: Tensor, sample_rate: int) -> np.ndarray:
    """Log-mel magnitudes of the channels' mean, (mels, frames)."""
    return log_mel(magnitudes(audio.float().mean(0), 1024), 1024, 64, sample_rate, floor=1e-2)[0].numpy()
