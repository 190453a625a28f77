"""The same path on a real film: train on its shots, then sample the main tasks on held-out ones.

make data-film && make train-film
"""

from __future__ import annotations

import argparse
from pathlib import Path

from showcase import Steps, add_samples, add_times, add_training, first, sample_tasks

from sora2.errors import UserError
from sora2.metrics.page import Page

OUT = Path("runs/film")
PROMPTS = ["a giant rabbit in a green meadow", "a flying squirrel in a forest, birds sing"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of training in this call; it resumes")
    parser.add_argument("--shards", type=Path, default=Path("data/shards/film"))
    args = parser.parse_args()
    if not (args.shards / "validation/index.json").exists():
        raise UserError(f"{args.shards}/validation has no shards: run `make data-film` first")
    steps = Steps()
    steps.run("held-out shots", "inspect", args.shards / "validation", "--out", OUT / "data", "--count", 4)
    steps.run("train", "train", "experiment=film", f"trainer.max_minutes={args.minutes:g}")
    real = first(OUT / "data", "*.mp4", 2)
    tasks = ["video to audio", "image to audio-video", "extend forward"]
    made = sample_tasks(steps, OUT / "export", OUT / "tasks", real, PROMPTS, PROMPTS[0], tasks)
    page = Page(
        "sora2 on a real film",
        subtitle="Big Buck Bunny, (c) copyright 2008, Blender Foundation / www.bigbuckbunny.org, CC-BY 3.0. Sources "
        "are held-out shots.",
    )
    page.section("Held-out shots")
    page.videos([(p, p.stem) for p in first(OUT / "data", "*.mp4", 4)])
    add_training(page, OUT)
    add_samples(page, made, real)
    add_times(page, steps)
    print(f"\nopen {page.write(OUT / 'index.html')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
