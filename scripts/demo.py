"""The whole project in one run on the embedded world: data, latents, training, sampling, evaluation, one page.

    make demo                          about ten minutes on two cores
    make demo DEMO="--minutes 30"      the same with a longer training

Every step is a command that a user would type; each is printed before it runs, with its time at the end. A second call
continues where the first one stopped; `--fresh` starts anew.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from sora2.metrics.page import Page

OUT = Path("runs/demo")
CODECS = ["--video-codec", "checkpoints/video_vae", "--audio-codec", "checkpoints/audio_vae"]
PROMPTS = [
    "a small red rubber ball bounces in a plain box",
    "a big blue metal ball under low gravity, cinematic",
    "two wooden balls, one green and one yellow, in the rain",
    "a big orange rubber ball under strong gravity, wind",
]


class Steps:
    """Runs commands and remembers how long each part took."""

    def __init__(self) -> None:
        self.times: list[tuple[str, float, str]] = []

    def run(self, title: str, *command: str | Path) -> None:
        words = [str(w) for w in command]
        shown = "sora2 " + shlex.join(words)
        print(f"\n== {title}\n   {shown}", flush=True)
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "sora2.cli", *words], env=os.environ | {"PYTHONUNBUFFERED": "1"})
        if done.returncode:
            raise SystemExit(f"demo: `{shown}` failed with exit code {done.returncode}")
        self.times.append((title, time.perf_counter() - start, shown))


def first(folder: Path, pattern: str, number: int) -> list[Path]:
    found = sorted(folder.rglob(pattern))[:number]
    if len(found) < number:
        raise SystemExit(f"demo: expected {number} files {pattern} in {folder}, found {len(found)}")
    return found


def make_data(steps: Steps, clips: int) -> list[Path]:
    """Shards and latents of the toy world; returns two real held-out clips as mp4."""
    steps.run(
        "generate shards of the toy world", "toybox", "--out", OUT / "shards", "--clips", clips,
        "--validation-clips", 32, "--test-clips", 16, "--workers", 2,
    )  # fmt: skip
    steps.run("precompute latents with the shipped codecs", "encode", OUT / "shards", "--out", OUT / "latents", *CODECS)
    steps.run("look at the data", "inspect", OUT / "shards/test", "--out", OUT / "data", "--count", 4)
    return first(OUT / "data", "*.mp4", 2)


def sample_tasks(steps: Steps, real: list[Path]) -> dict[str, list[Path]]:
    """One command per task, each on what it needs; returns title -> clips."""
    base = ["sample", "--checkpoint", OUT / "train/export", "--steps", "24", "--guidance", "3", "--overwrite"]
    a, b = real
    caption = json.loads(a.with_suffix(".json").read_text())["caption"] if a.with_suffix(".json").exists() else ""
    prompts = OUT / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n")
    folder = OUT / "samples"
    steps.run("text to audio-video", *base, "--prompts-file", prompts, "--out", folder / "text")
    tasks: dict[str, list[str | Path]] = {
        "video to audio": ["--video", a],
        "audio to video": ["--audio", a],
        "image to audio-video": ["--image", a.with_suffix(".frame0.png")],
        "extend forward": ["--video", a, "--extend", "--seconds", "1"],
        "extend backward": ["--video", a, "--extend-backward", "--seconds", "1"],
        "loop": ["--video", a, "--loop", "--seconds", "1"],
        "in-between": ["--inbetween", a, b, "--seconds", "1"],
        "in-paint": ["--video", a, "--mask", "0,0.5,1,1"],
        "remix": ["--video", a, "--strength", "0.6"],
    }
    made = {"text to audio-video": sorted((folder / "text").glob("*.mp4"))}
    write_first_frame(a)
    for title, flags in tasks.items():
        out = folder / f"{title.replace(' ', '_')}.mp4"
        steps.run(title, *base, "--prompt", caption, *flags, "--out", out)
        made[title] = [out]
    return made


def write_first_frame(clip: Path) -> None:
    from PIL import Image

    from sora2.media import read_clip

    Image.fromarray(read_clip(clip).video[0].numpy()).save(clip.with_suffix(".frame0.png"))


def loss_curves() -> dict[str, tuple[list[float], list[float]]]:
    """Series of the training log, over samples seen."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for log in sorted((OUT / "train/logs").glob("*/metrics.csv")):
        with log.open() as file:
            for row in csv.DictReader(file):
                for name in ("loss/main", "loss/video", "loss/audio"):
                    value = float(row[name]) if row.get(name) else math.nan
                    if not math.isnan(value):
                        xs, ys = curves.setdefault(name.removeprefix("loss/").replace("main", "total"), ([], []))
                        xs.append(float(row["samples_seen"]))
                        ys.append(value)
    return curves


def build_page(steps: Steps, real: list[Path], made: dict[str, list[Path]], minutes: float) -> Path:
    metrics = json.loads((OUT / "evaluation/metrics.json").read_text())
    page = Page(
        "sora2: the demo",
        subtitle=f"A joint audio-video transformer trained from scratch for {minutes:g} minutes on this machine, "
        "on a generated world with exact ground truth. It is far from converged: the page shows that every part works.",
    )
    page.section("The data", "Real held-out clips of the toy world. Turn the sound on.")
    page.videos([(p, p.stem) for p in first(OUT / "data", "*.mp4", 4)])
    page.figures([(p, p.stem) for p in first(OUT / "data", "*.png", 2) if "frame0" not in p.name])
    page.section("Training", "Velocity loss per modality over samples seen; 1.0 is what a model that knows nothing gets.")
    page.curves(loss_curves(), x_label="samples seen", y_label="loss")
    page.section("Samples", "Every task is one noise-level map over the same packed sequence, and the same model.")
    page.videos([(p, f"text: {prompt}") for p, prompt in zip(made["text to audio-video"], PROMPTS, strict=True)])
    others = {title: paths for title, paths in made.items() if title != "text to audio-video"}
    page.videos([(real[0], "the source of the clips below")] + [(p, t) for t, paths in others.items() for p in paths])
    page.figures([(p.with_suffix(".png"), p.stem) for p in made["text to audio-video"][:2]])
    page.section("Evaluation", "The full page is evaluation/index.html.")
    page.text((OUT / "evaluation/table.md").read_text()) if "rows" not in metrics else None
    page.section("How long each step took")
    page.table(["step", "seconds", "command"], [[t, f"{s:.1f}", c] for t, s, c in steps.times])
    return page.write(OUT / "index.html")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="of training")
    parser.add_argument("--clips", type=int, default=2048, help="training clips to generate")
    parser.add_argument("--fresh", action="store_true", help="delete runs/demo first")
    args = parser.parse_args()
    if args.fresh:
        shutil.rmtree(OUT, ignore_errors=True)
    steps = Steps()
    real = make_data(steps, args.clips)
    steps.run("train from scratch", "train", "experiment=toybox_demo", f"trainer.max_minutes={args.minutes:g}")
    made = sample_tasks(steps, real)
    steps.run(
        "evaluate", "evaluate", "--checkpoint", OUT / "train/export", "--clips", "16", "--steps", "24",
        "--out", OUT / "evaluation",
    )  # fmt: skip
    page = build_page(steps, real, made, args.minutes)
    print(f"\ndemo finished in {sum(s for _, s, _ in steps.times) / 60:.1f} minutes: open {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
