"""Balance the latents of a trained codec (`sora2.codecs.balance`): the last step before it is encoded with.

    python scripts/balance_codec.py --codec runs/codec/export --shards data/shards/toybox/train --out runs/balanced

Latents that exist must be encoded again; what the codec gives back does not change.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from sora2.codecs import LatentCodec, load_codec
from sora2.codecs.balance import balance, latent_metric
from sora2.codecs.load import read_info
from sora2.data.datasets import RawDataset
from sora2.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--codec", type=Path, required=True, help="folder of a codec of this project")
    add("--shards", type=Path, nargs="+", required=True, help="raw training clips, as many of each folder")
    add("--clips", type=int, default=96, help="of them, on which the decoder is probed")
    add("--power", type=float, default=1.0, help="1: latents as pixels weigh; 0: directions alone")
    add("--dtype", choices=("float16", "int8"), default="float16", help="of the weights in the file")
    add("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.clips < 1:
        raise UserError(f"--clips {args.clips} must be at least 1")
    codec = load_codec(args.codec)
    if not isinstance(codec, LatentCodec) or not hasattr(codec, "encoder_out"):
        raise UserError(f"--codec {args.codec} is not a trained codec of this project: nothing to balance")
    metric, covariance = latent_metric(codec, examples(codec, args.shards, args.clips))
    balanced = balance(codec, metric, covariance, args.power)
    shown = [round(value, 3) for value in balanced.spread.tolist()]
    print(f"deviations of the channels: {shown[:4]} ... {shown[-4:]}")
    info = {
        **read_info(args.codec),
        "balanced": {"power": args.power, "clips": args.clips, "shards": [str(s) for s in args.shards]},
    }
    print(balanced.save(args.out, dtype=getattr(torch, args.dtype), info=info))
    return 0


def examples(codec: LatentCodec, folders: list[Path], clips: int) -> Iterator[torch.Tensor]:
    """Pixels (1, 3, T, H, W) or samples (1, channels, S), spread over the folders in turn."""
    datasets = [RawDataset(folder) for folder in folders]
    is_video = hasattr(codec, "spatial_stride")
    for i in tqdm(range(clips), unit="clip", desc="balance"):
        dataset = datasets[i % len(datasets)]
        clip = dataset[(i // len(datasets)) % len(dataset)]
        yield clip.pixels()[None] if is_video else clip.audio[None].float()
    for dataset in datasets:
        dataset.close()


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UserError as error:
        raise SystemExit(f"balance_codec: {error}") from error
