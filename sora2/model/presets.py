"""Named sizes, from a toy to a 14-billion model.

| preset | parameters | width | depth | heads |
| --- | --- | --- | --- | --- |
| xs | 2.9 M | 128 | 8 | 2 |
| s | 10.5 M | 256 | 8 | 4 |
| m | 33.4 M | 384 | 12 | 6 |
| b | 133 M | 768 | 12 | 6 |
| l | 461 M | 1024 | 24 | 8 |
| xl | 1.29 B | 1536 | 30 | 12 |
| 2b | 2.14 B | 2048 | 28 | 16 |
| 5b | 5.14 B | 3072 | 30 | 24 |
| 14b | 14.23 B | 5120 | 30 | 40 |

Counts are those of `flops.count_parameters` with a text encoder 384 wide. A token passes through its own
modality's feed-forward only, so it meets about half of them. Feed-forwards of video and audio are three times
the width, that of text, which is always clean, once. Heads are 64 wide up to `m` and 128 above, the size GPU
kernels are best at.
"""

from __future__ import annotations

import torch

from sora2.model.config import ModelError, TransformerConfig
from sora2.model.transformer import Transformer

PRESETS: dict[str, TransformerConfig] = {
    "xs": TransformerConfig(width=128, depth=8, heads=2),
    "s": TransformerConfig(),  # the demonstration's: minutes on two cores
    "m": TransformerConfig(width=384, depth=12, heads=6),
    "b": TransformerConfig(width=768, depth=12, heads=6, level_width=256),
    "l": TransformerConfig(width=1024, depth=24, heads=8, level_width=256),
    "xl": TransformerConfig(width=1536, depth=30, heads=12, level_width=256),
    "2b": TransformerConfig(width=2048, depth=28, heads=16, level_width=512),
    "5b": TransformerConfig(width=3072, depth=30, heads=24, level_width=512),
    "14b": TransformerConfig(width=5120, depth=30, heads=40, level_width=512),
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
            raise ModelError(f"model preset {config!r} is unknown; use one of {', '.join(PRESETS)}")
        config = PRESETS[config]
    with torch.device(device):
        return Transformer(config, generator)
