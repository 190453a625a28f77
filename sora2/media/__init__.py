"""Video with sound in and out: reading, writing, probing, resampling, contact sheets."""

from sora2.media.errors import MediaError
from sora2.media.probe import MediaInfo, probe
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
