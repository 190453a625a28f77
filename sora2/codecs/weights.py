"""How the weights of a codec are stored: 8 or 16 bits for what it learned, every bit of its statistics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

_PEAKS = ".peaks"  # beside a tensor of 8-bit integers


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, ...) -> 8-bit integers of that shape and (rows,) float16 peaks: a weight is `integer * peak / 127`.

    One scale for each row of outputs; on the shipped codecs 0.1 dB of a picture (`sora2 evaluate-codec`). Quantizing
    what was put back by `dequantize` gives the same integers and peaks.
    """
    rows = weight.float().flatten(1)
    peaks = rows.abs().amax(1).to(torch.float16)
    steps = rows * 127 / peaks.float().where(peaks > 0, 1.0)[:, None]
    return steps.round().clamp(-127, 127).to(torch.int8).view_as(weight), peaks


def dequantize(integers: Tensor, peaks: Tensor) -> Tensor:
    """The float32 weights that `quantize` stored."""
    return (integers.float().flatten(1) * peaks.float()[:, None] / 127).view(integers.shape)


def pack(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of a codec as they are stored; its statistics keep every bit."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("latent_"):
            packed[name] = tensor
        elif dtype == torch.int8 and tensor.ndim >= 2:
            packed[name], packed[name + _PEAKS] = quantize(tensor)
        else:
            packed[name] = tensor.to(torch.float16 if dtype == torch.int8 else dtype)
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` stored, in float32."""
    return {
        name: dequantize(t, packed[name + _PEAKS]) if t.dtype == torch.int8 else t.float()
        for name, t in packed.items()
        if not name.endswith(_PEAKS)
    }


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a saved codec in float32, with what was added to codecs since they were first saved."""
    tensors = unpack(load_file(path))
    if "latent_mean" in tensors:
        tensors.setdefault("latent_spread", torch.ones_like(tensors["latent_mean"]))
    return tensors
