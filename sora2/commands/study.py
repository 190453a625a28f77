"""`sora2 study NAME`: train and measure the cells of an ablation, and record them for its notebook."""

from __future__ import annotations

import argparse
from pathlib import Path

from sora2.studies.config import STUDY_DIR, read_study

EXAMPLES = """examples:
  sora2 study --list
  sora2 study noise_pairing                                    everything that is not done yet
  sora2 study noise_pairing --seeds 0 --cells mixture paired   a part; another process may do other seeds
  sora2 study noise_pairing --record /tmp/small.json --out /tmp/runs trainer.max_samples=64
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sora2 study",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="of configs/study/NAME.yaml")
    add("overrides", nargs="*", help="of `sora2 train`, for every run")
    add("--list", action="store_true", help="print the studies and what they ask")
    add("--cells", nargs="+", metavar="CELL", help="default: all")
    add("--seeds", nargs="+", type=int, help="default: the study's")
    add("--out", type=Path, default=Path("runs/studies"), help="folder of the runs")
    add("--record", type=Path, help="default: notebooks/results/NAME.json")
    return parser


def main(argv: list[str]) -> int:
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    if args.list:
        for path in sorted(STUDY_DIR.glob("*.yaml")):
            study = read_study(path.stem)
            print(f"{path.stem}: {study.question}\n    {', '.join(study.cells)}; {len(study.seeds)} seed(s)")
        return 0
    if args.name is None:
        parser.error("NAME is required; --list prints the studies")
    study = read_study(args.name)
    from sora2.studies.analysis import RESULTS
    from sora2.studies.run import StudyRunner

    record = RESULTS / f"{args.name}.json" if args.record is None else args.record
    runner = StudyRunner(args.name, study, args.out.resolve(), record, tuple(args.overrides))
    cells = tuple(study.cells if args.cells is None else args.cells)
    runner.run(cells, study.seeds if args.seeds is None else tuple(args.seeds))
    print(f"written: {record}")
    return 0
