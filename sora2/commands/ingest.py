"""`sora2 ingest`: a folder of videos into shards of clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sora2.data.errors import DataError
from sora2.data.films import TRAIN, VALIDATION, IngestConfig, find_videos, load_films, plan_spans
from sora2.data.filters import Filters
from sora2.data.ingest import describe_reasons, write_clips
from sora2.data.shots import THRESHOLDS
from sora2.data.sidecar import UNKNOWN_LICENCE
from sora2.media.probing import probe


def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="sora2 ingest",
        description="Cut every video below FOLDER into shots (PySceneDetect) and clips of one length, filter "
        "them, and write OUT/train, OUT/validation and OUT/report.json. Captions, licence and source "
        "come from "
        "NAME.txt (a caption) or NAME.json (caption, licence, source, shots: [{start, end, caption}]) beside "
        "NAME.mp4.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("folder", type=Path)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--caption", help="caption of videos without one; without this flag they are an error")
    p.add_argument("--licence", help="licence of videos whose sidecar names none")
    p.add_argument("--source", help="source of videos whose sidecar names none (default: the file name)")
    clip = p.add_argument_group("clips")
    clip.add_argument("--frames", type=int, default=33, help="1 + 4k for the default video codec")
    clip.add_argument("--fps", type=float, default=16.0)
    clip.add_argument("--size", type=int, nargs=2, default=(64, 64), metavar=("HEIGHT", "WIDTH"))
    clip.add_argument("--sample-rate", type=int, default=16000)
    clip.add_argument("--channels", type=int, default=2, choices=(1, 2))
    clip.add_argument("--audio", choices=("required", "optional", "ignore"), default="required")
    clip.add_argument("--holdout", type=float, default=0.0, help="share of the shots kept for OUT/validation")
    shots = p.add_argument_group("shots")
    shots.add_argument("--detector", choices=tuple(THRESHOLDS), default="content")
    shots.add_argument("--threshold", type=float, help=f"of the detector (default: {THRESHOLDS})")
    shots.add_argument("--margin", type=float, default=0.05, help="seconds left out at both ends of a shot")
    drop = p.add_argument_group("filters")
    drop.add_argument("--silent-below", type=float, default=-60.0, metavar="DB", help="RMS in dB full scale")
    drop.add_argument(
        "--black-share", type=float, default=0.5, help="drop clips with more black frames than this"
    )
    drop.add_argument(
        "--frozen-share", type=float, default=0.9, help="drop clips with this share of still frames"
    )
    drop.add_argument(
        "--keep", nargs="+", choices=("silent", "black", "frozen"), default=[], help="filters to switch off"
    )
    p.add_argument(
        "--crf", type=int, default=12, help="x264 quality of the stored clips; the sound is lossless"
    )
    p.add_argument("--shard-size", type=int, default=128)
    p.add_argument("--workers", type=int, default=2, help="threads that cut clips")
    p.add_argument("--overwrite", action="store_true", help="replace OUT/train and OUT/validation")
    return p


def make_config(args: argparse.Namespace) -> IngestConfig:
    filters = Filters(
        silent_below_db=None if "silent" in args.keep else args.silent_below,
        black_share=None if "black" in args.keep else args.black_share,
        frozen_share=None if "frozen" in args.keep else args.frozen_share,
    )
    return IngestConfig(
        frames=args.frames,
        fps=args.fps,
        height=args.size[0],
        width=args.size[1],
        sample_rate=args.sample_rate,
        channels=args.channels,
        audio=args.audio,
        holdout=args.holdout,
        detector=args.detector,
        threshold=args.threshold,
        margin_seconds=args.margin,
        crf=args.crf,
        shard_size=args.shard_size,
        filters=filters,
    )


def print_report(report: dict[str, Any]) -> None:
    """A table with one line per file and one of totals, then the reasons in words."""
    reasons = list(report["dropped"])
    header = ["file", "seconds", "shots", TRAIN, VALIDATION, *reasons]
    rows = [
        [
            f["file"],
            f"{f['seconds']:.1f}",
            f["shots"],
            f[TRAIN],
            f[VALIDATION],
            *(f["dropped"][r] for r in reasons),
        ]
        for f in report["files"]
    ]
    totals = [
        "total",
        f"{sum(f['seconds'] for f in report['files']):.1f}",
        sum(f["shots"] for f in report["files"]),
    ]
    rows.append([*totals, *report["clips"].values(), *report["dropped"].values()])
    table = [header, *([str(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        print(
            "  ".join(
                v.ljust(w) if i == 0 else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths, strict=True))
            )
        )
    print(f"dropped: {describe_reasons(report['dropped'])}")
    unknown = [f["file"] for f in report["files"] if f["licence"] == UNKNOWN_LICENCE]
    if unknown:
        print(
            f"licence unknown for {len(unknown)} files ({', '.join(unknown[:5])}): name it in the "
            "sidecar or --licence"
        )


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    config = make_config(args)
    there = [args.out / s for s in (TRAIN, VALIDATION) if (args.out / s).exists()]
    if there and not args.overwrite:
        raise DataError(f"{there[0]} exists already: choose another --out, or pass --overwrite to replace it")
    seconds = sum(probe(path).video_seconds for path in find_videos(args.folder))
    seconds_bar = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=seconds, desc="shots", bar_format=seconds_bar, dynamic_ncols=True) as bar:
        films = load_films(
            args.folder,
            config,
            caption=args.caption,
            licence=args.licence,
            source=args.source,
            started=lambda path: bar.set_postfix_str(path.name),
            progress=bar.update,
        )
    clips = len(plan_spans(films, config)[0])
    with tqdm(total=clips, unit="clip", desc="clips", dynamic_ncols=True) as bar:
        report = write_clips(films, args.out, config, workers=max(1, args.workers), progress=bar.update)
    print_report(report)
    print(f"{args.out}: {report['clips'][TRAIN]} train and {report['clips'][VALIDATION]} validation clips")
    return 0
