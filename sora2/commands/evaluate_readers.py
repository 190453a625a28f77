"""`sora2 evaluate-readers`: how often the attribute readers are right on held-out real clips, sound and damaged."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sora2.atomic import save_json, save_text
from sora2.metrics.readers import accuracy
from sora2.metrics.readers.accuracy import Accuracy
from sora2.metrics.readers.attributes import ATTRIBUTES
from sora2.metrics.readers.reading import load_reader
from sora2.metrics.tables import markdown
from sora2.metrics.values import MetricError
from sora2.toybox import Toybox, whole_world
from sora2.types import Clip

EXAMPLES = """examples:
  sora2 evaluate-readers --readers runs/readers/export --splits validation           while choosing
  sora2 evaluate-readers --splits test test_compositional --clips 900 --record       the table of the model card
  sora2 evaluate-readers --splits test --damage blur=0.5 "picture noise=4" compression=28
"""
#: Its figures are recorded with the weights.
RECORDED = "test"


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.clips < 2:
        raise MetricError(f"--clips {args.clips} must be at least 2")
    if args.record and args.splits[0] != RECORDED:
        raise MetricError(f"--record keeps the figures of split {RECORDED}: name it first in --splits")
    if args.threads:
        torch.set_num_threads(args.threads)
    reader = load_reader(args.readers)
    damages = [(name, float(value)) for name, _, value in (d.rpartition("=") for d in args.damage)]
    columns: dict[str, dict[str, Accuracy]] = {}
    for split in args.splits:
        clips = list(_clips(args, split))
        columns[split] = accuracy.table(accuracy.agreements(reader, clips))
        for name, severity in damages:
            worse = accuracy.damaged(clips, name, severity)
            columns[f"{split}, {name} {severity:g}"] = accuracy.table(accuracy.agreements(reader, worse))
    command = shlex.join(["sora2", "evaluate-readers", *argv])
    text = format_table(columns)
    args.out.mkdir(parents=True, exist_ok=True)
    save_text(f"{text}\n    {command}\n", args.out / "readers.md")
    save_json({name: accuracy.as_json(c) for name, c in columns.items()}, args.out / "readers.json")
    print(text)
    if args.record:
        record(args.readers, columns[RECORDED], command)
        print(f"recorded in {args.readers / 'config.json'}")
    return 0


def record(folder: Path, accuracies: dict[str, Accuracy], command: str) -> None:
    """Keep the figures with the weights, so that they stand beside every score."""
    path = folder / "config.json"
    stored: dict[str, Any] = json.loads(path.read_text())
    attributes = accuracy.as_json(accuracies)
    stored["accuracy"] = {"split": RECORDED, "command": command, "attributes": attributes}
    save_text(json.dumps(stored, indent=1) + "\n", path)


def format_table(columns: dict[str, dict[str, Accuracy]]) -> str:
    """Attributes down, sets of clips across."""
    first, *others = columns
    body = []
    for name in (accuracy.OVERALL, *ATTRIBUTES):
        if name not in columns[first]:
            continue
        clips = str(columns[first][name].clips)
        guess = (
            "–"
            if name == accuracy.OVERALL or ATTRIBUTES[name].several
            else f"1/{len(ATTRIBUTES[name].choices)}"
        )
        title = "all that apply" if name == accuracy.OVERALL else name
        body.append([title, guess, clips, *[_cell(columns[c].get(name)) for c in (first, *others)]])
    return markdown(["attribute", "chance", "clips", *columns], body)


def _cell(found: Accuracy | None) -> str:
    return "–" if found is None else f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _clips(args: argparse.Namespace, split: str) -> Iterator[Clip]:
    box = Toybox(whole_world(split=split, seed=args.seed))
    for index in tqdm(range(args.clips), unit="clip", desc=split, disable=args.quiet):
        yield box.clip(index)


def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "sora2 evaluate-readers",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--readers", type=Path, default=Path("checkpoints/readers"), metavar="DIR")
    p.add_argument("--splits", nargs="+", default=["validation"], help="of the Toybox's whole world")
    p.add_argument("--clips", type=int, default=450, metavar="N", help="of each split")
    p.add_argument("--seed", type=int, default=0, help="of the world")
    p.add_argument(
        "--damage",
        nargs="*",
        default=[],
        metavar="NAME=SEVERITY",
        help="also read the clips under these corruptions of `sora2 calibrate`",
    )
    p.add_argument("--record", action="store_true", help="keep the figures of split test in DIR/config.json")
    p.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument(
        "--out", type=Path, default=Path("runs/readers_eval"), help="gets readers.md and readers.json"
    )
    return p
