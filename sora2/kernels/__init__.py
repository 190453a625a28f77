"""Attention patterns and their backends behind one dispatch point, and the fused element-wise operations."""

from sora2.kernels.activation import squared_relu
from sora2.kernels.bf16 import PRODUCTS, SlowProductsWarning, bf16_speedup, choose_dtype, has_fast_bf16
from sora2.kernels.call import AttentionError
from sora2.kernels.cpu.choice import CpuKernelError, PlainKernelsWarning, cpu_kernels, use_cpu_kernels
from sora2.kernels.dispatch import (
    BACKENDS,
    Choice,
    SlowAttentionWarning,
    attention,
    explain,
    record_choices,
)
from sora2.kernels.heads import merge_heads, split_heads
from sora2.kernels.levels import Levels, Modulation
from sora2.kernels.linear import linear
from sora2.kernels.mode import KernelChoice
from sora2.kernels.modulate import gated_add, gated_add_norm_modulate, norm_modulate
from sora2.kernels.pattern import PADDING, Lists, TilePattern, concatenate, dense_pattern
from sora2.kernels.rules import Part, Rule, Tiling, cached_tiling
from sora2.kernels.stream import Runs, Span
from sora2.kernels.tiles import Boxes, PatternError, Tiles
from sora2.kernels.topk import select_tiles

__all__ = [
    "BACKENDS",
    "PADDING",
    "PRODUCTS",
    "AttentionError",
    "Boxes",
    "Choice",
    "CpuKernelError",
    "KernelChoice",
    "Levels",
    "Lists",
    "Modulation",
    "Part",
    "PatternError",
    "PlainKernelsWarning",
    "Rule",
    "Runs",
    "SlowAttentionWarning",
    "SlowProductsWarning",
    "Span",
    "TilePattern",
    "Tiles",
    "Tiling",
    "attention",
    "bf16_speedup",
    "cached_tiling",
    "choose_dtype",
    "concatenate",
    "cpu_kernels",
    "dense_pattern",
    "explain",
    "gated_add",
    "gated_add_norm_modulate",
    "has_fast_bf16",
    "linear",
    "merge_heads",
    "norm_modulate",
    "record_choices",
    "select_tiles",
    "split_heads",
    "squared_relu",
    "use_cpu_kernels",
]
