"""A step of Muon with matrices of one shape orthogonalised together, against one by one.

    python benchmarks/optimizer.py [--preset s] [--threads 1 2] [--precision bfloat16]

Random gradients, the whole optimizer of a training run (AdamW's part included), in turns within one run: both see the
same load of the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import sora2.train.optimizer as optimizer
from sora2.kernels import has_fast_bf16
from sora2.model import PRESETS, build
from sora2.studies.machine import describe_machine
from sora2.train.config import OptimizerConfig
from sora2.train.step import DiffusionRecipe


def milliseconds(
    optimizers: dict[str, torch.optim.Optimizer], stack: dict[str, int], rounds: int
) -> dict[str, float]:
    """Median time of a step of each, in turns."""
    found: dict[str, list[float]] = {name: [] for name in optimizers}
    for turn in range(rounds + 1):
        for name, one in optimizers.items():
            optimizer.STACK_NUMBERS = stack[name]
            begin = time.perf_counter()
            one.step()
            if turn:  # the first warms up
                found[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(times) for name, times in found.items()}


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
    stack = {"one by one": 1, "together": optimizer.STACK_NUMBERS}
    optimizers = {}
    for name in stack:
        model = build(args.preset, generator=torch.Generator().manual_seed(0))
        draw = torch.Generator().manual_seed(1)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=draw)
        named = dict(model.named_parameters())
        config = OptimizerConfig(name="muon")
        optimizers[name] = optimizer.build_optimizer(
            named, config, DiffusionRecipe.outer_layers, getattr(torch, args.precision)
        )
    rows = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        times = milliseconds(optimizers, stack, args.rounds)
        ratio = times["one by one"] / times["together"]
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
