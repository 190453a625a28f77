"""Train and measure the cells of a study. What is done is not done again, so a study goes on where it was stopped."""

from __future__ import annotations

import csv
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from sora2.atomic import save_json
from sora2.cli import run_apart
from sora2.config import ConfigError
from sora2.generate.checkpoint import read_checkpoint
from sora2.studies.config import CellConfig, StudyConfig
from sora2.studies.machine import describe_machine
from sora2.studies.path_loss import USUAL, path_losses
from sora2.studies.reconstruction import reconstruction
from sora2.train.compose import CONFIG_DIR, compose_config

ROOT = CONFIG_DIR.parent


class StudyRunner:
    """The runs of one study under `folder`, and its record at `record`.

    Several processes may work on a study at once: each run and each cell is made by one of them, the others make other
    cells meanwhile and wait only for a run that they need, and the record is made from all.
    """

    def __init__(
        self, name: str, study: StudyConfig, out: Path, record: Path, extra: tuple[str, ...] = ()
    ) -> None:
        """`extra`: overrides of `sora2 train` for every run, beside the study's own."""
        self.name, self.study, self.extra = name, study, extra
        self.folder, self.record = out / name, record
        self.is_codec = study.is_codec

    def run(self, cells: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Train what the cells need and measure them, seed by seed, so that an early stop leaves whole comparisons.

        Raises:
            ConfigError: a cell that the study does not have.
        """
        for name in cells:
            if name not in self.study.cells:
                raise ConfigError(f"--cells {name}: study {self.name} has {', '.join(self.study.cells)}")
        if self.study.evaluations:
            self._real()
        elsewhere = [
            (name, seed) for seed in seeds for name in cells if not self._cell(name, seed, wait=False)
        ]
        for name, seed in elsewhere:  # that others were making: they may have stopped
            self._cell(name, seed, wait=True)

    def _cell(self, name: str, seed: int, wait: bool) -> bool:
        """Whether the cell is done: False where another process is making it, and it is not waited for."""
        path = self.folder / "cells" / f"{name}-seed{seed}.json"
        try:
            with self._in_turn(path).acquire(timeout=-1 if wait else 0):
                self._measure_cell(name, seed, path)
        except Timeout:
            return False
        self.write_record()
        return True

    def _in_turn(self, path: Path) -> FileLock:
        """Held while `path` is made; the system lets go of it however its process ends."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_name(f"{path.name}.lock"))

    def _measure_cell(self, name: str, seed: int, path: Path) -> None:
        cell = self.study.cells[name]
        asked = self._fingerprint(name, seed)
        if path.is_file() and json.loads(path.read_text())["asked"] == asked:
            return
        run = cell.run or name
        entry: dict[str, Any] = {"cell": name, "says": cell.says or name, "seed": seed, "asked": asked}
        exports = {r: self._export(r, seed) for r in dict.fromkeys(filter(None, (run, cell.sound)))}
        entry["training"] = {r: self._training(r, seed) for r in exports if r in self.study.runs}
        if cell.sound is None:
            entry["values"] = self._values(exports[run], self.study.tasks, cell)
        elif cell.sound_task in USUAL:  # of two models only the second sees both modalities
            entry["values"] = self._values(exports[cell.sound], (cell.sound_task,), cell)
        else:
            entry["values"] = {}
        entry["scores"] = {
            kind: self._evaluate(name, seed, kind, exports[run], cell, exports.get(cell.sound or ""))
            for kind in self.study.evaluations
        }
        save_json(entry, path)
        print(f"{self.name}: {name}, seed {seed}: done", flush=True)

    def _fingerprint(self, name: str, seed: int) -> str:
        """Of everything that decides a cell's numbers, so that a changed study is measured again."""
        cell, study = self.study.cells[name], self.study
        runs = [r for r in (cell.run or name, cell.sound) if r is not None]
        asked = {
            "runs": [
                study.train_overrides(r, seed)
                if r in study.runs
                else read_checkpoint(self._export(r, seed)).sha256()
                for r in runs
            ],
            "extra": self.extra,
            "cell": [cell.sound_task, cell.flags],
            "evaluations": [sorted(study.evaluations.items()), study.metrics],
            "shards": [study.held_out(cell), study.clips],
        }
        if study.tasks != USUAL:
            asked["tasks"] = study.tasks
        return _digest(asked)

    def _export(self, run: str, seed: int) -> Path:
        """The folder of a run's exported weights; trained now unless it is there."""
        if run in self.study.checkpoints:
            return ROOT / self.study.checkpoints[run]
        place = self.folder / f"{run}-seed{seed}"
        with self._in_turn(place):
            return self._trained(place, [*self.study.train_overrides(run, seed), *self.extra])

    def _trained(self, place: Path, asked: list[str]) -> Path:
        export, note = place / "export", place / "asked.json"
        done = (export / "model.safetensors").is_file()
        if note.is_file() and json.loads(note.read_text()) != asked:
            raise ConfigError(
                f"{place} holds a run with other settings than study {self.name} now asks for; delete the folder, or "
                "give another --out"
            )
        if not done:
            save_json(asked, note)
            run_apart("train", *asked, f"name={place.name}", f"out={place.parent}", folder=ROOT)
        return export

    def _training(self, run: str, seed: int) -> dict[str, float]:
        """What a run cost: samples, FLOPs, seconds (at the speed that its log has)."""
        rows = [
            row
            for log in sorted((self.folder / f"{run}-seed{seed}" / "logs").glob("*/metrics.csv"))
            for row in csv.DictReader(log.open())
            if row.get("speed/samples_per_second")
        ]
        speeds = [float(row["speed/samples_per_second"]) for row in rows]
        config = compose_config([*self.study.train_overrides(run, seed), *self.extra])
        samples = config.trainer.max_samples
        cost: dict[str, float] = {"samples": float(samples)}
        if speeds:
            cost["seconds"] = samples * sum(1 / s for s in speeds) / len(speeds)
        if not self.is_codec:
            from sora2.train.step import flops_per_sample

            cost["flops"] = samples * flops_per_sample(config)
        return cost

    def _values(self, export: Path, tasks: tuple[str, ...], cell: CellConfig) -> dict[str, float]:
        """What is measured without generating, on each of the held-out sets: "SHARDS/VALUE"."""
        study, found = self.study, {}
        config = compose_config([f"experiment={study.experiment}", *study.overrides])
        for name, folder in study.held_out(cell).items():
            shards = ROOT / folder
            values = (
                reconstruction(export, shards, study.clips)
                if self.is_codec
                else path_losses(export, shards, study.clips, config.task["levels"]["shift"], tasks=tasks)
            )
            found.update({f"{name}/{key}": value for key, value in values.items()})
        return found

    def _real(self) -> None:
        """The same metrics on real clips: what a perfect model would have."""
        for kind, flags in self.study.evaluations.items():
            path = self._real_record(kind)
            clips = _without(flags, "--task", "--seeds", "--wording")
            with self._in_turn(path):
                if not path.is_file():
                    save_json(self._measure(["--real", *clips], path.with_suffix(""), "real"), path)

    def _real_record(self, kind: str) -> Path:
        """Named after what is asked, so that a changed study measures real clips again."""
        asked = [self.study.evaluations[kind], self.study.metrics]
        return self.folder / "real" / f"{kind}-{_digest(asked)}.json"

    def _evaluate(
        self, name: str, seed: int, kind: str, export: Path, cell: CellConfig, sound: Path | None
    ) -> dict[str, Any]:
        flags = ["--checkpoint", str(export), "--seed", str(100 * seed)]
        flags += [*self.study.evaluations[kind], *cell.flags]
        if sound is not None:
            flags += ["--sound-checkpoint", str(sound), "--sound-task", cell.sound_task]
        return self._measure(flags, self.folder / "evaluations" / f"{name}-seed{seed}-{kind}", "generated")

    def _measure(self, flags: list[str], out: Path, row: str) -> dict[str, Any]:
        """Metric -> estimate, interval over captions, clips measured of clips asked."""
        chosen = ["--metrics", ",".join(self.study.metrics)] if self.study.metrics else []
        shown = ("--no-controls", "--quiet", "--show", "0")
        run_apart("evaluate", *flags, *chosen, *shown, "--out", out, folder=ROOT)
        summary = json.loads((out / "metrics.json").read_text())["rows"][row]["summary"]
        return {
            metric: {**s["value"], "measured": s["measured"], "clips": s["clips"]}
            for metric, s in summary.items()
        }

    def write_record(self) -> None:
        """Everything measured so far under the study as it is, in its order."""
        order = list(self.study.cells)
        entries = [json.loads(path.read_text()) for path in (self.folder / "cells").glob("*.json")]
        entries = [e for e in entries if e["cell"] in order]
        entries.sort(key=lambda e: (order.index(e["cell"]), e["seed"]))
        asked_now = []
        for e in entries:
            if e["asked"] == self._fingerprint(e["cell"], e["seed"]):
                asked_now.append(e)
            else:
                cell = f"{e['cell']}, seed {e['seed']}"
                print(f"{self.name}: {cell}: left out, the study asked otherwise then", flush=True)
        save_json(
            {
                "study": self.name,
                "question": self.study.question,
                "base": self.study.base,
                "command": " ".join(["sora2 study", self.name, *self.extra]),
                "machine": {
                    "processor": describe_machine(),
                    "torch": torch.__version__,
                    "sora2": version("sora2"),
                },
                "real": {
                    kind: json.loads(path.read_text())
                    for kind in self.study.evaluations
                    if (path := self._real_record(kind)).is_file()
                },
                "cells": asked_now,
            },
            self.record,
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _without(flags: tuple[str, ...], *names: str) -> list[str]:
    """Flags without some that take one value each."""
    kept, skip = [], False
    for flag in flags:
        if not skip and flag not in names:
            kept.append(flag)
        skip = not skip and flag in names
    return kept
