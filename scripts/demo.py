"""The whole project in one run on the embedded world: data, latents, training, sampling, evaluation, one page.

    make demo                                       at most ten minutes on two cores
    make demo PROMPT="two green balls in the rain"  the same, with your words given to the shipped checkpoint
    make demo DEMO="--minutes 30"                   the same with a longer training

Every step is a command that a user would type; each is printed before it runs. A second call continues where the first
one stopped; `--fresh` starts anew.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from pathlib import Path

from showcase import (
    CODECS,
    TASKS,
    Steps,
    add_clips,
    add_samples,
    add_times,
    add_training,
    first,
    sample_prompts,
    sample_tasks,
)

from sora2.metrics.page import Page

OUT = Path("runs/demo")
SHIPPED, WHOLE, TALK = (Path("checkpoints") / name for name in ("toybox-s", "toybox-whole", "toybox-talk"))
PROMPTS = [
    "a small red rubber ball bounces in a plain box",
    "a big blue metal ball falls slowly under low gravity",
    "two wooden balls, one green and one yellow, in the rain",
    "a big orange rubber ball under strong gravity, wind blows",
]
WHOLE_PROMPTS = [
    'a happy face with glasses says "hello", oil painting',
    "rain and thunder at night",
    "a car drives past from left to right",
    "a pencil sketch of a bouncing blue ball",
]
TALK_PROMPTS = [
    'a happy face says "hello summer"',
    'cartoon, a calm face with round glasses says "garden music"',
    'a face with a red cap says "coffee", rain',
]
WHOLE_STORY = (
    "0: a red ball bounces, oil painting",
    "2 cut: rain and thunder at night, oil painting",
    "4 cut: a car drives past from left to right, oil painting",
    '6 cut: a happy face says "hello", oil painting',
)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the first table of a Markdown file."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    return header, rows


def build_page(
    steps: Steps,
    shipped: dict[str, Path],
    whole: dict[str, Path],
    talk: dict[str, Path],
    real: list[Path],
    made: dict[str, Path],
    minutes: float,
) -> Path:
    page = Page(
        "sora2: the demo",
        subtitle=f"First the checkpoint that ships with the project; then the same from scratch: a joint audio-video "
        f"transformer trained for at most {minutes:g} minutes on a generated world with exact ground truth. That one "
        "is far from converged: it shows that every part works, and what minutes on a CPU give.",
    )
    page.section(
        "Text to video with sound",
        f"Sampled from {SHIPPED}, whose card says what it was trained on and for how long.",
    )
    add_clips(page, shipped)
    page.section(
        "The whole toy world",
        f"Sampled from {WHOLE}, which knows every scene and style, and none of them as well as the other knows balls. "
        "The last clip is told in four cards, with cuts between them.",
    )
    add_clips(page, whole)
    page.section("Faces that talk", f"Sampled from {TALK}: what stands in quotes is said.")
    add_clips(page, talk)
    page.section("The data", "Real held-out clips of the toy world; the sound is on them.")
    page.videos([(p, p.stem) for p in first(OUT / "data", "*.mp4", 4)])
    page.figures([(p, p.stem) for p in first(OUT / "data", "*.png", 2)])
    add_training(page, OUT / "train")
    add_samples(page, made, real)
    page.section(
        "Evaluation", "Against the control rows; evaluation/index.html has plots, clips and explanations."
    )
    page.table(*read_table(OUT / "evaluation/table.md"))
    add_times(page, steps)
    return page.write(OUT / "index.html")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.5, help="of training")
    parser.add_argument("--clips", type=int, default=1024, help="training clips to generate")
    parser.add_argument("--prompt", help="what the shipped checkpoint shows first")
    parser.add_argument("--fresh", action="store_true", help="delete runs/demo first")
    args = parser.parse_args()
    if args.fresh:
        shutil.rmtree(OUT, ignore_errors=True)
    steps = Steps()
    prompts = [*([args.prompt] if args.prompt else []), *PROMPTS]
    shipped = sample_prompts(steps, SHIPPED, OUT / "shipped", prompts)
    whole = sample_prompts(steps, WHOLE, OUT / "whole", WHOLE_PROMPTS, WHOLE_STORY)
    talk = sample_prompts(steps, TALK, OUT / "talk", TALK_PROMPTS)
    steps.run(
        "generate shards of the toy world", "toybox", "--out", OUT / "shards", "--clips", args.clips,
        "--validation-clips", 32, "--test-clips", 16, "--workers", 2,
    )  # fmt: skip
    steps.run("encode with the shipped codecs", "encode", OUT / "shards", "--out", OUT / "latents", *CODECS)
    steps.run("look at the data", "inspect", OUT / "shards/test", "--out", OUT / "data", "--count", 4)
    steps.run(
        "train from scratch", "train", "experiment=toybox_demo", f"trainer.max_minutes={args.minutes:g}"
    )
    real = first(OUT / "data", "*.mp4", 2)
    caption = "a ball bounces in a box"
    export = OUT / "train/export"
    made = sample_tasks(steps, export, OUT / "samples", real, PROMPTS, caption, list(TASKS))
    steps.run(
        "evaluate", "evaluate", "--checkpoint", export, "--clips", 16, "--steps", 24, "--out", OUT / "evaluation"
    )  # fmt: skip
    page = build_page(steps, shipped, whole, talk, real, made, args.minutes)
    print(f"\ndemo finished in {steps.minutes:.1f} minutes: open {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
