"""Samples of one bucket -> one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sora2.data.errors import DataError
from sora2.data.raw import FOREGROUND
from sora2.data.samples import LatentSample
from sora2.types import AudioShape, Batch, Clip, Modality, VideoShape, clean_modality


@lru_cache(maxsize=64)
def _positions(shape: VideoShape | AudioShape) -> Tensor:
    return shape.positions()


def _stack(samples: Sequence[Any], get: Callable[[Any], Tensor | None]) -> tuple[Tensor, Tensor] | None:
    """(B, ...) with zeros where the stream is missing, and (B,) bool present; None when no sample has it."""
    found = [get(s) for s in samples]
    present = [f is not None for f in found]
    if not any(present):
        return None
    like = next(f for f in found if f is not None)
    filled = [torch.zeros_like(like) if f is None else f for f in found]
    return torch.stack(filled), torch.tensor(present)


def _one(values: set[Any], what: str, samples: Sequence[LatentSample]) -> Any:
    if len(values) > 1:
        raise DataError(
            f"a batch must be of one bucket, got {what} {sorted(values)} in {[s.key for s in samples]}"
        )
    return values.pop()


def _clean(tokens: Tensor, present: Tensor, shape: VideoShape | AudioShape) -> Modality:
    mask = present[:, None].expand(-1, tokens.shape[1]).clone()  # (B, N)
    return clean_modality(tokens.float(), _positions(shape), mask)


def video_shape(sample: LatentSample, geometry: Mapping[str, Any], patch_size: int) -> VideoShape:
    frames, height, width, fps = sample.bucket.picture
    return VideoShape(frames, height, width, fps, patch_size=patch_size, **geometry["video"])


def audio_shape(sample: LatentSample, geometry: Mapping[str, Any]) -> AudioShape:
    samples, sample_rate, channels = sample.bucket.sound
    return AudioShape(samples, sample_rate, channels, **geometry["audio"])


def collate_latents(
    samples: Sequence[LatentSample],
    geometry: Mapping[str, Any],
    *,
    patch_size: int = 2,
    max_text_tokens: int = 0,
    dropped: Mapping[str, np.ndarray] | None = None,
    references: Sequence[LatentSample | None] = (),
) -> Batch:
    """Clean tokens (noise level 0), float32, of samples that share a bucket.

    geometry: the `geometry` of the shard index: {"video": {channels, temporal_stride, spatial_stride},
    "audio": {latent_channels, hop_samples}, "text": {...}}.
    max_text_tokens: width of the padded text; 0 pads to the longest of the batch.
    dropped: modality -> (B,) bool; a dropped modality keeps its place with mask False and zero latents.
    references: another clip of the same person for each sample, or None: its first picture and its sound.
    A stream that some samples lack is masked for those; one that all lack is None.
    """
    with_video = [s for s in samples if s.video is not None]
    with_audio = [s for s in samples if s.audio is not None]
    drop = {} if dropped is None else dropped

    video, shape_v = None, None
    stacked = _stack(samples, lambda s: s.video)  # (B, C, t, h, w)
    if stacked is not None:
        _one({s.bucket.picture for s in with_video}, "picture sizes", samples)
        shape_v = video_shape(with_video[0], geometry, patch_size)
        video = _clean(shape_v.tokenize(stacked[0]), stacked[1], shape_v)  # (B, N, C p p)

    audio, shape_a = None, None
    stacked = _stack(samples, lambda s: s.audio)  # (B, C, n)
    if stacked is not None:
        _one({s.bucket.sound for s in with_audio}, "soundtrack sizes", samples)
        shape_a = audio_shape(with_audio[0], geometry)
        audio = _clean(shape_a.tokenize(stacked[0]), stacked[1], shape_a)  # (B, n, C)

    batch = Batch(
        video=video,
        audio=audio,
        text=_text(samples, max_text_tokens),
        **_references(references, shape_v, shape_a),
        video_shape=shape_v,
        audio_shape=shape_a,
        keys=tuple(s.key for s in samples),
        captions=tuple(s.caption for s in samples),
    )
    return batch.replace(
        **{
            name: _drop(getattr(batch, name), rows)
            for name, rows in drop.items()
            if getattr(batch, name) is not None
        }
    )


def _references(
    samples: Sequence[LatentSample | None], video: VideoShape | None, audio: AudioShape | None
) -> dict[str, Modality]:
    """`reference_video` and `reference_audio` of companions of the sizes of a batch; what none has is left out."""
    found = {}
    # (B, C, 1, h, w)
    pictures = _stack(samples, lambda s: None if s is None or s.video is None else s.video[:, :1])
    if pictures is not None and video is not None:
        still = video.still
        found["reference_video"] = _clean(still.tokenize(pictures[0]), pictures[1], still)
    sounds = _stack(samples, lambda s: None if s is None else s.audio)  # (B, C, n)
    if sounds is not None and audio is not None:
        found["reference_audio"] = _clean(audio.tokenize(sounds[0]), sounds[1], audio)
    return found


def _drop(modality: Modality, rows: np.ndarray) -> Modality:
    if not rows.any():
        return modality
    keep = ~torch.from_numpy(rows)
    return modality.replace(latent=modality.latent * keep[:, None, None], mask=modality.mask & keep[:, None])


def _text(samples: Sequence[LatentSample], max_tokens: int) -> Modality | None:
    """(B, L, D) padded caption embeddings. Their positions are 0, for the text encoder has put order into the tokens,
    but for those that have a time."""
    texts = [s.text for s in samples]
    given = [t for t in texts if t is not None]
    if not given:
        return None
    lengths = [0 if t is None else t.shape[0] for t in texts]
    longest = max(lengths)
    if max_tokens and longest > max_tokens:
        worst = samples[lengths.index(longest)]
        raise DataError(
            f"caption of {worst.key} has {longest} tokens, data.max_text_tokens is {max_tokens}: set it "
            f"to at least {longest}, or run `sora2 encode` with a text encoder of at most {max_tokens} tokens"
        )
    length = max_tokens if max_tokens else max(1, longest)
    tokens = torch.zeros(len(samples), length, given[0].shape[1])
    mask = torch.zeros(len(samples), length, dtype=torch.bool)
    timed = any(s.seconds is not None for s in samples)
    positions = torch.zeros(len(samples), length, 3) if timed else torch.zeros(length, 3)
    for row, (sample, n) in enumerate(zip(samples, lengths, strict=True)):
        if sample.text is not None and n:
            tokens[row, :n] = sample.text
            mask[row, :n] = True
            if sample.seconds is not None:
                positions[row, :n, 0] = sample.seconds
    return clean_modality(tokens, positions, mask)


def collate_raw(clips: Sequence[Clip], quiet: Sequence[Clip] | None = None) -> dict[str, Any]:
    """{"video": (B, 3, T, H, W) in [-1, 1], "audio": (B, channels, S), "video_mask"/"audio_mask": (B,) bool,
    "fps", "sample_rate", "keys", "captions", "metas" (KEY.json of each)}; a stream that no clip has is absent.

    quiet: the same clips without ambience, whose sound is added as "foreground" (B, channels, S).
    """
    batch: dict[str, Any] = {
        "keys": tuple(c.key for c in clips),
        "captions": tuple(c.caption for c in clips),
        "metas": tuple(c.meta for c in clips),
    }
    video = _stack(clips, lambda c: c.video)  # (B, T, H, W, 3) uint8
    if video is not None:
        batch["video"] = video[0].permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1.0).contiguous()
        batch["video_mask"] = video[1]
        batch["fps"] = next(c.fps for c in clips if c.video is not None)
    audio = _stack(clips, lambda c: c.audio)
    if audio is not None:
        batch["audio"], batch["audio_mask"] = audio
        batch["sample_rate"] = next(c.sample_rate for c in clips if c.audio is not None)
    alone = None if quiet is None else _stack(quiet, lambda c: c.audio)
    if alone is not None:
        batch[FOREGROUND] = alone[0]
    return batch
