"""Speedrun: train from nothing to a fixed gate of quality, and say what it took.

    make speedrun                                       data, latents, training, the gate
    python scripts/speedrun.py --record "Muon at 4e-3"  also appends the result to notebooks/SPEEDRUN.md
    python scripts/speedrun.py --checkpoint DIR         the gate alone

The gate: synchrony (F1 of onsets within 45 ms) at least 0.80 of real clips', accuracy of the prompted attributes at
least 0.90 of it, on 512 captions of the validation split. The clock runs while `sora2 train` runs; data and latents
are made before, the gate is measured after. Further arguments are overrides of `sora2 train experiment=speedrun`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from sora2.atomic import save_json, save_text
from sora2.cli import run_apart
from sora2.errors import UserError
from sora2.generate.flags import add_dtype_flag
from sora2.studies.energy import EnergyMeter
from sora2.studies.gate import CLIPS, GATE, SPLIT, GateResult, check_gate
from sora2.studies.machine import describe_machine
from sora2.train.compose import compose_config
from sora2.train.step import flops_per_sample

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "notebooks" / "SPEEDRUN.md"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/speedrun"))
    add("--checkpoint", type=Path, help="do not train: an export folder whose gate is measured")
    add("--clips", type=int, default=CLIPS, help=f"captions of the gate; a record needs {CLIPS}")
    add_dtype_flag(parser)
    add("--workers", type=int, default=1, help="processes that measure")
    add("--record", metavar="WHAT_CHANGED", help="append the result to notebooks/SPEEDRUN.md")
    add("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    if args.record and args.clips != CLIPS:
        raise UserError(f"--record needs the whole gate: --clips {CLIPS}")
    report = {} if args.checkpoint is not None else run_training(args)
    export = args.out / "train" / "export" if args.checkpoint is None else args.checkpoint
    results = run_gate(export, args)
    report["gate"] = {r.metric: {"value": r.value, "real": r.real, "share": r.share} for r in results}
    report["passed"] = all(r.passed for r in results)
    report["machine"] = describe_machine()
    save_json(report, args.out / "speedrun.json")
    print(f"\n{describe(report, results)}")
    if args.record:
        save_text(append_row(TABLE.read_text(), row(report, results, args.record)), TABLE)
        print(f"written: {TABLE}")
    return 0 if report["passed"] else 1


def run_training(args: argparse.Namespace) -> dict[str, Any]:
    """Train and time it. A run that is there already was not timed from nothing and is refused."""
    folder = args.out / "train"
    if folder.exists():
        raise UserError(
            f"{folder} holds an earlier run: a speedrun begins with nothing. Delete it, give another --out, or "
            f"measure its gate with --checkpoint {folder / 'export'}"
        )
    overrides = ["experiment=speedrun", f"name={folder.name}", f"out={folder.parent}", *args.overrides]
    config = compose_config(overrides)
    energy, started = EnergyMeter(), time.perf_counter()
    run_apart("train", *overrides)
    seconds = time.perf_counter() - started
    trained = yaml.safe_load((folder / "export" / "config.yaml").read_text())
    samples = trained["samples_seen"]
    return {
        "command": " ".join(["python", "scripts/speedrun.py", *sys.argv[1:]]),
        "seconds": seconds,
        "samples": samples,
        "flops": samples * flops_per_sample(config),
        "joules": energy.joules(),
    }


def run_gate(export: Path, args: argparse.Namespace) -> list[GateResult]:
    """Evaluate generated and real clips, both on the captions of the gate."""
    common = ["--split", SPLIT, "--clips", str(args.clips), "--metrics", ",".join(GATE), "--no-controls"]
    common += ["--show", "0", "--workers", str(args.workers)]
    real, generated = args.out / f"real-{args.clips}", args.out / "gate"
    if args.checkpoint is None:
        shutil.rmtree(generated, ignore_errors=True)
    if not (real / "metrics.json").is_file():
        run_apart("evaluate", "--real", *common, "--out", str(real))
    run_apart(
        "evaluate", "--checkpoint", str(export), *common, "--dtype", args.dtype, "--batch-size", "16",
        "--out", str(generated),
    )  # fmt: skip
    rows = [
        json.loads((folder / "metrics.json").read_text())["rows"][name]["summary"]
        for folder, name in ((generated, "generated"), (real, "real"))
    ]
    return check_gate(*rows)


def describe(report: dict[str, Any], results: list[GateResult]) -> str:
    """The report in words."""
    lines = []
    if "seconds" in report:
        joules = "unknown" if report["joules"] is None else f"{report['joules'] / 1000:,.0f} kJ"
        lines.append(
            f"trained {report['samples']:,} samples in {report['seconds'] / 60:.1f} min, "
            f"{report['flops'] / 1e15:.2f} PFLOP, energy {joules}, on {report['machine']}"
        )
    for r in results:
        lines.append(
            f"{'passed' if r.passed else 'NOT passed'}: {r.metric} {r.value:.3f}, {r.share:.2f} of real clips' "
            f"{r.real:.3f} (needed: {r.needed:.2f})"
        )
    return "\n".join(lines)


def row(report: dict[str, Any], results: list[GateResult], changed: str) -> str:
    """A line of the record table."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    minutes = f"{report['seconds'] / 60:.0f}" if "seconds" in report else "–"
    samples = f"{report['samples']:,}" if "samples" in report else "–"
    compute = f"{report['flops'] / 1e15:.2f}" if "flops" in report else "–"
    shares = " | ".join(f"{r.share:.2f}" for r in results)
    verdict = "yes" if report["passed"] else "no"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    cells = [today, commit or "–", report["machine"], minutes, samples, compute, shares, verdict, changed]
    return "| " + " | ".join(cells) + " |"


def append_row(table: str, line: str) -> str:
    """The record with one more line at the end of its table."""
    return table.rstrip("\n") + "\n" + line + "\n"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UserError as error:
        raise SystemExit(f"speedrun: {error}") from error
