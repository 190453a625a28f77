"""The attention and token-wise kernels on a GPU: first that they are right, then how fast they are beside their peers.

    python benchmarks/kernels_gpu.py --gates                  every gate; exit code 1 if one fails
    python benchmarks/kernels_gpu.py --bench [--shapes ...]   attention on every shape, after the first four gates
                                                              (--append: in several runs, into one file)
    python benchmarks/kernels_gpu.py --tokens                 QKV split + norm + rotation, modulation
    python benchmarks/kernels_gpu.py --tune                   block sizes, warps and stages of the attention kernels
    TRITON_INTERPRET=1 python benchmarks/kernels_gpu.py --dry-run    every part on the CPU, tiny, to see that it works

Where minutes on a card are few, their compilation goes first, in parallel processes, and the timed pass is bounded:

    python benchmarks/kernels_gpu.py --gates --warm --jobs 14 --out r.json
    python benchmarks/kernels_gpu.py --bench --tokens --append --seconds 150 --out r.json

Peers: cuDNN and flash SDPA and xFormers on the dense problem (they have no tile lists), FlexAttention with a compiled
block mask on the same pattern; for packs, cuDNN and flash once per sample. Contenders run in turn within every round,
on inputs that rotate; times are medians of CUDA events, without the host's work before a launch, which is told apart
("host"). Milliseconds come first; TFLOP/s follow from them twice:
useful (pairs of tokens that the pattern allows) and executed (what the blocks compute; our split backward counts 7
products, not 5), each as a share of the bf16 matrix product measured in the same run. Preparation of lists and masks is
timed apart and added in the columns "all-in", as if every layer did it anew. Results go to
benchmarks/results/kernels_gpu.json after each shape.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_attention
import gpu_tokens
import gpu_tune
from gpu_attention import bench_shape, show
from gpu_jobs import EVERY_GATE, Job, gate_jobs, run_jobs
from gpu_machine import BUDGET_SECONDS, Machine
from gpu_plot import plot
from gpu_shapes import SHAPES, TINY, Shape
from gpu_tokens import bench_tokens
from gpu_tune import KERNELS, OPTIONS, tune

from sora2.kernels.triton.gates import Bench, Report, run_gates
from sora2.kernels.triton.interpreter import interpreted, repair
from sora2.kernels.triton.token_gates import TOKEN_GATES

#: Seconds for one way of cutting one kernel.
TUNING_SECONDS = 0.15
RESULTS = Path(__file__).parent / "results" / "kernels_gpu.json"


def told(report: Report) -> Report:
    """Print a report as it comes."""
    print(f"{'passed' if report.passed else 'FAILED'}  {report.gate} ({report.seconds:.1f} s)", flush=True)
    if not report.passed:
        print(report.message, flush=True)
    return report


def chosen_gates(args: argparse.Namespace) -> list[Callable[[Bench], None]]:
    """Those of --only, by default all."""
    return [gate for gate in EVERY_GATE if gate.__name__ in args.only]


def run_in_turn(machine: Machine, gates: Sequence[Callable[[Bench], None]]) -> list[dict[str, Any]]:
    """In this process."""
    bench = Bench.interpreter() if machine.dry else Bench.card()
    return [vars(told(report)) for report in run_gates(bench, gates)]


def to_tune(shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    return tuple(s for s in shapes if s.name in ("5 s", "5 s, D = 64"))


def run_in_parallel(
    machine: Machine,
    args: argparse.Namespace,
    shapes: Sequence[Shape],
    results: dict[str, Any],
    save: Callable[[], None],
) -> None:
    """Gates and compilation, each in its own process; reports are saved as they come."""
    bench = Bench.interpreter() if machine.dry else Bench.card()
    gates = gate_jobs(bench, chosen_gates(args)) if args.gates else []
    warm = [Job(f"warm {shape.name}", gpu_attention.warm, (shape,)) for shape in shapes] if args.warm else []
    if args.warm:
        warm.append(Job("warm tokens", gpu_tokens.warm))
    if args.warm and args.tune:
        warm += [
            Job(f"warm {kernel} of {shape.name}, {i}", gpu_tune.warm, (shape, kernel, OPTIONS[i : i + 8]))
            for shape in to_tune(shapes)
            for kernel in KERNELS
            for i in range(0, len(OPTIONS), 8)
        ]
    names = {job.name for job in gates}
    results |= {"warm": []} | ({"gates": []} if args.gates else {})
    for report in run_jobs(gates + warm, args.jobs, args.job_seconds, args.start):
        results["gates" if report.gate in names else "warm"].append(vars(told(report)))
        save()


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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for part in ("gates", "warm", "bench", "tokens", "tune", "dry-run"):
        parser.add_argument(f"--{part}", action="store_true")
    names = [s.name for s in SHAPES]
    parser.add_argument(
        "--shapes", nargs="+", choices=names, default=names, help="shapes of --bench, --warm and --tune"
    )
    parser.add_argument(
        "--append", action="store_true", help="keep the other shapes and parts of the JSON file"
    )
    parser.add_argument("--out", type=Path, default=None, help=f"JSON file, by default {RESULTS}")
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes of --gates and --warm; 1: gates in turn"
    )
    parser.add_argument("--job-seconds", type=float, default=90.0, help="for each of these processes")
    every = sorted(gate.__name__ for gate in EVERY_GATE)
    parser.add_argument("--only", nargs="+", choices=every, default=every, help="gates of --gates")
    parser.add_argument("--start", choices=("forkserver", "spawn"), default="forkserver", help="their kind")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="after these, --bench begins no shape"
    )
    parser.add_argument(
        "--budget", type=float, default=BUDGET_SECONDS, help="seconds per contender and phase"
    )
    parser.add_argument(
        "--despite",
        nargs="+",
        default=[],
        help="failed gates that do not touch what is timed; kept in the JSON",
    )
    parser.add_argument("--commit", default="", help="of the tree, where git does not tell")
    return parser.parse_args()


def ran_all(gates: Sequence[dict[str, Any]]) -> bool:
    """Whether an earlier run went through every gate, so that they need not be run again."""
    return {gate_of(g) for g in gates} >= {gate.__name__ for gate in EVERY_GATE}


def gate_of(report: dict[str, Any]) -> str:
    """The gate's name, of whichever part."""
    return report["gate"].split(" [")[0]


