"""The three encoders of one model, used together: Clip in, latents out, and back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sora2.codecs.base import CodecError
from sora2.codecs.load import load_codec
from sora2.codecs.text import TextEncoder, build_text_encoder
from sora2.media import resample_audio, to_channels
from sora2.types import AudioShape, Clip, VideoShape, to_uint8_video


@dataclass(frozen=True)
class Codecs:
    """Video codec, audio codec and text encoder. A modality that a model does not have is None."""

    video: Any | None
    audio: Any | None
    text: TextEncoder | None

    def video_shape(self, frames: int, height: int, width: int, fps: float, *, patch_size: int) -> VideoShape:
        codec = _need(self.video, "video")
        return VideoShape(
            frames,
            height,
            width,
            fps,
            codec.latent_channels,
            codec.temporal_stride,
            codec.spatial_stride,
            patch_size,
        )

    def audio_shape(self, seconds: float) -> AudioShape:
        codec = _need(self.audio, "audio")
        return AudioShape.for_seconds(
            seconds,
            codec.sample_rate,
            channels=codec.channels,
            hop_samples=codec.hop_samples,
            latent_channels=codec.latent_channels,
        )

    def token_widths(self, video: VideoShape, audio: AudioShape) -> dict[str, int]:
        """Numbers per token of "video", "audio" and "text": what a transformer over these codecs takes."""
        text = _need(self.text, "text")
        return {"video": video.token_width, "audio": audio.token_width, "text": text.width}

    def weights_digest(self) -> str:
        """Of all weights of video and audio codec, the decoders' too, of which a fingerprint says nothing."""
        digest = hashlib.sha256()
        for codec in (self.video, self.audio):
            if codec is not None:
                for name, tensor in sorted(codec.state_dict().items()):
                    digest.update(
                        name.encode()
                        + tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
                    )
        return digest.hexdigest()[:16]

    def spreads(self) -> dict[str, list[float]]:
        """Standard deviations of the latent channels of "video" and "audio"."""
        video, audio = _need(self.video, "video"), _need(self.audio, "audio")
        return {"video": _rounded(video.spread), "audio": _rounded(audio.spread)}

    @torch.no_grad()
    def encode_clip(self, clip: Clip) -> dict[str, Tensor]:
        """Latents of what the clip has: "video" (C, t, h, w) and "audio" (C, n), float32 on the CPU.

        Sound is brought to the codec's sample rate and channel count. Raises ShapeError for a clip of other than
        1 + k * temporal_stride frames, CodecError for a stream that this bundle has no codec for.
        """
        latents = {}
        if clip.video is not None:
            codec = _need(self.video, "video", clip.key)
            frames, height, width, _ = clip.video.shape
            self.video_shape(frames, height, width, clip.fps, patch_size=1)
            latents["video"] = codec.encode(clip.pixels()[None].to(_device(codec)))[0].cpu()
        if clip.audio is not None:
            codec = _need(self.audio, "audio", clip.key)
            sound = to_channels(clip.audio.float(), codec.channels)
            sound = resample_audio(sound, clip.sample_rate, codec.sample_rate)
            latents["audio"] = codec.encode(sound[None].to(_device(codec)))[0].cpu()
        return latents

    @torch.no_grad()
    def decode_clip(
        self,
        video_latent: Tensor | None,
        audio_latent: Tensor | None,
        video_shape: VideoShape | None = None,
        audio_shape: AudioShape | None = None,
    ) -> Clip:
        """Latents (C, t, h, w) and (C, n) -> Clip. A latent comes with its shape, which gives fps and samples."""
        fields: dict[str, Any] = {}
        if video_latent is not None:
            shape = _need_shape(video_shape, "video", video_latent)
            codec = _need(self.video, "video")
            pixels = codec.decode(video_latent[None].float().to(_device(codec)))[0]
            fields |= {"video": to_uint8_video(pixels.cpu()), "fps": shape.fps}
        if audio_latent is not None:
            shape = _need_shape(audio_shape, "audio", audio_latent)
            codec = _need(self.audio, "audio")
            sound = codec.decode(audio_latent[None].float().to(_device(codec)), shape.samples)[0]
            fields |= {"audio": sound.float().cpu(), "sample_rate": shape.sample_rate}
        return Clip(**fields)

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of every encoder present, under "video", "audio" and "text"."""
        parts = {"video": self.video, "audio": self.audio, "text": self.text}
        return {name: part.fingerprint() for name, part in parts.items() if part is not None}

    def to(self, device: str | torch.device) -> Codecs:
        """Move the networks; returns self."""
        for part in (self.video, self.audio, self.text):
            if isinstance(part, torch.nn.Module):
                part.to(device)
        return self


def load_codecs(
    video_dir: str | Path | None,
    audio_dir: str | Path | None,
    text: str | None = "minilm",
    max_tokens: int | None = None,
) -> Codecs:
    """Load the codecs saved in two folders and the named text encoder; None leaves a modality out.

    Raises CodecError for a folder that does not exist, lacks weights or holds a codec of the other kind.
    """
    video = None if video_dir is None else load_codec(video_dir)
    audio = None if audio_dir is None else load_codec(audio_dir)
    if video is not None and not hasattr(video, "spatial_stride"):
        raise CodecError(f"{video_dir} holds an audio codec, but a video codec was asked for")
    if audio is not None and not hasattr(audio, "hop_samples"):
        raise CodecError(f"{audio_dir} holds a video codec, but an audio codec was asked for")
    return Codecs(video, audio, None if text is None else build_text_encoder(text, max_tokens))


def _rounded(values: Tensor) -> list[float]:
    """As they stand in a config."""
    return [round(value, 4) for value in values.tolist()]


def _need(codec: Any, modality: str, key: str = "") -> Any:
    if codec is None:
        where = f"clip {key!r} has {modality}, but " if key else ""
        raise CodecError(f"{where}no {modality} codec was loaded; name its folder in codecs.{modality}")
    return codec


def _need_shape(shape: Any, modality: str, latent: Tensor) -> Any:
    if shape is None:
        raise CodecError(f"decoding a {modality} latent needs its {modality}_shape")
    if tuple(latent.shape) != shape.latent_shape:
        raise CodecError(
            f"{modality} latent {tuple(latent.shape)} does not match {shape.latent_shape} of {shape}"
        )
    return shape


def _device(codec: torch.nn.Module) -> torch.device:
    return next(chain(codec.parameters(), codec.buffers())).device  # a fixed transform has buffers alone
