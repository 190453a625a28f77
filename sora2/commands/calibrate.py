"""`sora2 calibrate`: every metric over a grid of controlled corruptions, as one page."""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path

from sora2.metrics import MetricError, select_metrics

EXAMPLES = """examples:
  sora2 calibrate --out runs/calibration                        # the whole grid on 16 clips
  sora2 calibrate --clips 40 --workers 2 --out runs/calibration
  sora2 calibrate --metrics av_offset,av_f1_45 --corruptions "audio shift,wrong audio" --out runs/calibration
  sora2 calibrate --domain talk --out runs/calibration_talk     # speech, mouths; also cameo, story
  sora2 calibrate --list                                        # the corruptions
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sora2 calibrate",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", help="gets calibration.json, plots/, index.html")
    add("--clips", type=int, default=16, help="real toybox clips")
    add(
        "--domain",
        default="bounce",
        help="bounce, talk, cameo or story: the clips, and the metrics that are calibrated on them",
    )
    add("--split", default="test")
    add("--toybox-seed", type=int, default=0)
    add("--metrics", metavar="A,B", help="names of `sora2 evaluate --list`; default: all")
    add("--corruptions", metavar="A,B", help="names of --list; default: all")
    add("--severities", type=int, metavar="N", help="at most so many per side; default: all")
    add("--workers", type=int, default=1, help="processes that measure")
    add("--fresh", action="store_true", help="measure again what an earlier run in --out has measured")
    add("--quiet", action="store_true", help="no progress bar")
    add("--list", action="store_true", help="print all corruptions")
    return parser


def main(argv: list[str]) -> int:
    """Raises MetricError for unknown names, fewer than two clips, or a file in the place of --out."""
    from sora2.metrics.calibration import calibrate, calibration_clips
    from sora2.metrics.calibration_page import verdict_table, write_calibration
    from sora2.metrics.corruptions import all_corruptions, select_corruptions
    from sora2.metrics.tables import markdown

    parser = build_parser()
    args = parser.parse_args(argv)
    if args.list:
        for c in all_corruptions().values():
            print(f"{c.name}: {', '.join(f'{s:g}' for s in c.severities)} {c.unit}\n    {c.description}")
        return 0
    if args.out is None:
        parser.error("--out is required")
    for flag, value in (
        ("--clips", args.clips),
        ("--workers", args.workers),
        ("--severities", args.severities),
    ):
        if value is not None and value < 1:
            raise MetricError(f"{flag} {value} must be at least 1")
    if args.out.exists() and not args.out.is_dir():
        raise MetricError(f"--out {args.out} is a file; give the name of a folder")
    metrics, _ = select_metrics(None if args.metrics is None else args.metrics.split(","))
    if args.metrics is None:
        metrics = {n: m for n, m in metrics.items() if m.domain == args.domain}
    clips = calibration_clips(args.clips, args.split, args.toybox_seed, args.domain)
    corruptions = select_corruptions(None if args.corruptions is None else args.corruptions.split(","))
    if args.corruptions is None:
        scene = "talk" if args.domain == "cameo" else args.domain
        corruptions = {n: c for n, c in corruptions.items() if not c.scenes or scene in c.scenes}
    cache = args.out / "measured"
    if args.fresh:
        shutil.rmtree(cache, ignore_errors=True)
    result = calibrate(
        clips,
        metrics,
        corruptions,
        severities=args.severities,
        workers=args.workers,
        progress=not args.quiet,
        cache=cache,
    )
    page = write_calibration(
        result,
        args.out,
        {
            "subtitle": f"{args.clips} {args.domain} clips of toybox split {args.split}, {len(metrics)} metrics, "
            f"{len(corruptions)} kinds of damage",
            "command": shlex.join(["sora2", "calibrate", *argv]),
        },
    )
    headline = [m for m in metrics.values() if m.headline]
    print(f"\n{markdown(*verdict_table(result, headline))}\npage: {page}")
    return 0
