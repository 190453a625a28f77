"""Toy clips generated per CPU-second on one core, at the default size, without encoding to mp4.

    python benchmarks/toybox.py [--clips 100] [--rounds 4]

CPU time, the best of the rounds: other load on the machine changes it little.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from sora2.toybox import Toybox, ToyboxConfig

BAR = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "toybox.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    toybox = Toybox(ToyboxConfig())
    toybox.clips(range(10))
    rates = []
    for _ in range(args.rounds):
        start = time.process_time()
        toybox.clips(range(100, 100 + args.clips))
        rates.append(args.clips / (time.process_time() - start))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"clips_per_cpu_second": sorted(rates), "bar": BAR}, indent=1) + "\n")
    print(
        f"{max(rates):.0f} clips per CPU-second, the best of {[round(r) for r in rates]}; the bar is {BAR:g}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
