"""Captions as latent samples hold them; when the words of a clip are said, KEY.json knows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sora2.codecs import TextEncoder
from sora2.codecs.quotes import with_times
from sora2.codecs.text import encode_timed

#: Share of the clips whose caption keeps quiet about when, so that a model also learns to choose, or to follow a mouth.
UNTIMED = 0.2


def caption_of(meta: Mapping[str, Any], reads_times: bool) -> str:
    """The caption of a clip, for an encoder that reads the times of quoted words or not.

    Times are those of "speech" ([[word, start, end], ...], seconds of the clip), or of the words among the events of
    "truth".
    """
    caption = str(meta["caption"])
    if not reads_times or zlib.crc32(str(meta["key"]).encode()) < UNTIMED * 2**32:
        return caption
    events = meta.get("truth", {}).get("events", ())
    said = [(e["word"], e["onset_seconds"], e["end_seconds"]) for e in events if e.get("kind") == "word"]
    return with_times(caption, meta.get("speech", said))


def encode_words(text: TextEncoder, captions: list[str]) -> list[dict[str, Tensor]]:
    """Per caption "text" (L, D) unpadded float32, and "seconds" (L,) where some of its tokens have a time."""
    encoded = zip(*(x.float().cpu() for x in encode_timed(text, captions)), strict=True)
    rows = []
    for tokens, mask, seconds in encoded:
        keep = mask.bool()
        row = {"text": tokens[keep]}
        rows.append(row | {"seconds": seconds[keep]} if seconds.any() else row)
    return rows
