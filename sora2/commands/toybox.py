"""`sora2 toybox`: shards of the procedural audio-video world."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from sora2.data.toybox_shards import ToyboxShards, write_toybox
from sora2.toybox import ToyboxConfig


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="sora2 toybox",
        description="Write shards of the procedural world to OUT/train, OUT/validation and so on. The bytes "
        "depend on the settings alone, not on --workers; repeat the command to finish an interrupted run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--out", type=Path, required=True, help="folder for the splits")
    p.add_argument("--clips", type=int, default=4096, help="clips of the train split")
    p.add_argument(
        "--validation-clips", type=int, default=256, help="clips of the validation split; 0 for none"
    )
    p.add_argument("--test-clips", type=int, default=0)
    p.add_argument("--compositional-clips", type=int, default=0, help="held-out combinations")
    p.add_argument("--extrapolation-clips", type=int, default=0, help="unseen speeds and gravities")
    p.add_argument("--scenes", nargs="+", default=["bounce"])
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--frames", type=int, default=33, help="1 + 4k for the default video codec")
    p.add_argument("--height", type=int, default=64)
    p.add_argument("--width", type=int, default=64)
    p.add_argument("--fps", type=float, default=16.0)
    p.add_argument("--sample-rate", type=int, default=16000)
    p.add_argument("--channels", type=int, default=2, choices=(1, 2))
    p.add_argument("--shard-size", type=int, default=128, help="clips per shard")
    p.add_argument(
        "--crf", type=int, default=8, help="x264 quality of the pictures, 0 best; the sound is lossless"
    )
    p.add_argument("--workers", type=int, default=1, help="processes")
    p.add_argument("--overwrite", action="store_true", help="start again where OUT holds other settings")
    return p


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    splits = {
        "train": args.clips,
        "validation": args.validation_clips,
        "test": args.test_clips,
        "compositional": args.compositional_clips,
        "extrapolation": args.extrapolation_clips,
    }
    jobs = []
    for split, clips in splits.items():
        config = ToyboxConfig(
            seed=args.seed,
            split=split,
            scenes=tuple(args.scenes),
            frames=args.frames,
            height=args.height,
            width=args.width,
            fps=args.fps,
            sample_rate=args.sample_rate,
            channels=args.channels,
        )
        if clips > 0:
            jobs.append(ToyboxShards(args.out / split, config, clips, args.shard_size, args.crf))
    with tqdm(total=sum(j.clips for j in jobs), unit="clip", desc="toybox", dynamic_ncols=True) as bar:
        for done in write_toybox(jobs, workers=args.workers, overwrite=args.overwrite):
            bar.update(done)
    for job in jobs:
        print(f"{job.folder}: {job.clips} clips")
    return 0
