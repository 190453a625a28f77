"""`sora2 export RUN`: weights for inference from a checkpoint of a run that goes on, was stopped, or is over; or from
the weights of an export, in another dtype."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from sora2.errors import UserError
from sora2.train.config import Dtype

EXAMPLES = """examples:
  sora2 export runs/toybox_bounce --out runs/halfway                  the newest checkpoint, averaged as the run does
  sora2 export runs/toybox_bounce --samples 60000 --out runs/early    an earlier one that is still there
  sora2 export runs/toybox_bounce --sigma-rel 0.15 --out runs/wide    another width of the average, from snapshots
                                                                      (ema.snapshot_every_samples)
  sora2 export runs/toybox_bounce --live --out runs/live              without averaging
  sora2 export runs/toybox_bounce/export --dtype int8 --out runs/small   an export, in a quarter of the bytes of fp32
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sora2 export",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "run",
        type=Path,
        metavar="RUN",
        help="folder of a run of `sora2 train`, with checkpoints/ in it; or an export",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="gets the weights and their config")
    add("--samples", type=int, help="checkpoint after that many samples (default: the newest)")
    add("--sigma-rel", type=float, help="width of the average (default: the first of ema.sigma_rel)")
    add("--live", action="store_true", help="the weights as they are, without averaging")
    add(
        "--dtype",
        choices=get_args(Dtype),
        help="of the weights in the file (default: trainer.export_dtype of the run; int8: of its matrices)",
    )
    return parser


def main(argv: list[str]) -> int:
    """Raises UserError when the run has no such checkpoint, or no snapshots for the width asked for."""
    args = build_parser().parse_args(argv)
    from sora2.train.export import export_run, repack

    if (args.run / "model.safetensors").is_file():
        asked = {"--samples": args.samples, "--sigma-rel": args.sigma_rel, "--live": args.live or None}
        unusable = [flag for flag, value in asked.items() if value is not None]
        if unusable or args.dtype is None:
            raise UserError(
                f"{args.run} is an export already, of one average: of it, --dtype alone can be chosen"
                + (f"; leave {', '.join(unusable)} out" if unusable else ", and is missing")
            )
        seen = repack(args.run, args.out, args.dtype)
    else:
        seen = export_run(
            args.run,
            args.out,
            samples=args.samples,
            sigma_rel=args.sigma_rel,
            live=args.live,
            dtype=args.dtype,
        )
    print(f"weights after {seen:,} samples in {args.out}")
    return 0
