"""Clip <-> the members of one raw sample, exact in frames, samples and clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sora2.data.errors import DataError
from sora2.data.samples import Bucket, json_bytes
from sora2.media import MediaError
from sora2.types import Clip


def clip_bucket(clip: Clip) -> Bucket:
    frames, height, width = (0, 0, 0) if clip.video is None else clip.video.shape[:3]
    channels, samples = (0, 0) if clip.audio is None else clip.audio.shape
    return Bucket(
        frames=frames,
        height=height,
        width=width,
        fps=float(clip.fps) if frames else 0.0,
        samples=samples,
        sample_rate=clip.sample_rate if samples else 0,
        channels=channels,
    )


def clip_meta(clip: Clip) -> dict[str, Any]:
    """KEY.json of a clip that comes from elsewhere than a shard."""
    for name in ("licence", "source"):
        if name not in clip.meta:
            raise DataError(
                f"clip {clip.key!r} has no {name} in its meta: every clip of a shard keeps its {name}"
            )
    return {**clip.meta, "key": clip.key, "caption": clip.caption, **clip_bucket(clip).fields()}


def pack_clip(clip: Clip, *, crf: int) -> dict[str, bytes]:
    """Members of one raw sample. The sound is stored as 16-bit FLAC, so onsets stay where they are."""
    from sora2.media import clip_to_bytes  # here, for loaders of latents decode and encode nothing

    meta = json_bytes(clip_meta(clip))
    return {"mp4": clip_to_bytes(clip, crf=crf, lossless_audio=True), "json": meta}


#: The streams of a clip.
STREAMS = ("video", "audio")
#: What can be had beside them: the sound without the ambience that the truth of a Toybox clip names.
FOREGROUND = "foreground"


def unpack_clip(
    mp4: bytes | bytearray, meta: Mapping[str, Any], where: str, streams: Collection[str] = STREAMS
) -> Clip:
    """The clip of one raw sample, with those of its streams that are wanted, maybe none; `clip.meta` is its KEY.json.

    `DataError` when it cannot be decoded, or does not hold exactly the frames and samples that KEY.json
    counts.
    """
    from sora2.media import read_clip  # here, for loaders of latents decode and encode nothing

    bucket = Bucket.from_meta(meta, f"{where}.json").only(streams)
    if not (bucket.has_video or bucket.has_audio):
        return Clip(caption=meta["caption"], key=meta["key"], meta=dict(meta))
    try:
        clip = read_clip(
            bytes(mp4),
            channels=max(1, bucket.channels),
            video=bucket.has_video,
            audio="required" if bucket.has_audio else "ignore",
            caption=meta["caption"],
            key=meta["key"],
        )
    except MediaError as error:
        raise DataError(f"{where}.mp4 cannot be decoded: {error}") from error
    # the container keeps the frame rate as a fraction; the index's float is the one that was meant
    clip = clip.replace(meta=dict(meta), fps=bucket.fps if bucket.has_video else 0.0)
    if clip_bucket(clip) != bucket:
        raise DataError(
            f"{where}.mp4 decodes to ({clip_bucket(clip)}), but KEY.json says ({bucket}): "
            "write the shard again"
        )
    return clip
