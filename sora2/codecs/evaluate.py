"""Reconstruction of held-out clips: measured per clip, summed up with confidence intervals, drawn side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

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
from sora2.types import Clip

#: Ambiences that are noise: a waveform codec is not asked to repeat their samples.
NOISE_LIKE = ("rain", "wind", "city")


@dataclass(frozen=True)
class Row:
    """Reconstruction of one clip. NaN where a value does not apply."""

    key: str
    group: str
    values: dict[str, float]
    onset_shifts_ms: list[float] = field(default_factory=list)


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


def measure_clip(codecs: Codecs, clip: Clip, group: str) -> tuple[Row, Clip]:
    """The row of one clip, and its reconstruction. `group` names the clips it is summed up with."""
    other = reconstruct(codecs, clip)
    values, shifts = {}, []
    if clip.video is not None:
        values["psnr_db"] = measure.psnr(clip.video, other.video)
    if clip.audio is not None:
        sound = resample_audio(
            to_channels(clip.audio, codecs.audio.channels), clip.sample_rate, other.sample_rate
        )
        samples = min(sound.shape[1], other.audio.shape[1])
        sound, back = sound[:, :samples], other.audio[:, :samples]
        values["si_sdr_db"] = measure.si_sdr(sound, back)
        values["log_mel_db"] = measure.log_mel_distance(sound, back, other.sample_rate)
        events = clip.meta.get("truth", {}).get("events", [])
        shifts = measure.onset_shifts(sound, back, other.sample_rate, [e["onset_seconds"] for e in events])
    return Row(clip.key, group, values, shifts), other


def evaluate_clips(codecs: Codecs, clips: Iterable[tuple[str, Clip]], total: int | None = None) -> list[Row]:
    """Rows of (group, clip) pairs, with a progress bar."""
    return [
        measure_clip(codecs, clip, group)[0]
        for group, clip in tqdm(clips, total=total, desc="codec round trip", unit="clip", leave=False)
    ]


def summarise(rows: list[Row], seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """group -> metric -> mean, median, low, high (95 % bootstrap interval over clips, of the mean) and n.

    Onset shifts are pooled over events: median and 90th percentile of their size in ms, interval of the median.
    """
    generator = np.random.default_rng(seed)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        table[group] = {}
        for name in dict.fromkeys(n for row in members for n in row.values):
            values = np.array([row.values[name] for row in members if name in row.values])
            missing = int(np.isnan(values).sum())
            values = values[~np.isnan(values)]
            if len(values):
                draws = generator.choice(values, (1000, len(values))).mean(1)
                table[group][name] = {
                    "mean": float(values.mean()),
                    "median": float(np.median(values)),
                    "low": float(np.quantile(draws, 0.025)),
                    "high": float(np.quantile(draws, 0.975)),
                    "n": len(values),
                    "unmeasurable": missing,
                }
        shifts = np.abs([s for row in members for s in row.onset_shifts_ms])
        if len(shifts):
            draws = np.median(generator.choice(shifts, (1000, len(shifts))), axis=1)
            table[group]["onset_shift_ms"] = {
                "mean": float(shifts.mean()),
                "median": float(np.median(shifts)),
                "p90": float(np.quantile(shifts, 0.9)),
                "low": float(np.quantile(draws, 0.025)),
                "high": float(np.quantile(draws, 0.975)),
                "n": len(shifts),
            }
    return table


def format_table(table: dict[str, dict[str, dict[str, float]]]) -> str:
    """The summary as a Markdown table."""
    lines = ["| clips | metric | mean | median | 95 % interval | n |", "|---|---|---|---|---|---|"]
    for group, metrics in table.items():
        for name, v in metrics.items():
            of = " (median)" if name == "onset_shift_ms" else ""
            interval = f"{v['low']:.2f} to {v['high']:.2f}{of}"
            lines.append(
                f"| {group} | {name} | {v['mean']:.2f} | {v['median']:.2f} | {interval} | {v['n']} |"
            )
    return "\n".join(lines)


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
