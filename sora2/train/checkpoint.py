"""Training checkpoints: atomic files, the newest one found, refused when they belong to another model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO

from sora2.atomic import write_atomic
from sora2.config import ConfigError, to_mapping
from sora2.errors import UserError
from sora2.train.config import TrainConfig

PATTERN = re.compile(r"^samples-(\d+)\.ckpt$")

#: Config sections that must not change between a checkpoint and the run that resumes from it. The data are checked
#: by the loader, which knows whether their order would stay the same.
FIXED = ("recipe", "seed", "model", "codec", "codecs", "task", "ema", "train_only")
FIXED_TRAINER = ("accumulate", "precision", "cpu_kernels")
#: Settings that came later, as runs of before had them.
EARLIER: dict[str, Any] = {"trainer": {"cpu_kernels": "plain", "sequence_devices": 1}, "train_only": []}


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoint files, written whole or not at all, and read without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_atomic(Path(path), lambda temporary: torch.save(checkpoint, temporary))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def load(path: Path, mapped: bool = False) -> dict[str, Any]:
    """The checkpoint's contents on the CPU. Errors: `UserError` when the file is damaged, or another program's.

    mapped: tensors are read from the file when they are used; for those who need a part, and for no longer than that.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise UserError(
            f"checkpoint {path} cannot be read ({error}). Delete it to resume from the one before it."
        ) from error
    if "sora2" not in saved:
        raise UserError(f"{path} is not a checkpoint of sora2 train")
    return saved


def path_for(folder: Path, samples_seen: int) -> Path:
    return folder / f"samples-{samples_seen:012d}.ckpt"


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most samples, or None when the run has none yet."""
    found = [p for p in folder.glob("*.ckpt") if PATTERN.match(p.name)] if folder.is_dir() else []
    return max(found, key=lambda p: p.name, default=None)


def prune(folder: Path, keep: int) -> None:
    found = sorted(p for p in folder.glob("*.ckpt") if PATTERN.match(p.name))
    for path in found[:-keep]:
        path.unlink()


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k2: v2 for k, v in value.items() for k2, v2 in _flatten(v, f"{prefix}{k}.").items()}
    return {prefix[:-1]: value}


def check_resumable(saved: dict[str, Any], config: TrainConfig, path: Path) -> list[str]:
    """Differences between the checkpoint's config and this run's that are allowed, as "key: old -> new".

    Raises `ConfigError` when a section that decides the weights or the order of data differs, naming the keys.
    """
    old, new = _flatten(EARLIER) | _flatten(saved), _flatten(to_mapping(config))
    differing = {
        k: (old.get(k), new.get(k)) for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)
    }
    fixed = {
        k: v
        for k, v in differing.items()
        if k.split(".")[0] in FIXED or k in {f"trainer.{name}" for name in FIXED_TRAINER}
    }
    if fixed:
        lines = "\n".join(f"  {k}: checkpoint {a!r}, this run {b!r}" for k, (a, b) in fixed.items())
        raise ConfigError(
            f"checkpoint {path} belongs to another run:\n{lines}\n"
            "Use the same values, another `name=`, or `init_from=FOLDER` with another name to start from its weights."
        )
    return [f"{k}: {a!r} -> {b!r}" for k, (a, b) in differing.items()]
