"""Toy clips generated per CPU-second on one core, at the default size, without encoding to mp4.

    python benchmarks/toybox.py                     the narrow world: balls in a box
    python benchmarks/toybox.py --world whole       every scene, speech cached on disk

CPU time, the best of the rounds: other load on the machine changes it little. The whole world's figure is clips of all
scenes in equal number over the CPU time of all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from sora2.toybox import Toybox, ToyboxConfig, whole_world

#: Clips per CPU-second to reach.
BARS = {"narrow": 60.0, "whole": 40.0}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=tuple(BARS), default="narrow")
    parser.add_argument("--clips", type=int, default=100, help="of each scene and round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, help="default benchmarks/results/toybox[_whole].json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    world = whole_world() if args.world == "whole" else ToyboxConfig()
    seconds = {scene: _seconds(world, scene, args.clips, args.rounds) for scene in tqdm(world.scenes)}
    rates = {scene: round(args.clips / min(times), 1) for scene, times in seconds.items()}
    rate = args.clips * len(seconds) / sum(min(times) for times in seconds.values())
    report = {"clips_per_cpu_second": round(rate, 1), "bar": BARS[args.world], "scenes": rates}
    report |= {"clips_per_round": args.clips, "cpu_seconds": seconds}
    name = "toybox.json" if args.world == "narrow" else f"toybox_{args.world}.json"
    out = RESULTS / name if args.out is None else args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"{rate:.0f} clips per CPU-second over {len(rates)} scene(s), {rates}; the bar is {BARS[args.world]:g}"
    )
    return 0


def _seconds(world: ToyboxConfig, scene: str, clips: int, rounds: int) -> list[float]:
    """CPU seconds of each round, after one that is not counted: it fills the speech cache."""
    toybox = Toybox(dataclasses.replace(world, scenes=(scene,)))
    toybox.clips(range(100, 100 + clips))
    times = []
    for _ in range(rounds):
        start = time.process_time()
        toybox.clips(range(100, 100 + clips))
        times.append(round(time.process_time() - start, 3))
    return times


if __name__ == "__main__":
    raise SystemExit(main())
