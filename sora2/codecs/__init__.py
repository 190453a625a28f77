"""Codecs: pixels, samples and captions to latents of unit variance, and back.

`load_codecs` gives the bundle that data preparation, training and sampling use.
"""

from sora2.codecs.base import CodecError, LatentCodec
from sora2.codecs.bundle import Codecs, load_codecs
from sora2.codecs.load import load_codec
from sora2.codecs.spectral_vae import SpectralVAE, SpectralVAEConfig
from sora2.codecs.text import ByteTextEncoder, MiniLMEncoder, TextEncoder, build_text_encoder
from sora2.codecs.video_vae import VideoVAE, VideoVAEConfig

__all__ = [
    "ByteTextEncoder",
    "CodecError",
    "Codecs",
    "LatentCodec",
    "MiniLMEncoder",
    "SpectralVAE",
    "SpectralVAEConfig",
    "TextEncoder",
    "VideoVAE",
    "VideoVAEConfig",
    "build_text_encoder",
    "load_codec",
    "load_codecs",
]
