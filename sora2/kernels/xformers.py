"""xFormers' memory-efficient attention: CUDA only, an optional dependency (`pip install 'sora2[cuda]'`)."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from sora2.kernels.call import Call, unaligned

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Largest head size of the kernels that have a backward pass.
MAX_HEAD = 256


def why_not(call: Call) -> str | None:
    if call.q.device.type != "cuda":
        return f"takes cuda; the tensors are on {call.q.device.type}"
    if importlib.util.find_spec("xformers") is None:
        return "is not installed: pip install 'sora2[cuda]'"
    if call.q.dtype not in DTYPES:
        return f"takes {', '.join(map(str, DTYPES))}; got {call.q.dtype}"
    if call.pattern is not None or call.key_mask is not None:
        return "takes neither a pattern nor a key_mask here"
    width = call.q.shape[-1]
    if width % 8 or width > MAX_HEAD:
        return f"takes head sizes that are multiples of 8 up to {MAX_HEAD}; got {width}"
    return unaligned(call)


def run(call: Call) -> tuple[Tensor, None]:
    from xformers.ops import memory_efficient_attention

    q, k, v = (x.transpose(1, 2) for x in (call.q, call.k, call.v))
    return memory_efficient_attention(q, k, v, scale=call.scale).transpose(1, 2), None
