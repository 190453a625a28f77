"""The Lightning side of the stateful loader: one endless stream whose place is `samples_seen`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor

from sora2.data.loader import LoaderConfig, StatefulLoader, build_loader


class _Stream:
    """Hides the loader's own state from Lightning: the place in the data is the module's count of trained samples,
    not the loader's count of fetched ones, which runs ahead by the prefetch."""

    def __init__(self, loader: StatefulLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


class TrainingData(L.LightningDataModule):
    """Builds the loader of this rank when training starts, at the place where training stands."""

    def __init__(
        self, config: LoaderConfig, fingerprints: dict[str, str] | None, sequence_devices: int = 1
    ) -> None:
        super().__init__()
        self.config = config
        self.fingerprints = fingerprints
        self.sequence_devices = sequence_devices  # consecutive processes that are given the same batches
        self.loader: StatefulLoader | None = None
        self._saved_state: dict[str, Any] | None = None

    @property
    def wait_seconds(self) -> float:
        """Time the training loop has waited for data since the start."""
        return 0.0 if self.loader is None else self.loader.wait_seconds

    def train_dataloader(self) -> _Stream:
        trainer = self.trainer
        assert trainer is not None
        self.loader = build_loader(
            self.config,
            self.fingerprints,
            trainer.global_rank // self.sequence_devices,
            trainer.world_size // self.sequence_devices,
            trainer.strategy.root_device,
        )
        if self._saved_state is not None:
            self.loader.load_state_dict(self._saved_state)
        return _Stream(self.loader)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if isinstance(batch, dict):
            return {
                k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()
            }
        return batch.to(device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        assert self.loader is not None
        assert self.trainer is not None
        return {**self.loader.state_dict(), "samples_seen": self.trainer.lightning_module.samples_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved_state = state

    def teardown(self, stage: str) -> None:
        if self.loader is not None:
            self.loader.close()
            self.loader = None
