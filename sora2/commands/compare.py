"""`sora2 compare A B`: two evaluations, clip by clip, with paired tests."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora2.atomic import save_json, save_text
from sora2.metrics.values import MetricError

if TYPE_CHECKING:
    from sora2.metrics.comparison import Difference

EXAMPLES = """examples:
  sora2 evaluate --checkpoint runs/a/export --clips 32 --seeds 4 --out runs/a/evaluation
  sora2 evaluate --checkpoint runs/b/export --clips 32 --seeds 4 --out runs/b/evaluation
  sora2 compare runs/a/evaluation runs/b/evaluation --out runs/a-or-b
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sora2 compare",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", type=Path, help="--out folder of `sora2 evaluate`")
    parser.add_argument("b", type=Path)
    parser.add_argument("--row-a", help="row of A; default: its subject")
    parser.add_argument("--row-b", help="row of B; default: its subject")
    parser.add_argument("--out", type=Path, metavar="DIR", help="gets comparison.json, table.md, index.html")
    return parser


def main(argv: list[str]) -> int:
    """Raises MetricError when an evaluation is missing, or the two have no prompt or no metric in common."""
    from sora2.metrics.comparison import compare, read_side
    from sora2.metrics.evaluation import plain
    from sora2.metrics.page import Page
    from sora2.metrics.plots import plot_differences
    from sora2.metrics.tables import difference_table, markdown

    args = build_parser().parse_args(argv)
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise MetricError(f"--out {args.out} is a file; give the name of a folder")
    result = compare(read_side(args.a, args.row_a), read_side(args.b, args.row_b))
    table = difference_table(result)
    heading = (
        f"A: {result.a.path} ({result.a.row}). B: {result.b.path} ({result.b.row}). "
        f"{result.pairs} pairs of {result.prompts} prompts."
    )
    print("\n".join([heading, *(f"note: {n}" for n in result.notes), "", markdown(*table)]))
    if args.out is None:
        return 0
    command = shlex.join(["sora2", "compare", *argv])
    save_json(
        {
            "command": command,
            "a": str(result.a.path),
            "b": str(result.b.path),
            "pairs": result.pairs,
            "prompts": result.prompts,
            "notes": result.notes,
            "metrics": {d.metric.name: plain(_described(d)) for d in result.differences},
        },
        args.out / "comparison.json",
    )
    save_text(
        "\n\n".join([heading, *result.notes, markdown(*table), f"    {command}\n"]), args.out / "table.md"
    )
    page = Page("A or B?", subtitle=heading)
    page.section("Results", EXPLANATION)
    for note in result.notes:
        page.text(f"Note: {note}")
    page.table(*table, text_columns=(0, 6))
    plot = plot_differences(
        [(d.metric.name, d.cost.estimate, d.cost.low, d.cost.high) for d in result.differences],
        args.out / "plots" / "differences.png",
    )
    page.section("Change of cost").figure(
        plot, "B less A, with 95 % intervals over prompts. Left of zero B is better."
    )
    page.section("How this page was made").code(command)
    print(f"page: {page.write(args.out / 'index.html')}")
    return 0


EXPLANATION = (
    "Clips are paired by prompt and seed. The test is on the cost of clips (0 perfect, 1/2 at the metric's "
    "tolerance, 1 unmeasurable, so a clip that hides its fault does not win): signs of whole prompts are flipped, "
    "and p is corrected for the number of metrics (Holm). Intervals draw whole prompts. The difference of values is "
    "over pairs in which both clips are measured."
)


def _described(d: Difference) -> dict[str, Any]:
    names = ("a", "b", "measured_a", "measured_b", "p", "adjusted_p", "verdict")
    fields = {name: getattr(d, name) for name in names}
    for name in ("value", "cost", "success"):
        fields[f"{name}_difference"] = asdict(getattr(d, name))
    return fields
