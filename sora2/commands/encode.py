"""`sora2 encode`: codec latents and text embeddings of raw shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sora2.codecs import TextEncoder, build_text_encoder, load_codecs
from sora2.data.captions import encode_captions
from sora2.data.encode import cut_captions, encode_shards
from sora2.data.index import ShardIndex, find_shard_folders
from sora2.data.samples import RAW

_CODEC_HELP = "folder of a trained codec, or none"


def optional_folder(value: str) -> Path | None:
    return None if value == "none" else Path(value)


def add_encoding_flags(p: Any) -> None:
    """The encoders and how they compute: of a parser or a group of flags."""
    p.add_argument("--video-codec", type=optional_folder, default="checkpoints/video_vae", help=_CODEC_HELP)
    p.add_argument("--audio-codec", type=optional_folder, default="checkpoints/audio_vae", help=_CODEC_HELP)
    p.add_argument(
        "--text",
        default="minilm",
        help="text encoder: minilm, bytes, or a folder; +letters after it spells out what is in quotes, +speech "
        "says when, too",
    )
    p.add_argument("--max-text-tokens", type=int, default=24, help="longer captions are cut")
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--device", default="cpu")
    p.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="arithmetic of the codecs"
    )


def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="sora2 encode",
        description="Precompute latents and text embeddings of raw shards. RAW is a folder of shards, "
        "or of such "
        "folders (train, validation); OUT gets the same layout. Repeat the command to finish an "
        "interrupted run. Where RAW holds latents they stay as they are, and captions alone are encoded anew.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("raw", type=Path, help="shards of `sora2 toybox` or `sora2 ingest`, or latents")
    p.add_argument("--out", type=Path, required=True)
    add_encoding_flags(p)
    p.add_argument("--workers", type=int, default=1, help="threads that decode the clips")
    p.add_argument(
        "--overwrite", action="store_true", help="encode again where OUT holds latents of other codecs"
    )
    return p


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    folders = find_shard_folders(args.raw)
    indexes = {folder: ShardIndex.load(folder) for folder in folders}
    raw_ones = [folder for folder, index in indexes.items() if index.kind == RAW]
    streams = (args.video_codec, args.audio_codec) if raw_ones else (None, None)
    codecs = load_codecs(*streams, args.text, args.max_text_tokens)
    codecs.to(args.device)
    pairs = [(raw, args.out if raw == args.raw else args.out / raw.name) for raw in folders]
    total = sum(map(len, indexes.values()))
    with tqdm(total=total, unit="clip", desc="encode", dynamic_ncols=True) as bar:
        for raw, out in pairs:
            bar.set_postfix_str(raw.name)
            how = {"batch_size": args.batch_size, "overwrite": args.overwrite}
            if raw in raw_ones:
                dtype = getattr(torch, args.dtype)
                work = encode_shards(
                    raw, out, codecs, workers=args.workers, device=args.device, dtype=dtype, **how
                )
            else:
                assert codecs.text is not None
                work = encode_captions(raw, out, codecs.text, **how)
            for done in work:
                bar.update(done)
    wider = wider_encoder(args)
    for _, out in pairs:
        print(f"{out}: {len(ShardIndex.load(out))} latent clips")
        tell_cut_captions(out, wider, args.max_text_tokens)
    return 0


def wider_encoder(args: argparse.Namespace) -> TextEncoder:
    """That sees what the encoder of the latents has cut."""
    return build_text_encoder(args.text, args.max_text_tokens + 8)


def tell_cut_captions(folder: Path, wider: TextEncoder, max_text_tokens: int) -> None:
    """Print how many captions of a folder of latents lost their end."""
    cut = cut_captions(folder, wider)
    if cut:
        print(
            f"  {len(cut)} captions are longer than {max_text_tokens} text tokens and lost their end "
            f"({', '.join(cut[:3])}): shorten them, or raise --max-text-tokens and data.max_text_tokens"
        )
