"""The joint audio-video transformer: tokens in, a velocity for every video and audio token out.

Single stream: one attention over [text | reference_video | reference_audio | video | audio]. A token is told
what it is (modality), where it is (seconds, y, x) and how noisy it is (level in [0, 1], 0 = a clean
condition). Nothing here knows about tasks, samplers or devices.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from sora2.kernels import Levels
from sora2.model.block import Block
from sora2.model.cache import KVCache
from sora2.model.config import GROUP_OF, GROUPS, ModelError, TransformerConfig
from sora2.model.init import initialize
from sora2.model.layers import Linear, ZeroLinear
from sora2.model.modulation import BLOCK_PARAMETERS, OUTPUT_PARAMETERS, Modulation
from sora2.model.packing import OUTPUTS, Packing, pack
from sora2.model.precondition import Precondition
from sora2.model.share import Sharing
from sora2.model.timed_text import TimedText
from sora2.types import MODALITIES, Batch, Modality


class Transformer(nn.Module):
    """Velocity v = eps - x0 of every video and audio token.

    Parameters are initialised on construction, except on the meta device: there, `to_empty` and then
    `sora2.model.init.initialize` give the same values as direct construction with the same generator.
    """

    def __init__(self, config: TransformerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.among: Sharing | None = None  # those who share each sequence of tokens, as the trainer sets it
        self.project_in = nn.ModuleDict({g: Linear(config.token_width(g), config.width) for g in GROUPS})
        self.kind = nn.ParameterDict({name: torch.empty(1, config.width) for name in MODALITIES})
        self.timed_text = TimedText(config) if config.timed_text else None
        self.modulation = Modulation(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.project_out = nn.ModuleDict(
            {g: ZeroLinear(config.width, config.token_width(g)) for g in OUTPUTS}
        )
        if not any(p.is_meta for p in self.parameters()):
            initialize(self, generator)

    def forward(
        self, batch: Batch, cache: KVCache | None = None, skip: Collection[int] = ()
    ) -> dict[str, Tensor]:
        """Velocities of the present outputs: "video" (B, Nv, Cv), "audio" (B, Na, Ca), float32.

        Padding (mask False) is never attended to and its velocity is zero. With a `cache` the batch holds the tokens
        of one chunk, in tile order (`streaming.Film`), and attends also to what the cache holds. Layers in `skip` are
        left out: a weaker network, for guidance to lead away from.

        Raises:
            ModelError: a latent whose width is not the configuration's, a layer to skip that does not exist.
        """
        if skip and not set(skip) <= set(range(len(self.blocks))):
            raise ModelError(
                f"layers {sorted(skip)} cannot be skipped: this model has 0 to {len(self.blocks) - 1}"
            )
        packing = pack(batch, self.config, cache, self.among)
        factors = {  # of segments that are preconditioned
            s.name: Precondition.of(
                packing.modalities[s.name].noise_level, spread, self.config.token_width(s.group)
            )
            for s in packing.segments
            if (spread := self.config.spread(s.group))
        }
        text = packing.text if cache is None else cache.text
        x = self._embed(packing, factors, text)  # (T, D)
        levels = self.modulation(packing, x)  # per segment (U, 8, D)
        for layer, block in enumerate(self.blocks):
            if layer not in skip:
                x = block(x, levels, packing)  # (T, D)
        return self._velocities(x, levels, packing, factors)

    def idle_parameters(self, present: Collection[str]) -> set[str]:
        """Names of the parameters that a batch of the modalities in `present` does not meet: they get no gradient."""
        outputs = set(OUTPUTS) & set(present)
        groups = {GROUP_OF[name] for name in present}
        met = {"kind": set(present), "project_out": outputs}  # keyed by modality; all else by the group
        idle = set()
        for name, _ in self.named_parameters():
            first, *rest = name.split(".")
            if first == "timed_text" and not {"text", "audio"} <= set(present):
                idle.add(name)
            keys = [part for part in rest if part in (MODALITIES if first in met else GROUPS)]
            if keys and keys[0] not in met.get(first, groups):
                idle.add(name)
        return idle

    def _embed(self, packing: Packing, factors: dict[str, Precondition], text: Modality | None) -> Tensor:
        """Project every modality to the common width and lay the tokens out modality-major: (T, D)."""
        parts = []
        for s in packing.segments:
            m = packing.modalities[s.name]
            latent = m.latent.masked_fill(~m.mask.unsqueeze(-1), 0.0)  # (B, N, C), padding silenced
            if s.name in factors:
                latent = latent * factors[s.name].into
            h = self.project_in[s.group](latent.flatten(0, 1).to(self.kind[s.name].dtype))  # (B * N, D)
            if s.name == "audio" and self.timed_text is not None and text is not None:
                h = h + self.timed_text(text, m.positions).flatten(0, 1)
            parts.append(h + self.kind[s.name].to(h.dtype))
        return torch.cat(parts)

    def _velocities(
        self, x: Tensor, levels: Levels, packing: Packing, factors: dict[str, Precondition]
    ) -> dict[str, Tensor]:
        last = levels.layer(None, BLOCK_PARAMETERS, OUTPUT_PARAMETERS)
        x = last.norm_modulate(x, 0, self.config.norm_eps)[1]  # (T, D)
        found = {}
        for s in packing.segments:
            if s.name in OUTPUTS:
                velocity = self.project_out[s.group](x[s.rows]).float()  # (B * N, C)
                velocity = velocity.view(s.batch, s.tokens, -1)  # (B, N, C)
                if s.name in factors:
                    f, noised = factors[s.name], packing.modalities[s.name].latent.float()  # (B, N, C)
                    velocity = torch.addcmul(f.skip * noised, f.out, velocity)
                mask = packing.modalities[s.name].mask.unsqueeze(-1)  # (B, N, 1)
                velocity = velocity.masked_fill(~mask, 0.0)
                if packing.share is not None:
                    velocity = packing.share.collect(s.name, velocity)  # (B, all N, C)
                if s.name in packing.raster:
                    velocity = velocity.index_select(1, packing.raster[s.name])  # (B, N, C)
                found[s.name] = velocity
        return found
