"""What defines a transformer: sizes and switches, validated as a whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sora2.errors import UserError

#: The modalities that own weights, and which of them serves each kind of token.
GROUPS = ("text", "video", "audio")
GROUP_OF = {
    "text": "text",
    "reference_video": "video",
    "reference_audio": "audio",
    "video": "video",
    "audio": "audio",
}
PATTERNS = ("full", "block_causal")


class ModelError(UserError):
    """A model configuration or batch that cannot be built or run."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the joint transformer. The defaults are the preset `s`."""

    width: int = 256
    depth: int = 8
    heads: int = 4
    video_width: int = 64  # of a video token: latent channels x patch area
    audio_width: int = 64
    text_width: int = 384  # of the text encoder's tokens
    video_ffn_ratio: float = 3.0  # hidden width of the feed-forward over `width`
    audio_ffn_ratio: float = 3.0
    text_ffn_ratio: float = 1.0
    shared_ffn: bool = False  # ablation: one feed-forward (of the video ratio) for all modalities
    shared_modulation: bool = False  # ablation: one modulation for all modalities
    level_features: int = 256  # sines and cosines of a noise level
    level_width: int = 128  # of the learned embedding of a noise level, input of the modulation heads
    pattern: str = "full"
    chunk_seconds: float = 0.5  # of the block-causal pattern
    attention_backend: str = "auto"
    rope_time: tuple[float, float] = (0.08, 240.0)  # finest and coarsest wavelength in seconds
    rope_space: tuple[float, float] = (1 / 64, 4.0)  # in units of the picture's shorter side
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in (
            "width",
            "depth",
            "heads",
            "video_width",
            "audio_width",
            "text_width",
            "level_features",
            "level_width",
        ):
            if getattr(self, name) < 1:
                raise ModelError(f"model.{name}={getattr(self, name)} must be at least 1")
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
        if self.pattern not in PATTERNS:
            raise ModelError(f"model.pattern={self.pattern!r} is unknown; use one of {', '.join(PATTERNS)}")
        if not self.chunk_seconds > 0:
            raise ModelError(f"model.chunk_seconds={self.chunk_seconds} must be positive")
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for YAML; `from_dict` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TransformerConfig:
        """Raises ModelError for unknown keys, naming them."""
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelError(f"unknown model key(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**values)

    def _legal_heads(self) -> list[int]:
        return [
            h for h in range(1, self.width // 8 + 1) if self.width % h == 0 and (self.width // h) % 2 == 0
        ]