def may_be_timed(results: dict[str, Any], despite: Sequence[str]) -> tuple[bool, bool]:
    """Whether attention and the token-wise kernels are right: what is wrong is not timed."""
    failed = {gate_of(g) for g in results.get("gates", []) if not g["passed"]}
    results["despite"] = sorted(failed & set(despite))
    failed -= set(despite)
    of_tokens = {gate.__name__ for gate in TOKEN_GATES}
    if failed:
        print(f"Gates failed: {', '.join(sorted(failed))}. What they guard is not timed.", flush=True)
    return not failed - of_tokens, not failed & of_tokens


def begin_again(args: argparse.Namespace, out: Path, shapes: Sequence[Shape], seconds: float) -> None:
    """Replace this process, whose GPU context is broken, by one that measures what is left."""
    command = [sys.executable, __file__, "--append", f"--out={out}", f"--budget={args.budget}"]
    command += [f"--commit={args.commit}", f"--seconds={seconds}"]
    command += ["--despite", *args.despite] if args.despite else []
    left = [*(["--tokens"] if args.tokens else [])]
    left += ["--bench", "--shapes", *(s.name for s in shapes)] if shapes else []
    if not left:
        raise SystemExit("A contender broke the GPU context, and nothing was left to measure")
    print(f"A contender broke the GPU context; going on in a new process with {left}", flush=True)
    os.execv(sys.executable, [*command, *left])


def main() -> int:
    args = arguments()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # the processes are parallel already
    if interpreted():
        repair()
    machine = Machine(args.dry_run, args.budget, args.commit)
    every = args.dry_run or not (args.gates or args.warm or args.bench or args.tokens or args.tune)
    shapes = TINY if args.dry_run else tuple(s for s in SHAPES if s.name in args.shapes)
    out = args.out or (Path("/dev/null") if args.dry_run else RESULTS)
    here = machine.describe()
    results: dict[str, Any] = earlier(out, here) if args.append else {}
    results |= here
    print(json.dumps({k: v for k, v in results.items() if k in here}, indent=1), flush=True)

    def save() -> None:
        if out != Path("/dev/null"):
            out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")

    if args.warm or (args.gates and args.jobs > 1):
        run_in_parallel(machine, args, shapes, results, save)
    known = ran_all(results.get("gates", [])) and (args.append or args.jobs > 1)
    if (args.gates and args.jobs == 1) or ((args.bench or every) and not known and not args.gates):
        all_of_them = args.gates or (every and not args.dry_run)
        results["gates"] = run_in_turn(machine, chosen_gates(args) if all_of_them else EVERY_GATE[:4])
    attention, tokens = may_be_timed(results, args.despite)
    save()
    code = 0 if attention and tokens else 1
    if not (args.bench or args.tokens or args.tune or every) or not (attention or tokens):
        return code
    results["ceilings"] = machine.ceilings()
    print(json.dumps(results["ceilings"]), flush=True)
    if attention and (args.bench or every):
        bench_all(machine, args, shapes, results, out, save)
    if tokens and (args.tokens or every):
        results["tokens"] = bench_tokens(machine, results["ceilings"]["copy_gbytes"])
        for row in results["tokens"]:
            print(json.dumps(row), flush=True)
        save()
    if attention and (args.tune or args.dry_run):
        machine.budget = min(machine.budget, TUNING_SECONDS)
        results["tuning"] = tune(machine, TINY[:1] if args.dry_run else to_tune(shapes))
    save()
    if out == RESULTS and "attention" in results:
        print(f"plot: {plot(results, out.with_suffix('.png'))}")
    return code


def bench_all(
    machine: Machine,
    args: argparse.Namespace,
    shapes: Sequence[Shape],
    results: dict[str, Any],
    out: Path,
    save: Callable[[], None],
) -> None:
    """Attention on each shape in turn, saved after each; a shape that fails or comes too late is named instead."""
    start = time.perf_counter()
    rows = {row["shape"]: row for row in results.get("attention", [])}
    missing: dict[str, str] = results.setdefault("missing", {})
    for i, shape in enumerate(shapes):
        spent = time.perf_counter() - start
        if spent > args.seconds:
            missing[shape.name] = f"skipped: {spent:.0f} s were spent, of {args.seconds:.0f}"
            print(f"{shape.name}: {missing[shape.name]}", flush=True)
            continue
        try:
            rows[shape.name] = bench_shape(machine, shape, results["ceilings"]["product_tflops"])
            missing.pop(shape.name, None)
            show(rows[shape.name])
        except Exception:
            missing[shape.name] = traceback.format_exc()
            print(f"{shape.name}: {missing[shape.name]}", flush=True)
        results["attention"] = list(rows.values())
        save()
        machine.free()
        if not machine.alive():
            begin_again(args, out, shapes[i + 1 :], args.seconds - (time.perf_counter() - start))
    save()


if __name__ == "__main__":
    sys.exit(main())
