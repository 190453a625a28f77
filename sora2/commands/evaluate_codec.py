"""`sora2 evaluate-codec`: what the codecs lose on held-out clips, as JSON, tables and a contact sheet."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sora2.atomic import save_text
from sora2.codecs import Codecs, load_codecs
from sora2.codecs.bars import format_bars, whole_world_bars
from sora2.codecs.cost import bytes_on_disk, round_trip_seconds
from sora2.codecs.evaluate import NOISE_LIKE, evaluate_clips, has_noise, reconstruct, side_by_side
from sora2.codecs.summary import Table, format_table, summarise
from sora2.data.datasets import RawDataset
from sora2.toybox import Toybox, ToyboxConfig, whole_world
from sora2.types import Clip

#: The clips of one group are summed up together. The last group of a clip is the one whose pictures are shown.
Grouped = tuple[tuple[str, ...], Clip]


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    codecs = load_codecs(args.video_codec, args.audio_codec, text=None).to(args.device)
    clips = list(_clips(args, codecs))
    report: dict[str, Any] = {"fingerprints": codecs.fingerprints(), "world": args.world}
    if args.world == "whole":
        from sora2.metrics.round_trip import judge

        rows = evaluate_clips(codecs, clips, len(clips), judge, lambda clip: not _is_noisy(clip))
        table = _all_then_parts(summarise(rows))
        report |= _costs(args, codecs)
        bars = whole_world_bars(table, report["seconds"]["1"]["cpu"], report["bytes"] / 1e6)
        report["bars"] = [bar.record() for bar in bars]
        text = f"{format_table(table)}\n\n{format_bars(bars)}\n\n{_cost_line(report)}"
    else:
        rows = evaluate_clips(codecs, clips, len(clips))
        table = summarise(rows)
        text = format_table(table)
    report |= {"summary": table, "rows": [asdict(row) for row in rows]}
    args.out.mkdir(parents=True, exist_ok=True)
    save_text(json.dumps(report, indent=1) + "\n", args.out / "codec.json")
    save_text(text + "\n", args.out / "codec.md")
    groups = dict.fromkeys(names[-1] for names, _ in clips)
    shown = [clip for g in groups for clip in [c for names, c in clips if names[-1] == g][: args.pictures]]
    sheet = side_by_side([(clip, reconstruct(codecs, clip)) for clip in shown], args.out / "codec.png")
    print(text)
    print(f"written: {args.out / 'codec.json'}, {args.out / 'codec.md'}, {sheet}")
    return 0


def _clips(args: argparse.Namespace, codecs: Codecs) -> Iterator[Grouped]:
    """Toybox test clips, grouped by scene and style or, in the narrow world, by noise; then the clips of raw shards."""
    if args.toybox:
        world = Toybox(_world(args, codecs))
        for clip in world.clips(range(args.toybox)):
            truth = clip.meta["truth"]
            if args.world == "whole":
                yield ("all", f"style {truth['style']}", f"scene {truth['scene']}"), clip
            else:
                noisy = truth["ambience"] in NOISE_LIKE
                yield (("toybox, noise ambience" if noisy else "toybox, no noise"),), clip
    for folder in args.shards:
        dataset = RawDataset(folder)
        chosen = np.unique(
            np.linspace(0, len(dataset) - 1, min(args.clips, len(dataset))).round().astype(int)
        )
        for i in chosen:
            yield (f"{folder.parent.name}, {folder.name}",), dataset[int(i)]
        dataset.close()


def _world(args: argparse.Namespace, codecs: Codecs) -> ToyboxConfig:
    config = whole_world() if args.world == "whole" else ToyboxConfig()
    if args.scenes is not None:
        config = dataclasses.replace(config, scenes=tuple(args.scenes))
    shape = {"frames": args.frames, "height": args.size, "width": args.size, "fps": args.fps}
    sound = {"sample_rate": codecs.audio.sample_rate, "channels": codecs.audio.channels}
    return dataclasses.replace(config, split="test", **shape, **sound)


def _is_noisy(clip: Clip) -> bool:
    return "truth" in clip.meta and has_noise(clip.meta["truth"])


def _all_then_parts(table: Table) -> Table:
    return dict(sorted(table.items(), key=lambda item: (item[0] != "all", item[0])))


def _costs(args: argparse.Namespace, codecs: Codecs) -> dict[str, Any]:
    clip = Toybox(ToyboxConfig(split="test")).clip(0)
    seconds = {str(threads): round_trip_seconds(codecs, clip, threads) for threads in (1, 2)}
    return {"seconds": seconds, "bytes": bytes_on_disk([args.video_codec, args.audio_codec])}


def _cost_line(report: dict[str, Any]) -> str:
    parts = [
        f"{threads} thread{'s' if threads != '1' else ''} {s['wall']:.3f} s of wall clock, {s['cpu']:.3f} s of CPU time"
        for threads, s in report["seconds"].items()
    ]
    return f"Encode and decode of the default clip, the best of 5: {'; '.join(parts)}."


def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("sora2 evaluate-codec", description=__doc__)
    p.add_argument("--video-codec", type=Path, default=Path("checkpoints/video_vae"))
    p.add_argument("--audio-codec", type=Path, default=Path("checkpoints/audio_vae"))
    p.add_argument(
        "--world",
        choices=("narrow", "whole"),
        default="narrow",
        help="whole: every scene and style, with mouths, words, notes, costs and what must be reached; needs the "
        "extra `eval`",
    )
    p.add_argument("--scenes", nargs="+", help="Toybox scenes; default: those of the world")
    p.add_argument(
        "--toybox",
        type=int,
        default=128,
        metavar="N",
        help="Toybox test clips, scenes in turn; 0 leaves them out",
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
