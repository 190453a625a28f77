"""Video with sound in and out: reading, writing, probing, resampling, contact sheets.

Names are loaded on first use: training from latents reads no films, and needs no PyAV.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sora2.media.errors import MediaError

if TYPE_CHECKING:
    from sora2.media.probing import MediaInfo, probe
    from sora2.media.read import read_clip
    from sora2.media.resample import resample_audio, to_channels
    from sora2.media.sheet import contact_sheet
    from sora2.media.source import AudioUse, Source
    from sora2.media.write import clip_to_bytes, write_clip

__all__ = [
    "AudioUse",
    "MediaError",
    "MediaInfo",
    "Source",
    "clip_to_bytes",
    "contact_sheet",
    "probe",
    "read_clip",
    "resample_audio",
    "to_channels",
    "write_clip",
]

_MODULES = {
    "AudioUse": "source",
    "MediaInfo": "probing",
    "Source": "source",
    "clip_to_bytes": "write",
    "contact_sheet": "sheet",
    "probe": "probing",
    "read_clip": "read",
    "resample_audio": "resample",
    "to_channels": "resample",
    "write_clip": "write",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
