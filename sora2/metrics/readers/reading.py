"""Reading a clip: any size, frame rate and sample rate in, one answer per attribute out."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sora2.config import from_mapping
from sora2.media import resample_audio, to_channels
from sora2.metrics.readers.attributes import ATTRIBUTES, Answer
from sora2.metrics.readers.network import AttributeReader, ReaderConfig, check_attributes
from sora2.metrics.values import MetricError, Unmeasurable
from sora2.types import Clip

TRAIN = "train readers with `sora2 train experiment=readers`, or point to the shipped checkpoints/readers"


@dataclass(frozen=True)
class Answered:
    """What was read of one attribute."""

    value: Answer
    confidence: float  # probability of the answer; of a set, of its least certain member or absence


@dataclass(frozen=True)
class Reader:
    """The network, and how often it is right on real clips that it never saw."""

    network: AttributeReader
    accuracy: dict[str, Any]  # as `sora2 evaluate-readers --record` wrote it, empty before

    def accuracy_of(self, attribute: str) -> float | None:
        """Mean agreement with the truth on held-out real clips; None where it was not measured."""
        found = self.accuracy.get("attributes", {}).get(attribute)
        return None if found is None else float(found["mean"])


def load_reader(folder: str | Path) -> Reader:
    """The reader exported to `folder`, in float32 on the CPU; the same object until its files change.

    Raises:
        MetricError: a file is missing, is no reader, or reads other attributes than this code asks for.
    """
    folder = Path(folder).resolve()
    files = [folder / "config.json", folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise MetricError(f"attribute readers: {folder} has no {file.name}; {TRAIN}")
    return _load(folder, tuple(file.stat().st_mtime_ns for file in files))


@functools.lru_cache(maxsize=2)
def _load(folder: Path, modified: tuple[int, ...]) -> Reader:
    try:
        stored = json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise MetricError(f"{folder / 'config.json'} is not JSON ({error}); {TRAIN}") from error
    if not isinstance(stored, dict) or stored.get("kind") != "attribute_readers":
        raise MetricError(f"{folder / 'config.json'} is not of attribute readers; {TRAIN}")
    check_attributes(stored["attributes"], str(folder))
    network = AttributeReader(from_mapping(ReaderConfig, stored["config"], where=f"{folder}/config.json"))
    try:
        weights = load_file(folder / "model.safetensors")
        network.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in weights.items()})
    except (SafetensorError, RuntimeError) as error:
        raise MetricError(f"{folder / 'model.safetensors'} does not fit its config.json: {error}") from error
    return Reader(network.eval().requires_grad_(False), stored.get("accuracy", {}))


def read_clip(reader: Reader, clip: Clip) -> dict[str, Answered]:
    """Attribute -> answer, of all attributes, whether or not they apply to what the clip shows.

    Raises:
        Unmeasurable: the clip has no picture or no sound, or is too short to be read.
    """
    video, audio = prepare(clip, reader.network.config)
    return read_batch(reader, video[None], audio[None])[0]


@torch.no_grad()
def read_batch(reader: Reader, video: Tensor, audio: Tensor) -> list[dict[str, Answered]]:
    """Answers of prepared clips of one shape: video (B, 3, T, H, W), audio (B, 2, S)."""
    logits = reader.network(video, audio)
    return [{name: answer(name, values[i]) for name, values in logits.items()} for i in range(len(video))]


def answer(name: str, logits: Tensor) -> Answered:
    """The answer of (choices,) logits: the likeliest choice, or all that are likelier than not, at least one."""
    attribute = ATTRIBUTES[name]
    best = int(logits.argmax())
    if not attribute.several:
        return Answered(attribute.choices[best], float(logits.softmax(0)[best]))
    chance = logits.sigmoid().tolist()
    there = tuple(c for i, c in enumerate(attribute.choices) if chance[i] > 0.5 or i == best)
    return Answered(there, min(max(p, 1 - p) for p in chance))


def prepare(clip: Clip, config: ReaderConfig) -> tuple[Tensor, Tensor]:
    """(3, T, H, W) in [-1, 1] at the reader's frame rate and size, and (2, S) at its sample rate.

    Raises:
        Unmeasurable: see `read_clip`.
    """
    if clip.video is None or clip.audio is None:
        raise Unmeasurable("attributes are read from picture and sound together, and one of them is missing")
    video, audio = frames_at(clip, config), clip.audio.float()
    if not torch.isfinite(audio).all():
        raise Unmeasurable("the sound has values that are not finite")
    audio = resample_audio(to_channels(audio, 2), clip.sample_rate, config.sample_rate)
    if audio.shape[1] <= config.window_samples:
        raise Unmeasurable("the sound is too short to be read")
    return video, audio


def frames_at(clip: Clip, config: ReaderConfig) -> Tensor:
    """(3, T, H, W): the frames nearest to the reader's instants, the shorter side scaled to its size."""
    video = clip.video
    assert video is not None
    if abs(clip.fps - config.fps) > 1e-3:
        count = max(1, round(len(video) / clip.fps * config.fps))
        nearest = (torch.arange(count) / config.fps * clip.fps).round().long().clamp(max=len(video) - 1)
        video = video[nearest]
    frames = video.permute(0, 3, 1, 2).float() / 127.5 - 1  # (T, 3, H, W)
    height, width = frames.shape[-2:]
    if min(height, width) != config.picture:
        scale = config.picture / min(height, width)
        size = (round(height * scale), round(width * scale))
        frames = F.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)
    return frames.transpose(0, 1)


def read_all(reader: Reader, clips: Sequence[Clip], batch: int = 16) -> list[dict[str, Answered]]:
    """Answers of many clips; those of one shape are read together."""
    prepared = [prepare(clip, reader.network.config) for clip in clips]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, (video, audio) in enumerate(prepared):
        groups.setdefault((video.shape, audio.shape), []).append(i)
    answers: list[dict[str, Answered]] = [{} for _ in clips]
    for members in groups.values():
        for start in range(0, len(members), batch):
            rows = members[start : start + batch]
            video, audio = (torch.stack([prepared[i][part] for i in rows]) for part in (0, 1))
            for i, found in zip(rows, read_batch(reader, video, audio), strict=True):
                answers[i] = found
    return answers
