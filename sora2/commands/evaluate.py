"""`sora2 evaluate`: measure a checkpoint, a folder of mp4s, or the toybox itself, beside the control rows."""

from __future__ import annotations

import argparse
import datetime
import platform
import shlex
import shutil
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sora2.commands.evaluation_rows import build_rows, find_item, load_codec_row, load_pipeline, shown_items
from sora2.generate.cascade import SOUND_TASKS
from sora2.generate.flags import add_dtype_flag, add_sampling_flags
from sora2.metrics import MetricError, all_corpus_metrics, all_metrics, select_metrics
from sora2.metrics.task_requests import CONDITIONS
from sora2.metrics.weights import missing_weights, set_weights

if TYPE_CHECKING:
    from sora2.metrics.evaluation import Evaluation

EXAMPLES = """examples:
  sora2 evaluate --checkpoint runs/toy/export --clips 32 --seeds 4 --out runs/toy/evaluation
  sora2 evaluate --checkpoint runs/toy/export --task video_to_audio --seeds 4 --out runs/toy/foley
  sora2 evaluate --checkpoint runs/pictures/export --sound-checkpoint runs/foley/export --out runs/cascade
  sora2 evaluate --checkpoint runs/toy/export --wording never_said --seeds 4 --out runs/toy/words
  sora2 evaluate --folder samples --out evaluation        # mp4s of any model; KEY.json beside KEY.mp4 holds the truth
  sora2 evaluate --real --clips 200 --out evaluation      # the toybox itself: how good the metrics are
  sora2 evaluate --real --split cameo --scenes talk --out evaluation   # whose face, whose voice
  sora2 evaluate --list                                   # what is measured
"""
FEWEST_SEEDS = 4
PACKAGES = ("sora2", "torch", "numpy", "scipy", "opencv-python-headless", "av")


def build_parser() -> argparse.ArgumentParser:
    from sora2.toybox.config import CAPTIONS

    parser = argparse.ArgumentParser(
        "sora2 evaluate",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is measured (one of these)").add_mutually_exclusive_group(
        required=True
    )
    what.add_argument(
        "--checkpoint", metavar="DIR", help="generate toybox test captions with it, and measure"
    )
    what.add_argument("--folder", type=Path, help="mp4s, each with a JSON (truth, caption, seed) beside it")
    what.add_argument("--real", action="store_true", help="toybox clips themselves")
    what.add_argument("--list", action="store_true", help="print all metrics and what they need")

    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", help="gets metrics.json, table.md, plots/, clips/, index.html")
    add("--metrics", metavar="A,B", help="names from --list; default: all")
    add(
        "--clips", type=int, default=32, help="toybox clips (captions) of the subject and of the control rows"
    )
    add(
        "--world",
        choices=("narrow", "whole"),
        default="narrow",
        help="narrow: balls in an empty box, which all metrics of physics know; whole: every scene, style and camera, "
        "where physics is asked of balls that fly freely before a camera that stands still",
    )
    add(
        "--caption",
        metavar="KIND[+KIND]",
        help=f"of {', '.join(CAPTIONS)}, several to be drawn by chance; default: those of the world",
    )
    add("--scenes", metavar="A,B", help="toybox scenes, for example talk,story; default: those of the world")
    add(
        "--split",
        default="test",
        help="toybox split that captions and control rows come from; of cameo, its targets",
    )
    add("--toybox-seed", type=int, default=0)
    add("--no-controls", action="store_true", help="leave out the control rows")
    add("--seconds", type=float, default=12.0, help="of each film of --folder that are measured")
    add(
        "--shorter-side", type=int, default=128, help="larger films of --folder are scaled down to it, pixels"
    )
    add("--show", type=int, default=8, help="clips per row to play on the page")
    add("--workers", type=int, default=1, help="processes that measure")
    add("--expect-fps", type=float, help="films of --folder at another frame rate fail")
    add("--expect-seconds", type=float, help="films of --folder of another length fail")
    add("--expect-sound", action="store_true", help="films of --folder without sound fail")
    add("--fresh", action="store_true", help="measure again what an earlier run in --out has measured")
    add(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="weights that some metrics need, see --list; may be given several times",
    )
    add("--quiet", action="store_true", help="no progress bar")

    how = parser.add_argument_group("generation (--checkpoint)")
    how.add_argument(
        "--task",
        choices=tuple(CONDITIONS),
        default="text_to_av",
        help="what the model is given of the real clips beside their captions",
    )
    how.add_argument(
        "--wording",
        choices=("grammar", "never_said"),
        default="grammar",
        help="never_said: the captions in words that no training caption has (crimson, enormous, globe)",
    )
    add = how.add_argument
    add("--seeds", type=int, default=1, help="samples per caption; 4 or more to claim anything")
    add("--seed", type=int, default=0, help="the first of them")
    add(
        "--interventions",
        type=int,
        default=0,
        metavar="N",
        help="also generate N captions with gravity and material changed, same seed, from text alone; gives the "
        "response slopes",
    )
    add("--batch-size", type=int, default=8)
    add("--device", help="default: cuda if there is one, else cpu")
    add_dtype_flag(parser)
    add(
        "--video-codec",
        metavar="DIR",
        help="where the video codec lies; also adds the codec row to other modes",
    )
    add("--audio-codec", metavar="DIR")
    add(
        "--sound-checkpoint",
        metavar="DIR",
        help="a second one, which makes the sound; --checkpoint then makes pictures alone",
    )
    add(
        "--sound-task",
        choices=SOUND_TASKS,
        default=SOUND_TASKS[0],
        help="whether it hears of the pictures (a cascade) or of the caption alone (two separate models)",
    )
    add_sampling_flags(parser)
    return parser


