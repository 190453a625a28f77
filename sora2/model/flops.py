"""Parameters, forward FLOPs and memory of a transformer, as functions of its configuration.

A multiply-add counts as two. Matrix products only, as in `torch.utils.flop_counter`, which `forward_flops`
matches exactly; norms, rotations and activations are a few per cent more. A training step is three times the
forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sora2.kernels import TilePattern
from sora2.kernels.rules import VIDEO
from sora2.model.config import GROUP_OF, GROUPS, TransformerConfig
from sora2.model.modulation import BLOCK_PARAMETERS, OUTPUT_PARAMETERS
from sora2.model.packing import OUTPUTS, find_pattern, pack, plan_segments, tile
from sora2.model.timed_text import RANK
from sora2.types import MODALITIES, Batch


def count_parameters(config: TransformerConfig) -> int:
    """Number of learned values."""
    d, groups = config.width, 1 if config.shared_modulation else len(GROUPS)
    ffn = ("video",) if config.shared_ffn else GROUPS
    block = 4 * d * d + 2 * config.head_width + groups * BLOCK_PARAMETERS * d
    block += sum(2 * d * config.ffn_width(g) for g in ffn)
    ends = sum((config.token_width(g) + 1) * d for g in GROUPS) + len(MODALITIES) * d
    ends += sum((d + 1) * config.token_width(g) for g in OUTPUTS)
    level = (config.level_features + 1) * config.level_width + (config.level_width + 1) * config.level_width
    heads = groups * (config.level_width + 1) * (BLOCK_PARAMETERS + OUTPUT_PARAMETERS) * d
    timed_text = RANK * (config.text_width + config.timed_text * d) if config.timed_text else 0
    return config.depth * block + ends + level + heads + timed_text


def forward_flops(
    config: TransformerConfig,
    tokens: Mapping[str, int],
    batch: int = 1,
    *,
    levels: Mapping[str, int] | None = None,
    attention_pairs: Sequence[int] | None = None,
) -> int:
    """FLOPs of one forward pass of a batch.

    Args:
        tokens: tokens per sample of each present modality, padding included.
        levels: distinct noise levels per modality over the batch; one each when None.
        attention_pairs: per layer, query-key pairs that are computed per sample; all N^2 when None.
    """
    d = config.width
    n = sum(tokens.values())
    pairs = config.depth * n * n if attention_pairs is None else sum(attention_pairs)
    per_sample = config.depth * 2 * 4 * d * d * n + 4 * d * pairs
    distinct = 0
    for name, count in tokens.items():
        group = GROUP_OF[name]
        hidden = config.ffn_width("video" if config.shared_ffn else group)
        per_sample += config.depth * 2 * 2 * d * hidden * count
        per_sample += 2 * d * config.token_width(group) * count * (2 if name in OUTPUTS else 1)
        distinct += 1 if levels is None else levels[name]
    if config.timed_text and {"text", "audio"} <= set(tokens):
        text, sound = tokens["text"], tokens["audio"] * config.timed_text
        per_sample += 2 * RANK * (config.text_width * text + sound * text + sound * d)
    w = config.level_width
    embedding = 2 * (config.level_features * w + w * w + w * (BLOCK_PARAMETERS + OUTPUT_PARAMETERS) * d)
    return batch * per_sample + distinct * embedding


def batch_forward_flops(config: TransformerConfig, batch: Batch) -> int:
    """FLOPs of one forward pass of this batch: its token counts, distinct levels and attention patterns."""
    packing = pack(batch, config)
    tokens = {s.name: s.tokens for s in packing.segments}
    levels = {s.name: len(level) for s, level in zip(packing.segments, packing.levels, strict=True)}
    pairs = attention_pairs(config, batch)
    return forward_flops(config, tokens, packing.batch, levels=levels, attention_pairs=pairs)


def attention_pairs(config: TransformerConfig, batch: Batch) -> list[int] | None:
    """Per layer the query-key pairs in the tiles that its rule lists, padding included; None where all are dense."""
    if config.attention.is_dense:
        return None
    tiling, known = tile(batch, plan_segments(batch), config.attention)
    counts = {}
    for rule in set(config.attention.layers):
        pattern = find_pattern(rule, tiling, known, None, torch.device("cpu")) or tiling.pattern(rule)
        counts[rule] = listed_pairs(pattern, rule.top_k)
    return [counts[config.attention.rule(layer)] for layer in range(config.depth)]


def listed_pairs(pattern: TilePattern, top_k: int | None) -> int:
    """Pairs of tokens in the listed tiles; of video key tiles `top_k` of average length, where that is fewer."""
    if top_k is None:
        return pattern.pairs
    listed = pattern.matrix()[0]  # (n, m)
    length, is_video = pattern.keys.length, pattern.keys.kind == VIDEO
    video, other = ((listed & where).double() @ length.double() for where in (is_video, ~is_video))
    count = (listed & is_video).sum(1)
    keys = other + video * (top_k / count.clamp_min(1)).clamp_max(1)  # (n,)
    return round(float(keys @ pattern.queries.length.double()))


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def state(self) -> int:
        """All but the activations."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        return self.state + self.activations


def memory(
    config: TransformerConfig,
    tokens: Mapping[str, int],
    batch: int = 1,
    *,
    activation_bytes: int = 2,
    optimizer_values: float = 2,
    shards: int = 1,
    checkpointing: bool = False,
) -> Memory:
    """Training memory with float32 weights and gradients.

    `optimizer_values` per parameter: 2 for AdamW, 3 with an EMA beside it. Activations are what a block keeps
    for its backward under a fused attention (which keeps no scores), `activation_bytes` each; with `checkpointing`
    its input, and one block at a time the rest. Of weights spread over `shards` devices each holds a part, and two
    blocks of gathered ones: that which runs and the next.
    """
    parameters = count_parameters(config)
    at_once = (
        parameters // config.depth if checkpointing else parameters
    )  # whose copies for the products are kept
    per_token = 0.0
    for name, count in tokens.items():
        hidden = config.ffn_width("video" if config.shared_ffn else GROUP_OF[name])
        # norm (input, normed) twice, modulated twice, normed q and k, q k v, attention out, merged, two
        # updates
        per_token += count * (15 * config.width + 2 * hidden)
    kept = config.depth * per_token
    if checkpointing:
        kept = per_token + config.depth * config.width * sum(tokens.values())
    copy = at_once * activation_bytes if activation_bytes < 4 else 0  # weights cast for the matrix products
    gathered = 0 if shards == 1 else 2 * 4 * parameters // config.depth
    return Memory(
        weights=4 * parameters // shards + gathered + copy,
        gradients=4 * parameters // shards,
        optimizer=int(4 * optimizer_values * parameters / shards),
        activations=int(batch * kept * activation_bytes),
    )
