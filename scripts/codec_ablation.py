"""Ablation of the video codec: strides, channels, KL weight, adversarial term, one at a time around one cell.

    sora2 toybox --world whole --crf 0 --clips 8192 --validation-clips 512 --out data/shards/toybox_whole_exact
    python scripts/codec_ablation.py

Every cell is `sora2 train experiment=codec_ablation` with its overrides, for the same number of samples; then its
reconstruction of held-out clips is measured per scene and style. A cell that was trained is not trained again.
notebooks/02_codecs.ipynb shows the results. About 40 minutes on one free core that multiplies bfloat16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sora2.atomic import save_text
from sora2.codecs import load_codecs
from sora2.codecs.base import parameter_count
from sora2.codecs.robustness import measure_latent
from sora2.data.datasets import RawDataset
from sora2.errors import UserError
from sora2.metrics.statistics import clustered_bootstrap
from sora2.toybox.config import WHOLE_SCENES
from sora2.toybox.vocabulary import STYLES

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = "codec_ablation"


@dataclass(frozen=True)
class Cell:
    """One run of the grid. `axis` names what differs from the base, `value` the setting in words."""

    name: str
    axis: str
    value: str
    overrides: tuple[str, ...]


def _model(name: str, axis: str, value: str, **settings: object) -> Cell:
    return Cell(name, axis, value, tuple(f"codec.model.{k}={v}" for k, v in settings.items()))


CELLS = (
    Cell("base", "base", "4x8x8, 16 channels, KL 1e-4, no adversary", ()),
    Cell("seed_1", "seed", "another seed", ("seed=1",)),
    _model("stride_2x8x8", "strides", "2x8x8", temporal_stride=2),
    _model("stride_4x16x16", "strides", "4x16x16", spatial_stride=16),
    _model("channels_8", "channels", "8", latent_channels=8),
    _model("channels_32", "channels", "32", latent_channels=32),
    Cell("kl_1e-6", "KL weight", "1e-6", ("codec.loss.kl=1.0e-6",)),
    Cell("kl_1e-2", "KL weight", "1e-2", ("codec.loss.kl=1.0e-2",)),
    Cell(
        "adversarial",
        "adversary",
        "with",
        ("codec.loss.adversarial=0.01", "codec.loss.features=0.1", "codec.loss.adversarial_start=0.5"),
    ),
)


def main() -> int:
    args = _parser().parse_args()
    torch.set_num_threads(1)
    runs = args.out / EXPERIMENT
    chosen = [cell for cell in CELLS if cell.name in args.cells]
    if len(chosen) != len(args.cells):
        raise UserError(f"--cells: choose from {', '.join(cell.name for cell in CELLS)}")
    cells: list[dict[str, Any]] = []
    for cell in chosen:
        export = train(cell, runs, args.overrides)
        cells.append({"name": cell.name, "axis": cell.axis, "value": cell.value} | evaluate(export, args))
        report = {
            "command": f"python scripts/codec_ablation.py --clips {args.clips}",
            "validation": str(args.validation),
            "cells": cells,
        }
        save_text(json.dumps(report, indent=1) + "\n", args.results)
        print(f"{cell.name}: {cells[-1]['all']['psnr_db']['mean']:.2f} dB", flush=True)
    print(f"written: {args.results}")
    return 0


def train(cell: Cell, runs: Path, overrides: list[str]) -> Path:
    """The folder of the cell's exported codec, trained in a process of its own unless it is there."""
    export = runs / cell.name / "export"
    if not (export / "model.safetensors").is_file():
        command = [
            sys.executable,
            "-m",
            "sora2.cli",
            "train",
            f"experiment={EXPERIMENT}",
            f"name={cell.name}",
        ]
        subprocess.run([*command, f"out={runs}", *cell.overrides, *overrides], check=True, cwd=ROOT)
    return export


def evaluate(export: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Sizes of the codec and what it does to validation clips: over all, and per scene."""
    codecs = load_codecs(export, None, text=None)
    dataset = RawDataset(args.validation)
    rows: dict[str, dict[str, list[float]]] = {}
    started = time.process_time()
    for i in tqdm(range(min(args.clips, len(dataset))), unit="clip", desc=export.parent.name, leave=False):
        clip = dataset[i]
        for name, value in measure_latent(codecs.video, clip, seed=i).items():
            for group in ("all", clip.meta["truth"]["scene"], clip.meta["truth"]["style"]):
                rows.setdefault(group, {}).setdefault(name, []).append(value)
    dataset.close()
    info = json.loads((export / "config.json").read_text())["info"]
    config = codecs.video.config
    strides = config.temporal_stride * config.spatial_stride**2
    summary = {group: {n: _interval(v) for n, v in values.items()} for group, values in rows.items()}
    return {
        "samples": info["samples_seen"],
        "parameters": parameter_count(codecs.video),
        "pixels_per_latent_number": 3 * strides / config.latent_channels,
        "evaluation_cpu_seconds": round(time.process_time() - started, 1),
        "all": summary.pop("all"),
        "scenes": {name: summary[name] for name in WHOLE_SCENES if name in summary},
        "styles": {name: summary[name] for name in STYLES if name in summary},
    }


def _interval(values: list[float]) -> dict[str, float]:
    found = clustered_bootstrap(values, range(len(values)))
    return {"mean": found.estimate, "low": found.low, "high": found.high, "n": found.samples}


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--validation", type=Path, default=Path("data/shards/toybox_whole_exact/validation"))
    p.add_argument("--clips", type=int, default=180, help="validation clips; the scenes take turns")
    p.add_argument("--cells", nargs="+", default=[cell.name for cell in CELLS], metavar="NAME")
    p.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs")
    p.add_argument("--results", type=Path, default=ROOT / "notebooks" / "results" / "codec_ablation.json")
    p.add_argument(
        "overrides", nargs="*", help="of `sora2 train`, for every cell, such as trainer.max_samples=64"
    )
    return p


if __name__ == "__main__":
    raise SystemExit(main())
