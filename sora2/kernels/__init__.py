"""Attention behind one dispatch point, and the fused element-wise operations of the transformer."""

from sora2.kernels.activation import squared_relu
from sora2.kernels.dispatch import BACKENDS, AttentionError, Choice, attention, explain
from sora2.kernels.heads import Span, merge_heads, split_heads
from sora2.kernels.layout import GLOBAL_CHUNK, BlockCausal, Layout, Part, block_causal
from sora2.kernels.matmul import has_fast_bf16
from sora2.kernels.modulate import Runs, gated_add, gated_add_norm_modulate, norm_modulate

__all__ = [
    "BACKENDS",
    "GLOBAL_CHUNK",
    "AttentionError",
    "BlockCausal",
    "Choice",
    "Layout",
    "Part",
    "Runs",
    "Span",
    "attention",
    "block_causal",
    "explain",
    "gated_add",
    "gated_add_norm_modulate",
    "has_fast_bf16",
    "merge_heads",
    "norm_modulate",
    "split_heads",
    "squared_relu",
]
