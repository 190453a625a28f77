"""What defines a transformer: sizes and switches, validated as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sora2.errors import UserError
from sora2.kernels import BACKENDS, Rule

#: The modalities that own weights, and which of them serves each kind of token.
GROUPS = ("text", "video", "audio")
GROUP_OF = {
    "text": "text",
    "reference_video": "video",
    "reference_audio": "audio",
    "video": "video",
    "audio": "audio",
}


class ModelError(UserError):
    """A model configuration or batch that cannot be built or run."""


@dataclass(frozen=True)
class AttentionConfig:
    """Who attends to whom, and on which kernels. The default is everybody to everybody."""

    chunk_seconds: float | None = None  # causal in time by chunks of this length; None = both ways
    layers: tuple[Rule, ...] = (Rule(),)  # what layers see, in turn: layer i follows layers[i % len(layers)]
    tile: tuple[int, int, int] = (4, 4, 8)  # (t, y, x) video tokens of one tile
    flat_tile: int = 128  # tokens of one tile of anything else
    backend: str = "auto"  # of layers with a pattern
    dense_backend: str = "auto"  # of layers without

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile", tuple(self.tile))
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.chunk_seconds is not None and not self.chunk_seconds > 0:
            raise ModelError(
                f"model.attention.chunk_seconds={self.chunk_seconds} must be positive, or null for no causality"
            )
        if not self.layers:
            raise ModelError("model.attention.layers is empty: give at least one rule; [{}] is everything")
        if len(self.tile) != 3 or min(self.tile) < 1 or self.flat_tile < 1:
            raise ModelError(
                f"model.attention.tile={list(self.tile)} and flat_tile={self.flat_tile} must be at least 1"
            )
        for name in ("backend", "dense_backend"):
            if getattr(self, name) not in BACKENDS:
                raise ModelError(
                    f"model.attention.{name}={getattr(self, name)!r} is unknown; use one of {', '.join(BACKENDS)}"
                )

    @property
    def is_dense(self) -> bool:
        """Whether no layer has a pattern, so that tokens need no tiles."""
        return self.chunk_seconds is None and all(rule.is_dense for rule in self.layers)

    def rule(self, layer: int) -> Rule:
        return self.layers[layer % len(self.layers)]


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the joint transformer. The defaults are the preset `s`."""

    width: int = 256
    depth: int = 8
    heads: int = 4
    patch_size: int = 2  # latent cells per side of a video token; time is never patched
    video_width: int = 64  # of a video token: latent channels x patch area
    audio_width: int = 64
    text_width: int = 384  # of the text encoder's tokens
    #: Standard deviation of each latent channel, for the preconditioning (`precondition.py`); () = none, the network
    #: answers with the velocity itself.
    video_spread: tuple[float, ...] = ()
    audio_spread: tuple[float, ...] = ()
    video_ffn_ratio: float = 3.0  # hidden width of the feed-forward over `width`
    audio_ffn_ratio: float = 3.0
    text_ffn_ratio: float = 1.0
    shared_ffn: bool = False  # ablation: one feed-forward (of the video ratio) for all modalities
    shared_modulation: bool = False  # ablation: one modulation for all modalities
    level_features: int = 256  # sines and cosines of a noise level
    level_width: int = 128  # of the learned embedding of a noise level, input of the modulation heads
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    rope_time: tuple[float, float] = (0.08, 240.0)  # finest and coarsest wavelength in seconds
    rope_space: tuple[float, float] = (1 / 64, 4.0)  # in units of the picture's shorter side
    rope_fps: float | None = (
        None  # ablation: pictures are placed by their index, as if every clip had this frame rate
    )
    timed_text: int = (
        0  # moments around its own of which a sound token is told the text (`timed_text.py`); 0 = none
    )
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for group in ("video", "audio"):
            object.__setattr__(self, f"{group}_spread", tuple(self.spread(group)))
        for name in (
            "width",
            "depth",
            "heads",
            "patch_size",
            "video_width",
            "audio_width",
            "text_width",
            "level_features",
            "level_width",
        ):
            if getattr(self, name) < 1:
                raise ModelError(f"model.{name}={getattr(self, name)} must be at least 1")
        for group in ("video", "audio"):
            spread = self.spread(group)
            if spread and (self.token_width(group) % len(spread) or min(spread) <= 0):
                raise ModelError(
                    f"model.{group}_spread has {len(spread)} numbers, the smallest {min(spread):g}: it needs a "
                    "positive one for each latent channel, and their number divides "
                    f"model.{group}_width={self.token_width(group)}"
                )
        if self.width % self.heads:
            raise ModelError(
                f"model.heads={self.heads} does not divide model.width={self.width}; use one of {self._legal_heads()}"
            )
        if self.head_width % 2 or self.head_width < 8:
            raise ModelError(
                f"model.width / model.heads = {self.head_width} must be even and at least 8 for the rotary axes; "
                f"use heads from {self._legal_heads()}"
            )
        if self.level_features % 2:
            raise ModelError(f"model.level_features={self.level_features} must be even (sines and cosines)")
        for group in GROUPS:
            if self.ffn_width(group) < 1:
                raise ModelError(
                    f"model.{group}_ffn_ratio={getattr(self, f'{group}_ffn_ratio')} must be positive"
                )
        if self.rope_fps is not None and not self.rope_fps > 0:
            raise ModelError(f"model.rope_fps={self.rope_fps} must be positive, or null for time in seconds")
        if self.timed_text < 0 or (self.timed_text and self.timed_text % 2 == 0):
            raise ModelError(
                f"model.timed_text={self.timed_text} must be odd, a token's own moment and as many on each side, or 0"
            )
        for name in ("rope_time", "rope_space"):
            finest, coarsest = getattr(self, name)
            object.__setattr__(self, name, (float(finest), float(coarsest)))  # lists from YAML become tuples
            if not 0 < finest < coarsest:
                raise ModelError(f"model.{name}={(finest, coarsest)} must be two rising positive wavelengths")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def ffn_width(self, group: str) -> int:
        """Hidden width of a group's feed-forward, rounded to a multiple of 16 where it is larger than that."""
        hidden = round(getattr(self, f"{group}_ffn_ratio") * self.width)
        return hidden if hidden < 16 else round(hidden / 16) * 16

    def token_width(self, group: str) -> int:
        """Width of a group's tokens outside the model."""
        return int(getattr(self, f"{group}_width"))

    def spread(self, group: str) -> tuple[float, ...]:
        """Standard deviations of a group's latent channels; () where nothing is preconditioned."""
        return () if group == "text" else getattr(self, f"{group}_spread")

    def _legal_heads(self) -> list[int]:
        return [
            h for h in range(1, self.width // 8 + 1) if self.width % h == 0 and (self.width // h) % 2 == 0
        ]


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model as this version writes them, from those of a checkpoint.

    Before attention had a section of its own, its settings were `pattern`, `chunk_seconds` and `attention_backend`.
    """
    new = dict(values)
    if "attention" in new or "pattern" not in new:
        return new
    causal = new.pop("pattern") == "block_causal"
    chunk_seconds = new.pop("chunk_seconds", 0.5)
    backend = new.pop("attention_backend", "auto")
    new["attention"] = {"chunk_seconds": chunk_seconds if causal else None, "dense_backend": backend}
    return new
