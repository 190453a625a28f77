"""What the demo and the film example share: commands run one after the other, every task sampled, one page."""

from __future__ import annotations

import csv
import json
import math
import shlex
import statistics
import time
from pathlib import Path
from typing import Any

from PIL import Image

from sora2.cli import CommandError, run_apart
from sora2.media import read_clip
from sora2.metrics.page import Page

CODECS = ("--video-codec", "checkpoints/video_vae", "--audio-codec", "checkpoints/audio_vae")
#: task title -> flags of `sora2 sample`; A and B are two real clips, A.png the first frame of the first.
TASKS: dict[str, dict[str, Any]] = {
    "video to audio": {"video": "A"},
    "audio to video": {"audio": "A"},
    "image to audio-video": {"image": "A.png"},
    "extend forward": {"video": "A", "extend": True, "seconds": 1},
    "extend backward": {"video": "A", "extend_backward": True, "seconds": 1},
    "loop": {"video": "A", "loop": True, "seconds": 1},
    "in-between": {"inbetween": ["A", "B"], "seconds": 1},
    "in-paint": {"video": "A", "mask": "0,0.5,1,1"},
    "remix": {"video": "A", "strength": 0.6},
}


class Steps:
    """Runs `sora2` commands, prints each, and remembers how long it took."""

    def __init__(self) -> None:
        self.times: list[tuple[str, float, str]] = []

    def run(self, title: str, *command: object) -> None:
        """Exits with the command's error when it fails."""
        words = [str(w) for w in command]
        shown = "sora2 " + shlex.join(words)
        print(f"\n== {title}\n   {shown}", flush=True)
        start = time.perf_counter()
        try:
            run_apart(*words)
        except CommandError as error:
            raise SystemExit(str(error)) from error
        self.times.append((title, time.perf_counter() - start, shown))

    @property
    def minutes(self) -> float:
        return sum(seconds for _, seconds, _ in self.times) / 60


def first(folder: Path, pattern: str, number: int) -> list[Path]:
    """The first `number` files of a folder, by name; exits when there are fewer."""
    found = sorted(folder.rglob(pattern))[:number]
    if len(found) < number:
        raise SystemExit(f"expected {number} files {pattern} in {folder}, found {len(found)}")
    return found


def sample_tasks(
    steps: Steps,
    checkpoint: Path,
    out: Path,
    real: list[Path],
    prompts: list[str],
    caption: str,
    tasks: list[str],
) -> dict[str, Path]:
    """Text to audio-video for `prompts`, then `tasks` on the clips `real` (two mp4s), in one command.

    Returns title -> mp4, text prompts first.
    """
    out.mkdir(parents=True, exist_ok=True)
    still = out / "first_frame.png"
    Image.fromarray(read_clip(real[0], audio="ignore").video[0].numpy()).save(still)
    named = {"A": str(real[0]), "B": str(real[1]), "A.png": str(still)}

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(v) for v in value]
        return named.get(value, value) if isinstance(value, str) else value

    lines = [{"name": f"text-{i}", "prompt": prompt, "seed": i} for i, prompt in enumerate(prompts)]
    for title in tasks:
        flags = {flag: resolve(value) for flag, value in TASKS[title].items()}
        lines.append({"name": title.replace(" ", "-"), "prompt": caption, **flags})
    settings = ("--steps", 24, "--guidance", 3)
    return _sample(
        steps,
        "sample every task",
        checkpoint,
        out,
        dict(zip([*prompts, *tasks], lines, strict=True)),
        settings,
    )


def sample_prompts(
    steps: Steps, checkpoint: Path, out: Path, prompts: list[str], story: tuple[str, ...] = ()
) -> dict[str, Path]:
    """Text to audio-video with the checkpoint's own settings, and one clip told in the cards of `story`; what was told
    -> mp4."""
    lines: dict[str, dict[str, Any]] = {
        p: {"name": f"prompt-{i}", "prompt": p, "seed": i} for i, p in enumerate(prompts)
    }
    if story:
        lines[" | ".join(story)] = {"name": "story", "story": list(story)}
    return _sample(steps, f"sample from {checkpoint}", checkpoint, out, lines)


def _sample(
    steps: Steps,
    title: str,
    checkpoint: Path,
    out: Path,
    lines: dict[str, dict[str, Any]],
    settings: tuple[object, ...] = (),
) -> dict[str, Path]:
    """One command for all lines of a prompts file, by title; title -> mp4."""
    out.mkdir(parents=True, exist_ok=True)
    listed = out / "prompts.jsonl"
    listed.write_text("".join(json.dumps(line) + "\n" for line in lines.values()))
    steps.run(
        title,
        "sample",
        "--checkpoint",
        checkpoint,
        *settings,
        "--prompts-file",
        listed,
        "--out",
        out,
        "--overwrite",
    )
    return {name: first(out, f"{line['name']}*.mp4", 1)[0] for name, line in lines.items()}


def loss_curves(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Losses of a run's CSV logs over samples seen, by name."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for log in sorted((run / "logs").glob("*/metrics.csv")):
        with log.open() as file:
            for row in csv.DictReader(file):
                for name in ("video", "audio"):
                    value = float(row.get(f"loss/{name}") or math.nan)
                    if not math.isnan(value):
                        xs, ys = curves.setdefault(name, ([], []))
                        xs.append(float(row["samples_seen"]))
                        ys.append(value)
    return curves


def running_mean(values: list[float], window: int = 10) -> list[float]:
    """Mean of the last `window` values at every place."""
    return [statistics.fmean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]


def add_training(page: Page, run: Path) -> None:
    page.section(
        "Training",
        "Velocity loss per modality over samples seen. A network that knows nothing scores about 2.",
    )
    smooth = {name: (xs, running_mean(ys)) for name, (xs, ys) in loss_curves(run).items()}
    page.curves(
        smooth,
        run / "loss.png",
        x_label="samples seen",
        y_label="velocity loss",
        caption="mean of 10 log lines",
    )


def add_clips(page: Page, made: dict[str, Path]) -> None:
    """Playable clips, and their contact sheets."""
    page.videos([(path, title) for title, path in made.items()])
    page.figures([(path.with_suffix(".sheet.png"), title) for title, path in made.items()])


def add_samples(page: Page, made: dict[str, Path], real: list[Path]) -> None:
    page.section(
        "Samples",
        "Every task is a map of noise levels over the same packed sequence: one model made them all.",
    )
    page.videos([(real[0], "the real clip that the tasks below start from")])
    add_clips(page, made)


def add_times(page: Page, steps: Steps) -> None:
    page.section("How long each step took")
    page.table(["step", "seconds", "command"], [[t, f"{s:.1f}", c] for t, s, c in steps.times])
