"""The control rows that stand in every table: what the metrics say about truth, and about known defects.

A metric that does not tell *real* from *shuffled audio* or *frozen frame* says nothing about a model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sora2.metrics.values import MetricError
from sora2.types import AudioShape, Clip, VideoShape


@dataclass(frozen=True)
class Item:
    """One clip of a row, with what it is measured against."""

    key: str
    prompt: str  # clips of one prompt are one cluster of the bootstrap
    clip: Clip | None  # None when it could not be read
    truth: dict[str, Any] | None = None
    reference: Clip | None = None
    seed: int | None = None
    failure: str = ""  # why `clip` is None
    path: str = ""  # file the clip was read from or written to


def real_items(clips: Iterable[Clip]) -> list[Item]:
    """The clips themselves."""
    return [Item(c.key, c.caption, c, c.meta.get("truth")) for c in clips]


def shuffled_audio(items: Sequence[Item], seed: int = 0) -> list[Item]:
    """Every clip with the sound of another one; no clip keeps its own.

    Raises:
        MetricError: fewer than two clips have sound, so there is nothing to exchange.
    """
    sounding = [i for i in items if i.clip is not None and i.clip.audio is not None]
    if len(sounding) < 2:
        raise MetricError(
            f"{len(sounding)} clips have sound; at least 2 are needed to shuffle it between clips"
        )
    order = np.random.default_rng(seed).permutation(len(sounding))  # a cycle through all, so no fixed point
    donor = {int(order[i]): sounding[int(order[i - 1])].clip for i in range(len(order))}
    return [
        Item(
            item.key,
            item.prompt,
            item.clip.replace(audio=donor[i].audio, sample_rate=donor[i].sample_rate),
            item.truth,
            seed=item.seed,
        )
        for i, item in enumerate(sounding)
    ]


def frozen_frame(items: Sequence[Item]) -> list[Item]:
    """Every clip with its middle frame throughout; the sound is kept."""
    frozen = []
    for item in items:
        if item.clip is None or item.clip.video is None:
            continue
        video = item.clip.video
        still = video[len(video) // 2 : len(video) // 2 + 1].expand_as(video).contiguous()
        frozen.append(Item(item.key, item.prompt, item.clip.replace(video=still), item.truth, seed=item.seed))
    return frozen


def wrong_enrolment(items: Sequence[Item]) -> list[Item]:
    """Every clip beside the enrolment clips of the next one's person: what similarity strangers have.

    Raises:
        MetricError: fewer than two clips have enrolment.
    """
    known = [i for i in items if i.clip is not None and i.clip.meta.get("enrolment")]
    if len(known) < 2:
        raise MetricError(f"{len(known)} clips have enrolment; at least 2 are needed to exchange it")
    exchanged = []
    for item, other in zip(known, [*known[1:], known[0]], strict=True):
        meta = {**item.clip.meta, "enrolment": other.clip.meta["enrolment"]}
        exchanged.append(dataclasses.replace(item, clip=item.clip.replace(meta=meta)))
    return exchanged


def codec_round_trip(items: Iterable[Item], codecs: Any) -> Iterator[Item]:
    """Every clip encoded and decoded by a `sora2.codecs.Codecs` bundle, with the original as reference."""
    for item in items:
        if item.clip is None:
            continue
        yield Item(item.key, item.prompt, round_trip(item.clip, codecs), item.truth, item.clip, item.seed)


def round_trip(clip: Clip, codecs: Any) -> Clip:
    """decode(encode(clip)), cut to the length of `clip`."""
    latents = codecs.encode_clip(clip)
    video_shape: VideoShape | None = None
    audio_shape: AudioShape | None = None
    if clip.video is not None:
        frames, height, width = clip.video.shape[:3]
        video_shape = codecs.video_shape(frames, height, width, clip.fps, patch_size=1)
    if clip.audio is not None:
        audio_shape = codecs.audio_shape(clip.audio_seconds)
    decoded = codecs.decode_clip(latents.get("video"), latents.get("audio"), video_shape, audio_shape)
    audio = decoded.audio if clip.audio is None else decoded.audio[:, : clip.audio.shape[1]]
    return decoded.replace(audio=audio, caption=clip.caption, key=clip.key, meta=dict(clip.meta))
