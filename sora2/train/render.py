"""Samples during training: the averaged weights, the same prompts and seeds every time, as mp4 and contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

from sora2.generate import Pipeline, Request
from sora2.media import contact_sheet, write_clip
from sora2.train.callbacks import Every
from sora2.train.module import TrainingModule


class SampleRenderer(L.Callback):
    """Writes samples/N/*.mp4 and *.png when another multiple of `every_samples` has been trained.

    It goes the way a user goes: the weights are exported and read back by the sampling pipeline. Its random numbers
    are its own, so a run with renders equals one without.
    """

    def __init__(self, folder: Path, every_samples: int, prompts: tuple[str, ...]) -> None:
        self.folder = folder
        self.due = Every(every_samples)
        self.requests = [Request(prompt=p, seed=i) for i, p in enumerate(prompts)]

    def on_train_start(self, trainer: L.Trainer, module: TrainingModule) -> None:  # type: ignore[override]
        self.due.start(module.samples_seen)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if module.at_step_boundary and self.due.due(module.samples_seen):
            module.export(self.folder / "weights")
            if trainer.is_global_zero:
                self.render(module)

    def render(self, module: TrainingModule) -> Path:
        folder = self.folder / f"{module.samples_seen:012d}"
        dtype = module.config.trainer.product_dtype
        pipeline = Pipeline.from_checkpoint(self.folder / "weights", module.device, dtype)
        for i, clip in enumerate(pipeline.generate(self.requests)):
            path = write_clip(clip, folder / f"{i:02d}.mp4")
            contact_sheet(clip, path.with_suffix(".png"), title=self.requests[i].prompt)
        return folder
