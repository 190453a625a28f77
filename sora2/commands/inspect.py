"""`sora2 inspect`: see and hear what will be trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from sora2.atomic import save_json
from sora2.codecs import load_codecs
from sora2.data.index import ShardIndex, find_shard_folders
from sora2.data.preview import choose, decode_sample, open_folder, show, summary
from sora2.data.samples import LATENTS


def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="sora2 inspect",
        description="Summarise a folder of shards (or of such folders) and decode some clips, through "
        "the codecs "
        "where they are latents, to KEY.mp4 and a contact sheet KEY.png.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("folder", type=Path)
    p.add_argument("--out", type=Path, default=Path("runs/inspect"), help="folder for the mp4s and pictures")
    p.add_argument(
        "--count", type=int, default=8, help="clips to decode, spread over each folder; 0 for none"
    )
    p.add_argument("--keys", nargs="+", default=[], help="clips to decode, by key")
    p.add_argument("--video-codec", type=Path, default=Path("checkpoints/video_vae"), help="for latents")
    p.add_argument("--audio-codec", type=Path, default=Path("checkpoints/audio_vae"), help="for latents")
    p.add_argument(
        "--reindex", action="store_true", help="rebuild index.json from the shards that are there, and stop"
    )
    return p


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.reindex:
        index = ShardIndex.scan(args.folder)
        index.save()
        print(summary(index))
        return 0
    folders = find_shard_folders(args.folder)
    for folder in folders:
        index = ShardIndex.load(folder)
        print(summary(index))
        rows = choose(index, args.count, args.keys)
        if not rows:
            continue
        codecs = None
        if index.kind == LATENTS:
            # the captions are stored as text, so showing them needs no text encoder: the cheapest one will do
            codecs = load_codecs(args.video_codec, args.audio_codec, text="bytes")
        dataset = open_folder(folder, codecs)
        out = args.out if folder == args.folder else args.out / folder.name
        listed = []
        for row in tqdm(rows, unit="clip", desc=f"inspect {folder.name}", dynamic_ncols=True):
            listed.append(show(decode_sample(dataset, row, codecs), out))
        dataset.close()
        save_json(listed, out / "clips.json")
        print(f"{out}: {len(listed)} clips as mp4 and png, listed in clips.json")
    return 0
