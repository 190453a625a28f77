"""Attention behind one dispatch point, and the fused element-wise operations of the transformer."""

from sora2.kernels.dispatch import BACKENDS, AttentionError, Choice, attention, explain
from sora2.kernels.layout import GLOBAL_CHUNK, BlockCausal, Layout, Part, block_causal
from sora2.kernels.matmul import has_fast_bf16

__all__ = [
    "BACKENDS",
    "GLOBAL_CHUNK",
    "AttentionError",
    "BlockCausal",
    "Choice",
    "Layout",
    "Part",
    "attention",
    "block_causal",
    "explain",
    "has_fast_bf16",
]
