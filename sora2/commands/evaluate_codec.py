"""`sora2 evaluate-codec`: what the codecs lose on held-out clips, as JSON, a table and a contact sheet."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from sora2.atomic import save_text
from sora2.codecs import Codecs, load_codecs
from sora2.codecs.evaluate import (
    NOISE_LIKE,
    evaluate_clips,
    format_table,
    reconstruct,
    side_by_side,
    summarise,
)
from sora2.data.datasets import RawDataset
from sora2.toybox import Toybox, ToyboxConfig
from sora2.types import Clip


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    codecs = load_codecs(args.video_codec, args.audio_codec, text=None).to(args.device)
    clips = list(_clips(args, codecs))
    rows = evaluate_clips(codecs, clips, total=len(clips))
    table = summarise(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    report = {"fingerprints": codecs.fingerprints(), "summary": table, "rows": [asdict(row) for row in rows]}
    save_text(json.dumps(report, indent=1) + "\n", args.out / "codec.json")
    text = format_table(table)
    save_text(text + "\n", args.out / "codec.md")
    groups = dict.fromkeys(group for group, _ in clips)
    shown = [clip for g in groups for clip in [c for name, c in clips if name == g][: args.pictures]]
    sheet = side_by_side([(clip, reconstruct(codecs, clip)) for clip in shown], args.out / "codec.png")
    print(text)
    print(f"written: {args.out / 'codec.json'}, {args.out / 'codec.md'}, {sheet}")
    return 0


def _clips(args: argparse.Namespace, codecs: Codecs) -> Iterator[tuple[str, Clip]]:
    """Toybox test clips in two groups, without and with noise-like ambience, then the clips of raw shards."""
    if args.toybox:
        world = Toybox(
            ToyboxConfig(
                split="test", frames=args.frames, height=args.size, width=args.size, fps=args.fps,
                sample_rate=codecs.audio.sample_rate, channels=codecs.audio.channels,
            )
        )  # fmt: skip
        for clip in world.clips(range(args.toybox)):
            noisy = clip.meta["truth"]["ambience"] in NOISE_LIKE
            yield ("toybox, noise ambience" if noisy else "toybox, no noise"), clip
    for folder in args.shards:
        dataset = RawDataset(folder)
        chosen = np.unique(
            np.linspace(0, len(dataset) - 1, min(args.clips, len(dataset))).round().astype(int)
        )
        for i in chosen:
            yield f"{folder.parent.name}, {folder.name}", dataset[int(i)]
        dataset.close()


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("sora2 evaluate-codec", description=__doc__)
    p.add_argument("--video-codec", type=Path, default=Path("checkpoints/video_vae"))
    p.add_argument("--audio-codec", type=Path, default=Path("checkpoints/audio_vae"))
    p.add_argument(
        "--toybox", type=int, default=128, metavar="N", help="Toybox test clips; 0 leaves them out"
    )
    p.add_argument(
        "--shards",
        type=Path,
        nargs="*",
        default=[],
        metavar="DIR",
        help="raw shards that training did not see, such as data/shards/film/validation",
    )
    p.add_argument("--clips", type=int, default=64, metavar="N", help="clips of each DIR, spread over it")
    p.add_argument("--frames", type=int, default=33, help="of Toybox clips; 1 + 4k for the default codec")
    p.add_argument("--size", type=int, default=64, help="height and width of Toybox clips in pixels")
    p.add_argument("--fps", type=float, default=16.0)
    p.add_argument(
        "--pictures", type=int, default=3, metavar="N", help="clips of each group on the contact sheet"
    )
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    p.add_argument("--out", type=Path, default=Path("runs/codec_eval"))
    return p