def main(argv: list[str]) -> int:
    """Raises MetricError when there is nothing to measure, or nothing could be measured."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for given in args.weights:
        name, equals, path = given.partition("=")
        if not equals:
            raise MetricError(f"--weights {given}: write NAME=PATH")
        set_weights(name, path)
    if args.list:
        print_metrics()
        return 0
    if args.out is None:
        parser.error("--out is required")
    check_arguments(args)
    evaluation, page = run(args, argv)
    from sora2.metrics.tables import main_metrics, markdown, value_table

    print(f"\n{markdown(*value_table(evaluation, main_metrics(evaluation)))}\npage: {page}")
    subject = next(iter(evaluation.summaries))
    if not evaluation.measured_anything(subject):
        reasons = Counter[str]()
        for summary in evaluation.summaries[subject].values():
            reasons.update(summary.reasons)
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4))
        raise MetricError(f"nothing could be measured in {subject}: {listed}. See {page}")
    return 0


def print_metrics() -> None:
    for m in all_metrics().values():
        unit = f" [{m.unit}]" if m.unit else ""
        print(f"{m.name}{unit}\n    {m.description}\n    needs {', '.join(sorted(m.needs))}")
        for sentence in missing_weights(m.weights):
            print(f"    not available: {sentence}")
    for c in all_corpus_metrics().values():
        needs = f"; features: {', '.join(c.features)}" if c.features else ""
        print(f"{c.name}\n    {c.description}\n    of the set{needs}")
        for sentence in missing_weights(c.weights):
            print(f"    not available: {sentence}")


def check_arguments(args: argparse.Namespace) -> None:
    for flag, value in (
        ("--clips", args.clips),
        ("--seeds", args.seeds),
        ("--shorter-side", args.shorter_side),
        ("--workers", args.workers),
    ):
        if value < 1:
            raise MetricError(f"{flag} {value} must be at least 1")
    usual = build_parser()
    for there, whose, names in (
        (args.folder, "films of --folder", ("expect_fps", "expect_seconds", "expect_sound")),
        (args.checkpoint, "what a --checkpoint makes", ("task", "wording", "seeds", "interventions")),
    ):
        given = [n for n in names if there is None and getattr(args, n) != usual.get_default(n)]
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise MetricError(f"{flags}: of {whose} alone")
    if args.steps is not None and args.steps < 1:
        raise MetricError(f"--steps {args.steps} must be at least 1")
    if args.sound_checkpoint is not None and (args.checkpoint is None or args.task != "text_to_av"):
        raise MetricError("--sound-checkpoint makes the sound of --checkpoint DIR --task text_to_av alone")
    if not args.seconds > 0:
        raise MetricError(f"--seconds {args.seconds} must be positive")
    if (args.video_codec is None) != (args.audio_codec is None) and args.checkpoint is None:
        raise MetricError("--video-codec and --audio-codec: give both for the codec row, or neither")
    if args.out.exists() and not args.out.is_dir():
        raise MetricError(f"--out {args.out} is a file; give the name of a folder")


def run(args: argparse.Namespace, argv: list[str]) -> tuple[Evaluation, Path]:
    """Evaluate and write everything under `args.out`; returns what was measured, and the page."""
    from sora2.metrics.evaluation import evaluate_rows
    from sora2.metrics.report import worst_outcomes, write_report

    metrics, corpus_metrics = select_metrics(None if args.metrics is None else args.metrics.split(","))
    pipeline = load_pipeline(args) if args.checkpoint is not None else None
    codecs = load_codec_row(args, pipeline)
    rows, info = build_rows(args, pipeline, codecs)
    cache = args.out / "measured"
    if args.fresh:
        shutil.rmtree(cache, ignore_errors=True)
    evaluation = evaluate_rows(
        rows, metrics, corpus_metrics, progress=not args.quiet, workers=args.workers, cache=cache
    )
    subject = rows[0].name
    notes = set_notes(evaluation, subject, args)
    for note in notes:
        print(f"note: {note}")
    worst = [
        (outcome, item)
        for outcome in worst_outcomes(evaluation, subject, 4)
        if (item := find_item(outcome.key, rows[0])) is not None
    ]
    settings = {
        "title": f"Evaluation of {subject}",
        "subtitle": f"{rows[0].size} clips; control rows: {args.clips} clips of toybox split {args.split}",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "notes": notes,
        "command": shlex.join(["sora2", "evaluate", *argv]),
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            **info,
        },
    }
    page = write_report(
        evaluation, args.out, subject=subject, settings=settings, shown=shown_items(rows, args), worst=worst
    )
    return evaluation, page


def set_notes(evaluation: Evaluation, subject: str, args: argparse.Namespace) -> list[str]:
    """What a reader must know about the set before its numbers: mixed shapes, missing sound, no truth, few seeds."""
    outcomes = evaluation.outcomes[subject]
    read = [o for o in outcomes if o.size != (0, 0)]
    notes = []
    for what, values in (
        ("frame rate", [f"{o.fps:g}" for o in read]),
        ("size", [f"{o.size[1]} x {o.size[0]}" for o in read]),
    ):
        counts = Counter(values)
        if len(counts) > 1:
            listed = ", ".join(f"{n} at {value}" for value, n in counts.most_common(5))
            notes.append(
                f"mixed {what}s: {listed}. Metrics in frames or pixels are not comparable between them."
            )
    for need in ("audio", "truth"):
        lacking = sum(any(v.reason == f"the clip has no {need}" for v in o.values.values()) for o in outcomes)
        if lacking:
            remedy = (
                "" if need == "audio" else " (KEY.json beside KEY.mp4 with truth, or a caption of the toybox)"
            )
            notes.append(
                f"{lacking} of {len(outcomes)} clips have no {need}{remedy}: its metrics count them as failures."
            )
    failed = sum(bool(o.gates) for o in outcomes)
    if failed:
        notes.append(f"{failed} of {len(outcomes)} clips fail a gate and count as failures in every metric.")
    seeds = Counter(o.prompt for o in outcomes)
    if args.checkpoint is not None and min(seeds.values()) < FEWEST_SEEDS:
        notes.append(
            f"{min(seeds.values())} sample(s) per prompt: intervals do not cover the spread over seeds; "
            f"--seeds {FEWEST_SEEDS} does."
        )
    return notes
