"""The attention and token-wise kernels on a GPU: first that they are right, then how fast they are beside their peers.

    python benchmarks/kernels_gpu.py --gates                  every gate; exit code 1 if one fails
    python benchmarks/kernels_gpu.py --bench [--shapes ...]   attention on every shape, after the first four gates
                                                              (--append: in several runs, into one file)
    python benchmarks/kernels_gpu.py --tokens                 QKV split + norm + rotation, modulation
    python benchmarks/kernels_gpu.py --tune                   block sizes, warps and stages of the attention kernels
    TRITON_INTERPRET=1 python benchmarks/kernels_gpu.py --dry-run    every part on the CPU, tiny, to see that it works

Peers: cuDNN and flash SDPA and xFormers on the dense problem (they have no tile lists), FlexAttention with a compiled
block mask on the same pattern; for packs, cuDNN and flash once per sample. Contenders run in turn within every round,
on inputs that rotate; times are medians of CUDA events. Milliseconds come first; TFLOP/s follow from them twice:
useful (pairs of tokens that the pattern allows) and executed (what the blocks compute; our split backward counts 7
products, not 5), each as a share of the bf16 matrix product measured in the same run. Preparation of lists and masks is
timed apart and added in the columns "all-in", as if every layer did it anew. Results go to
benchmarks/results/kernels_gpu.json after each shape.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gpu_attention import bench_shape, show
from gpu_machine import Machine
from gpu_plot import plot
from gpu_shapes import SHAPES, TINY
from gpu_tokens import bench_tokens
from gpu_tune import tune

from sora2.kernels.triton.gates import GATES, Bench, run_gates
from sora2.kernels.triton.interpreter import interpreted, repair
from sora2.kernels.triton.operator_gates import OPERATOR_GATES
from sora2.kernels.triton.token_gates import TOKEN_GATES

RESULTS = Path(__file__).parent / "results" / "kernels_gpu.json"


def run_all_gates(machine: Machine, first: int | None = None) -> list[dict[str, Any]]:
    bench = Bench.interpreter() if machine.dry else Bench.card()
    gates = GATES + OPERATOR_GATES + TOKEN_GATES
    found = []
    for report in run_gates(bench, gates if first is None else gates[:first]):
        print(
            f"{'passed' if report.passed else 'FAILED'}  {report.gate} ({report.seconds:.1f} s)", flush=True
        )
        if not report.passed:
            print(report.message)
        found.append(vars(report))
    return found


def earlier(path: Path, here: dict[str, Any]) -> dict[str, Any]:
    """What the file holds, if it is of the same card and the same versions: others do not mix with these times."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    for key in ("card", "torch", "triton", "commit"):
        if found.get(key) != here[key]:
            raise SystemExit(
                f"{path} is of {key} {found.get(key)}, this run of {here[key]}: leave --append away"
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for part in ("gates", "bench", "tokens", "tune", "dry-run"):
        parser.add_argument(f"--{part}", action="store_true")
    names = [s.name for s in SHAPES]
    parser.add_argument(
        "--shapes", nargs="+", choices=names, default=names, help="shapes of --bench and --tune"
    )
    parser.add_argument(
        "--append", action="store_true", help="keep the other shapes and parts of the JSON file"
    )
    parser.add_argument("--out", type=Path, default=None, help=f"JSON file, by default {RESULTS}")
    args = parser.parse_args()
    if interpreted():
        repair()
    machine = Machine(args.dry_run)
    every = args.dry_run or not (args.gates or args.bench or args.tokens or args.tune)
    shapes = TINY if args.dry_run else tuple(s for s in SHAPES if s.name in args.shapes)
    out = args.out or (Path("/dev/null") if args.dry_run else RESULTS)
    here = machine.describe()
    results: dict[str, Any] = earlier(out, here) if args.append else {}
    results |= here
    print(json.dumps(results, indent=1), flush=True)

    def save() -> None:
        if out != Path("/dev/null"):
            out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")

    if args.gates or args.bench or every:
        results["gates"] = run_all_gates(machine, None if args.gates or (every and not args.dry_run) else 4)
        save()
        if not all(g["passed"] for g in results["gates"]):
            print("A gate failed: no speed is measured.")
            return 1
    results["ceilings"] = machine.ceilings()
    print(json.dumps(results["ceilings"]), flush=True)
    if args.bench or every:
        rows = {row["shape"]: row for row in results.get("attention", [])}
        for shape in shapes:
            rows[shape.name] = bench_shape(machine, shape, results["ceilings"]["product_tflops"])
            results["attention"] = list(rows.values())
            show(rows[shape.name])
            save()
    if args.tokens or every:
        results["tokens"] = bench_tokens(machine, results["ceilings"]["copy_gbytes"])
        for row in results["tokens"]:
            print(json.dumps(row), flush=True)
    if args.tune or args.dry_run:
        tuned = TINY[:1] if args.dry_run else tuple(s for s in shapes if s.name in ("5 s", "5 s, D = 64"))
        results["tuning"] = tune(machine, tuned)
    save()
    if out == RESULTS and "attention" in results:
        print(f"plot: {plot(results, out.with_suffix('.png'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
