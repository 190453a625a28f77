"""All latents of a run in one stack on the device that trains: a batch is one gather, not a walk over samples.

A card that takes thousands of clips a second would wait for threads that stack them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sora2.data.collate import collate_latents
from sora2.data.datasets import LatentDataset
from sora2.data.errors import DataError
from sora2.data.parallel import map_ahead
from sora2.data.raw import STREAMS
from sora2.host import send
from sora2.types import Batch, Modality, clean_modality

#: Samples that are stacked at once when the datasets are read, and threads that read.
CHUNK, READERS = 512, 8


@dataclass(frozen=True)
class _Stack:
    """One modality of all samples: tokens (n, N, C) as stored, bfloat16, on the device; the rest on the host."""

    tokens: Tensor
    positions: Tensor  # (N, 3), or (n, N, 3) where each sample has its own
    mask: Tensor  # (n, N)


class ResidentLatents:
    """`batch(rows)` is `collate_latents` of those samples of all datasets, row i of dataset d being `first[d] + i`.

    Raises:
        DataError: the clips are of several sizes, or some lack a stream.
    """

    def __init__(
        self,
        datasets: Sequence[LatentDataset],
        clips: Sequence[int],
        device: torch.device,
        *,
        patch_size: int,
        max_text_tokens: int,
    ) -> None:
        self.device = device
        buckets = {b for d in datasets for b in d.index.buckets}
        if len(buckets) > 1 or not all(b.has_video and b.has_audio for b in buckets):
            raise DataError(
                f"data.on_device=true needs clips of one size with pictures and sound, got "
                f"{'; '.join(sorted(map(str, buckets)))}: set data.on_device=false"
            )
        if not max_text_tokens:
            raise DataError(
                "data.on_device=true needs a fixed width of the text: set data.max_text_tokens, or data.on_device=false"
            )
        self.first = np.concatenate([[0], np.cumsum(clips)[:-1]])
        self.keys: list[str] = []
        self.captions: list[str] = []
        self._stacks: dict[str, _Stack] = {}
        self._shapes: dict[str, Any] = {}
        geometry = datasets[0].index.geometry
        parts = [
            (dataset, range(start, min(start + CHUNK, count)))
            for dataset, count in zip(datasets, clips, strict=True)
            for start in range(0, count, CHUNK)
        ]

        def read(part: tuple[LatentDataset, range]) -> Batch:
            samples = [part[0][i] for i in part[1]]
            return collate_latents(samples, geometry, patch_size=patch_size, max_text_tokens=max_text_tokens)

        at, total = 0, int(sum(clips))
        for batch in map_ahead(read, parts, READERS):
            self._take(batch, at, total)
            at += batch.size
        text = self._stacks.get("text")
        if text is not None and not text.positions.any():  # nobody says anything
            self._stacks["text"] = replace(text, positions=text.positions[0])

    def _take(self, part: Batch, at: int, total: int) -> None:
        """Put a collated part behind those before it."""
        for name, m in part.modalities().items():
            if name not in self._stacks:
                n, c = m.latent.shape[1:]
                own = (total,) if name == "text" else ()  # words of each clip are said at their own times
                self._stacks[name] = _Stack(
                    torch.zeros(total, n, c, dtype=torch.bfloat16, device=self.device),
                    m.positions[0].expand(*own, n, 3).clone(),
                    torch.zeros(total, n, dtype=torch.bool),
                )
            stack = self._stacks[name]
            if stack.positions.ndim == 3:
                stack.positions[at : at + part.size] = m.positions
            stack.tokens[at : at + part.size] = m.latent.to(self.device, torch.bfloat16)
            stack.mask[at : at + part.size] = m.mask
        self._shapes = {"video_shape": part.video_shape, "audio_shape": part.audio_shape}
        self.keys += part.keys
        self.captions += part.captions

    def batch(
        self,
        rows: Sequence[tuple[int, int]],
        dropped: Mapping[str, np.ndarray],
        references: Sequence[tuple[int, int] | None] = (),
    ) -> Batch:
        """Clean tokens, float32 on the device, of (dataset, sample) each. `references`: as in `collate_latents`."""
        numbers = [int(self.first[d]) + i for d, i in rows]
        index = torch.tensor(numbers)
        (there,) = send([index], self.device)
        found = {}
        for name, stack in self._stacks.items():
            latent = stack.tokens.index_select(0, there).float()  # (B, N, C)
            mask = stack.mask.index_select(0, index)  # (B, N)
            if name in dropped:
                keep = ~torch.from_numpy(dropped[name])
                mask = mask & keep[:, None]
                latent = latent * send([keep], self.device)[0][:, None, None]
            own = stack.positions.ndim == 3
            positions = stack.positions.index_select(0, index) if own else stack.positions
            found[name] = clean_modality(latent, positions, mask)
        found |= self._references(references, dropped)
        return Batch(
            **found,
            **self._shapes,
            keys=tuple(self.keys[i] for i in numbers),
            captions=tuple(self.captions[i] for i in numbers),
        )

    def _references(
        self, rows: Sequence[tuple[int, int] | None], dropped: Mapping[str, np.ndarray]
    ) -> dict[str, Modality]:
        """The first picture and the sound of the samples that others lie beside; nothing where there are none."""
        present = torch.tensor([row is not None for row in rows])
        if not present.any():
            return {}
        index = torch.tensor([0 if row is None else int(self.first[row[0]]) + row[1] for row in rows])
        (there,) = send([index], self.device)
        found = {}
        for name in STREAMS:
            stack = self._stacks[name]
            count = self._shapes["video_shape"].still.tokens if name == "video" else stack.tokens.shape[1]
            keep = present & ~torch.from_numpy(
                dropped.get(f"reference_{name}", np.zeros(len(rows), dtype=bool))
            )
            latent = stack.tokens[:, :count].index_select(0, there).float()  # (B, N, C)
            latent = latent * send([keep], self.device)[0][:, None, None]
            mask = stack.mask[:, :count].index_select(0, index) & keep[:, None]  # (B, N)
            found[f"reference_{name}"] = clean_modality(latent, stack.positions[:count], mask)
        return found
