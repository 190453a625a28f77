"""How weights are stored for inference: whole, in 16 bits, or matrices in 8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from sora2.atomic import save_safetensors, save_text

#: Ends the name of the scales beside a tensor of 8-bit integers.
PEAKS = ".peaks"


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, ...) -> 8-bit integers of that shape and (rows,) float16 peaks: a weight is `integer * peak / 127`.

    One scale for each row of outputs; on the shipped codecs 0.1 dB of a picture (`sora2 evaluate-codec`), on a
    transformer 0.2 % of its loss. Quantizing what was put back by `dequantize` gives the same integers and peaks.
    """
    rows = weight.float().flatten(1)
    peaks = rows.abs().amax(1).to(torch.float16)
    steps = rows * 127 / peaks.float().where(peaks > 0, 1.0)[:, None]
    return steps.round().clamp(-127, 127).to(torch.int8).view_as(weight), peaks


def dequantize(integers: Tensor, peaks: Tensor) -> Tensor:
    """The float32 weights that `quantize` stored."""
    return (integers.float().flatten(1) * peaks.float()[:, None] / 127).view(integers.shape)


def pack(
    tensors: Mapping[str, Tensor], dtype: torch.dtype, shortest: Mapping[str, torch.dtype] | None = None
) -> dict[str, Tensor]:
    """Weights as they are stored; torch.int8 is for matrices and filters, the rest is in float16 then.

    Tensors whose name begins with a key of `shortest` are stored in no shorter dtype than that.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        least = [d for beginning, d in (shortest or {}).items() if name.startswith(beginning)]
        kind = max((dtype, *least), key=lambda d: d.itemsize)
        if kind == torch.int8 and tensor.ndim >= 2:
            packed[name], packed[name + PEAKS] = quantize(tensor)
        else:
            packed[name] = tensor.to(torch.float16 if kind == torch.int8 else kind)
    return packed


def is_quantized(names: Iterable[str]) -> bool:
    """Whether some of the tensors that `pack` stored under these names are in 8 bits."""
    return any(name.endswith(PEAKS) for name in names)


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` stored, in float32."""
    return {
        name: dequantize(t, packed[name + PEAKS]) if t.dtype == torch.int8 else t.float()
        for name, t in packed.items()
        if not name.endswith(PEAKS)
    }


def write_checkpoint(
    folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype, config: dict[str, Any]
) -> None:
    """Write what `sora2.generate.checkpoint` reads: a transformer's weights, stored as `dtype`, and their config."""
    save_safetensors(pack(weights, dtype), folder / "model.safetensors")
    save_text(yaml.safe_dump(config, sort_keys=False), folder / "config.yaml")
