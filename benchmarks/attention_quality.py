"""What sparse attention costs in quality: dense and sparse models on longer Toybox clips, equal steps and equal time.

    python benchmarks/attention_quality.py [--minutes 60] [--attention toybox] [--set trainer=gpu data.batch_size=32]
    python benchmarks/attention_quality.py --model s --set init_from=checkpoints/toybox-s    # from trained weights

Clips of 7 s at 128 x 128 (2,057 tokens). Three trainings from one seed, so that step k of each sees the same clips,
the same tasks and the same noise: dense for --minutes; sparse for as many samples as the dense one saw (equal steps);
sparse for --minutes (equal time). Each is evaluated on the same captions with all Toybox metrics, synchrony among
them. The record holds the losses of the last third of the samples that were seen (paired), and the metrics. Repeated
after an interruption, the command keeps models that are trained and clips that are measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import statistics
import sys
from pathlib import Path

import torch
import yaml

from sora2.cli import CommandError, run_apart

RESULTS = Path(__file__).parent / "results"
FRAMES, SIZE = 113, 128
CODECS = ("--video-codec", "checkpoints/video_vae", "--audio-codec", "checkpoints/audio_vae")
CLIP = f"clip={{frames: {FRAMES}, height: {SIZE}, width: {SIZE}, fps: 16.0, sample_rate: 16000, channels: 2}}"


def run(*words: object) -> None:
    """A `sora2` command, printed; the script ends with its error."""
    command = [str(w) for w in words]
    print(f"\n== sora2 {shlex.join(command)}", flush=True)
    try:
        run_apart(*command)
    except CommandError as error:
        raise SystemExit(str(error)) from error


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """Samples seen -> logged losses of a run."""
    found: dict[int, dict[str, float]] = {}
    for path in sorted(folder.glob("logs/*/metrics.csv")):
        with path.open() as file:
            for row in csv.DictReader(file):
                values = {k: float(v) for k, v in row.items() if k.startswith("loss/") and v}
                if values:
                    found[int(row["samples_seen"])] = values
    return found


def compare(
    dense: dict[int, dict[str, float]], sparse: dict[int, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Per loss the means over the last third of the steps that both logged, and of their paired difference."""
    common = sorted(dense.keys() & sparse.keys())
    common = common[len(common) * 2 // 3 :]
    result = {}
    for name in sorted({k for step in common for k in dense[step].keys() & sparse[step].keys()}):
        pairs = [(dense[s][name], sparse[s][name]) for s in common if name in dense[s] and name in sparse[s]]
        difference = [b - a for a, b in pairs]
        result[name] = {
            "dense": statistics.mean(a for a, _ in pairs),
            "sparse": statistics.mean(b for _, b in pairs),
            "difference": statistics.mean(difference),
            "standard_error": statistics.stdev(difference) / len(difference) ** 0.5
            if len(pairs) > 1
            else 0.0,
        }
    return result


def train(folder: Path, *words: str) -> None:
    if not (folder / "export").is_dir():
        run("train", f"name={folder.name}", *words)


def samples_seen(folder: Path) -> int:
    return int(yaml.safe_load((folder / "export" / "config.yaml").read_text())["samples_seen"])


def metrics(evaluation: Path) -> dict[str, dict[str, list[float]]]:
    """Row -> metric -> estimate, ends of its 95 % interval, share of clips that were measured."""
    rows = json.loads((evaluation / "metrics.json").read_text())["rows"]
    return {
        row: {
            name: [s["value"]["estimate"], s["value"]["low"], s["value"]["high"], s["measured"] / s["clips"]]
            for name, s in found["summary"].items()
            if s["measured"]
        }
        for row, found in rows.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, per model")
    parser.add_argument("--clips", type=int, default=2048, help="training clips to generate")
    parser.add_argument("--evaluated", type=int, default=32, help="captions to sample and measure; 0 = none")
    parser.add_argument("--steps", type=int, default=24, help="sampling steps")
    parser.add_argument("--model", default="xs")
    parser.add_argument(
        "--attention", default="toybox", help="of the sparse models: a file of configs/attention"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/attention_quality"))
    parser.add_argument("--out", type=Path, default=RESULTS / "attention_quality.json")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of all trainings")
    args = parser.parse_args()
    run("toybox", "--out", args.work / "shards", "--clips", args.clips, "--validation-clips", 0,
        "--frames", FRAMES, "--height", SIZE, "--width", SIZE, "--workers", os.cpu_count())  # fmt: skip
    run("encode", args.work / "shards", "--out", args.work / "latents", *CODECS)
    settings = [
        f"model={args.model}", f"out={args.work}", CLIP, "optimizer.schedule=constant", "trainer.log_every_steps=1",
        f"data.datasets=[{{path: {args.work / 'latents/train'}, weight: 1.0}}]", *args.set,
    ]  # fmt: skip
    minutes = f"trainer.max_minutes={args.minutes:g}"
    dense, equal_steps, equal_time = (args.work / name for name in ("dense", "sparse_steps", "sparse_time"))
    endless = "trainer.max_samples=1000000000"
    train(dense, "attention=dense", minutes, endless, *settings)
    seen = samples_seen(dense)
    sparse = f"attention={args.attention}"
    train(equal_steps, sparse, f"trainer.stop_at_samples={seen}", endless, *settings)
    train(equal_time, sparse, minutes, endless, *settings)
    command = shlex.join(["python", "benchmarks/attention_quality.py", *sys.argv[1:]])
    record = {"command": command, "torch": torch.__version__, "machine": platform.machine(), "models": {}}
    for folder in (dense, equal_steps, equal_time):
        model = {"samples_seen": samples_seen(folder)}
        if args.evaluated:
            controls = () if folder == dense else ("--no-controls",)  # real clips are the same for all
            run("evaluate", "--checkpoint", folder / "export", "--clips", args.evaluated, "--steps", args.steps,
                "--out", folder / "evaluation", *controls)  # fmt: skip
            model |= metrics(folder / "evaluation")
        record["models"][folder.name] = model
    record["losses at equal steps"] = compare(losses(dense), losses(equal_steps))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, row in record["losses at equal steps"].items():
        print(f"{name:<32} dense {row['dense']:.4f}  sparse {row['sparse']:.4f}  "
              f"difference {row['difference']:+.4f} +- {row['standard_error']:.4f}")  # fmt: skip
    for name, model in record["models"].items():
        print(f"\n{name}: {model['samples_seen']} samples seen")
        for metric, (estimate, low, high, share) in model.get("generated", {}).items():
            print(f"    {metric:<32} {estimate:8.3f} [{low:.3f}, {high:.3f}], {share:.0%} measured")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
