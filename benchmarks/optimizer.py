"""A step of Muon with matrices of one shape orthogonalised together, against one by one.

    python benchmarks/optimizer.py [--preset s] [--threads 1 2] [--precision bfloat16]

Random gradients, the whole optimizer of a training run (AdamW's part included), in turns within one run: both see the
same load of the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from peers import Contender, interleave

import sora2.train.optimizer as optimizer
from sora2.kernels import has_fast_bf16
from sora2.model import PRESETS, build
from sora2.model.flops import count_parameters
from sora2.studies.machine import describe_machine
from sora2.train.config import OptimizerConfig
from sora2.train.step import DiffusionRecipe


def contender(name: str, preset: str, precision: str, stack: int) -> Contender:
    """The whole optimizer of a preset with random gradients, orthogonalising `stack` numbers at once."""
    model = build(preset, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=draw)
    stepped = optimizer.build_optimizer(
        dict(model.named_parameters()),
        OptimizerConfig(name="muon"),
        DiffusionRecipe.outer_layers,
        getattr(torch, precision),
    )

    def step() -> None:
        optimizer.STACK_NUMBERS = stack
        stepped.step()

    return Contender(name, count_parameters(model.config), step, [], [])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="s", choices=list(PRESETS))
    parser.add_argument("--precision", default="bfloat16" if has_fast_bf16() else "float32")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "optimizer.json")
    args = parser.parse_args()
    alone = contender("one by one", args.preset, args.precision, 1)
    together = contender("together", args.preset, args.precision, optimizer.STACK_NUMBERS)
    rows = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        alone.wall, together.wall = [], []
        interleave([alone], [together], args.rounds, f"{threads} threads")
        times = {c.name: 1000 * statistics.median(c.wall) for c in (alone, together)}
        ratio = times[alone.name] / times[together.name]
        rows.append({"threads": threads, "milliseconds": times, "ratio": ratio})
        print(f"{threads} threads: {', '.join(f'{n} {ms:.0f} ms' for n, ms in times.items())}: {ratio:.2f}x")
    report = {
        "preset": args.preset,
        "precision": args.precision,
        "machine": describe_machine(),
        "torch": torch.__version__,
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
