"""One sample <-> the bytes of its tar members.

Raw:     KEY.mp4 (sound as FLAC inside the mp4, so that onsets stay exact) + KEY.json.
Latents: KEY.safetensors (video (C, t, h, w), audio (C, n), text (L, D), all bf16; seconds (L,) of text tokens
         that have a time, float32; what is missing has no entry; the caption is in the header) + KEY.json.
KEY.json always carries the bucket fields, so that an index can be rebuilt from the tars alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from sora2.data.errors import DataError

RAW: Literal["raw"] = "raw"
LATENTS: Literal["latents"] = "latents"
#: Tar members of one sample, payload first.
MEMBERS: dict[str, tuple[str, ...]] = {RAW: ("mp4", "json"), LATENTS: ("safetensors", "json")}
_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@dataclass(frozen=True, order=True)
class Bucket:
    """Size of a clip before any codec: what must agree for clips to share a batch. 0 = the stream is
    missing."""

    frames: int
    height: int
    width: int
    fps: float
    samples: int
    sample_rate: int
    channels: int

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], where: str) -> Bucket:
        missing = [name for name in cls.__dataclass_fields__ if name not in meta]
        if missing:
            raise DataError(
                f"{where} lacks the fields {missing}: it was not written by `sora2 ingest/toybox/encode`"
            )
        return cls(
            frames=int(meta["frames"]),
            height=int(meta["height"]),
            width=int(meta["width"]),
            fps=float(meta["fps"]),
            samples=int(meta["samples"]),
            sample_rate=int(meta["sample_rate"]),
            channels=int(meta["channels"]),
        )

    def only(self, streams: Collection[str]) -> Bucket:
        """Without the streams that are not in `streams` ("video", "audio")."""
        kept = self
        if "video" not in streams:
            kept = replace(kept, frames=0, height=0, width=0, fps=0.0)
        if "audio" not in streams:
            kept = replace(kept, samples=0, sample_rate=0, channels=0)
        return kept

    @property
    def has_video(self) -> bool:
        return self.frames > 0

    @property
    def has_audio(self) -> bool:
        return self.samples > 0

    @property
    def picture(self) -> tuple[int, int, int, float]:
        return self.frames, self.height, self.width, self.fps

    @property
    def sound(self) -> tuple[int, int, int]:
        return self.samples, self.sample_rate, self.channels

    def fields(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        video = f"{self.frames}x{self.height}x{self.width}@{self.fps:g}" if self.has_video else "no video"
        audio = f"{self.samples}@{self.sample_rate}x{self.channels}" if self.has_audio else "no audio"
        return f"{video}, {audio}"


@dataclass(frozen=True)
class LatentSample:
    """One clip as the trainer meets it; tensors as stored (bf16)."""

    key: str
    caption: str
    bucket: Bucket
    video: Tensor | None  # (C, t, h, w)
    audio: Tensor | None  # (C, n)
    text: Tensor | None  # (L, D), unpadded
    seconds: Tensor | None = None  # (L,) float32: of the text tokens that have a time, 0 of the others


def json_bytes(meta: Mapping[str, Any]) -> bytes:
    return json.dumps(meta, sort_keys=True).encode()


def pack_latents(
    tensors: Mapping[str, Tensor], meta: Mapping[str, Any], caption: str | None = None
) -> dict[str, bytes]:
    """Members of one latent sample. `meta` holds key, caption, the bucket fields and whatever should be
    kept; `caption` is what was encoded, where it says more."""
    dtypes = {"seconds": torch.float32}
    stored = {n: t.detach().to("cpu", dtypes.get(n, torch.bfloat16)).contiguous() for n, t in tensors.items()}
    # one entry only: safetensors writes several in an order that differs from run to run
    header = {"caption": str(meta["caption"]) if caption is None else caption}
    return {"safetensors": save(stored, metadata=header), "json": json_bytes(meta)}


def unpack_latents(data: bytearray, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (sharing memory with `data`) and header metadata of a safetensors buffer.

    A plain parse of the format: an 8-byte little-endian header length, a JSON header, then the tensors. It is
    several times faster than the library call for the small tensors here, and it also returns the metadata.
    """
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:start]))
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            dtype = _DTYPES[entry["dtype"]]
            count = (last - first) // dtype.itemsize
            if start + last > len(data):
                raise ValueError(f"{name} ends at byte {start + last} of {len(data)}")
            if count == 0:
                tensors[name] = torch.zeros(entry["shape"], dtype=dtype)
                continue
            flat = torch.frombuffer(data, dtype=dtype, count=count, offset=start + first)
            tensors[name] = flat.view(entry["shape"])
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{where} is not a whole safetensors file ({error})") from error
    return tensors, metadata
