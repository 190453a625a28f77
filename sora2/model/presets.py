"""Named sizes, from a toy to a 14-billion model."""

from __future__ import annotations

from dataclasses import replace

import torch

from sora2.model.config import ModelError, TransformerConfig
from sora2.model.transformer import Transformer

PRESETS: dict[str, TransformerConfig] = {
    "xs": TransformerConfig(width=160, depth=6, heads=4),
    "s": TransformerConfig(),
}


def build(
    config: TransformerConfig | str,
    device: str | torch.device = "cpu",
    generator: torch.Generator | None = None,
) -> Transformer:
    """A transformer from a configuration or a preset's name, initialised unless `device` is "meta".

    Raises:
        ModelError: unknown preset.
    """
    if isinstance(config, str):
        if config not in PRESETS:
            raise ModelError(f"preset {config!r} is unknown; use one of {', '.join(PRESETS)}")
        config = PRESETS[config]
    with torch.device(device):
        return Transformer(config, generator)
