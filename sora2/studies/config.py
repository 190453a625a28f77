"""What a study asks, and the runs that answer it: `configs/study/NAME.yaml`, checked as a whole before training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from sora2.config import ConfigError, from_mapping
from sora2.studies.path_loss import TASKS, USUAL
from sora2.train.compose import CONFIG_DIR, compose_config

STUDY_DIR = CONFIG_DIR / "study"


@dataclass(frozen=True)
class CellConfig:
    """One setting that is compared: the run (of `runs`) that it evaluates, and how."""

    run: str | None = None  # null: of the cell's own name
    sound: str | None = None  # the run that makes the sound instead (`sora2 evaluate --sound-checkpoint`)
    sound_task: Literal["video_to_audio", "audio_only"] = "video_to_audio"
    flags: tuple[str, ...] = ()  # more flags of `sora2 evaluate`, such as [--steps, "8"]
    shards: dict[str, str] = field(default_factory=dict)  # of the study's, where its runs need other latents
    says: str = ""  # the setting in words; "" = the cell's name


@dataclass(frozen=True)
class StudyConfig:
    """A question, and cells that differ in one thing each.

    Every run is `sora2 train experiment=EXPERIMENT` with `overrides` and its own, once per seed. A study of a
    transformer measures the loss along the sampler's path on all `shards` and what `evaluations` say; one of a video
    codec the reconstruction of their clips.
    """

    question: str
    base: str  # the cell that all others are compared with
    shards: dict[str, str]  # name -> folder of held-out clips: latents, or raw ones for a codec
    experiment: str = "study"
    overrides: tuple[str, ...] = ()  # of `sora2 train`, for every run
    seeds: tuple[int, ...] = (0, 1, 2)
    runs: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name -> overrides of `sora2 train`
    checkpoints: dict[str, str] = field(default_factory=dict)  # name -> folder: not trained here
    cells: dict[str, CellConfig] = field(default_factory=dict)  # empty: every run is a cell
    evaluations: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name -> flags of `sora2 evaluate`
    metrics: tuple[str, ...] = ()  # of the evaluations; empty: all
    clips: int = 256  # of each of `shards`
    tasks: tuple[str, ...] = (
        USUAL  # whose losses are measured on latents, and what one modality tells of the other
    )

    def __post_init__(self) -> None:
        known = {**self.runs, **self.checkpoints}
        if not self.cells:
            object.__setattr__(self, "cells", {name: CellConfig() for name in known})
        for name, cell in self.cells.items():
            for shards in cell.shards:
                if shards not in self.shards:
                    raise ConfigError(
                        f"cells.{name}.shards names {shards!r}, which is not one of the study's shards: "
                        f"{', '.join(self.shards)}"
                    )
            for run in filter(None, (cell.run or name, cell.sound)):
                if run not in known:
                    raise ConfigError(
                        f"cells.{name} evaluates {run!r}, which is neither in runs nor in checkpoints: "
                        f"{', '.join(known)}"
                    )
        if self.base not in self.cells:
            raise ConfigError(f"base={self.base!r} is not one of the cells: {', '.join(self.cells)}")
        if not self.shards and not self.evaluations:
            raise ConfigError("shards and evaluations are empty: name at least one, or nothing is measured")
        unknown = sorted(set(self.tasks) - set(TASKS))
        if unknown or not self.tasks:
            raise ConfigError(f"tasks={list(self.tasks)} must be some of {', '.join(TASKS)}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds={list(self.seeds)} must be different, and at least one")
        if self.clips < 1:
            raise ConfigError(f"clips={self.clips} must be at least 1")

    def train_overrides(self, run: str, seed: int) -> list[str]:
        """Of `sora2 train`, without the name and place of the run."""
        return [f"experiment={self.experiment}", *self.overrides, *self.runs[run], f"seed={seed}"]

    def held_out(self, cell: CellConfig) -> dict[str, str]:
        """The shards that a cell is measured on."""
        return {**self.shards, **cell.shards}

    @property
    def is_codec(self) -> bool:
        """Whether the runs are codecs."""
        return compose_config([f"experiment={self.experiment}"]).recipe == "video_codec"


def read_study(name: str, folder: Path = STUDY_DIR) -> StudyConfig:
    """The study of that name. Every run's config is composed, so that a mistake shows before hours of training.

    Raises:
        ConfigError: no such study, a key that is not one, an override that does not exist.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise ConfigError(f"there is no study {name!r} in {folder}; there are: {known}")
    study = from_mapping(StudyConfig, yaml.safe_load(path.read_text()), f"study/{name}.yaml")
    for run in study.runs:
        try:
            compose_config(study.train_overrides(run, study.seeds[0]))
        except ConfigError as error:
            raise ConfigError(f"study/{name}.yaml, runs.{run}: {error}") from error
    return study
