"""The transformer, its presets and its arithmetic."""

from sora2.model.config import ModelError, TransformerConfig
from sora2.model.init import initialize
from sora2.model.presets import PRESETS, build
from sora2.model.transformer import Transformer

__all__ = ["PRESETS", "ModelError", "Transformer", "TransformerConfig", "build", "initialize"]
