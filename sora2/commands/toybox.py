"""`sora2 toybox`: shards of the procedural audio-video world, or a page that shows it."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from sora2.commands.encode import add_encoding_flags, tell_cut_captions, wider_encoder
from sora2.config import ConfigError
from sora2.data.toybox_shards import Encoding, ToyboxShards, write_toybox
from sora2.toybox import SCENES, SPLITS, ToyboxConfig, get_scene, whole_world
from sora2.toybox.config import CAPTIONS
from sora2.types import VideoShape

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "toybox"

EPILOG = """examples:
  sora2 toybox --out data/shards/toybox --clips 4096 --workers 2            the narrow world: balls in a box
  sora2 toybox --recipe toybox_s --out data/shards/toybox_s --workers 8     20 k clips of the whole world
  sora2 toybox --latents --clips 65536 --out data/shards/toybox_latents --workers 16 --device cuda      no films
  sora2 toybox --catalogue runs/catalogue                                   see and hear what there is
"""


def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="sora2 toybox",
        description="Write shards of the procedural world to OUT/train, OUT/validation and so on. The bytes "
        "depend on the settings alone, not on --workers; repeat the command to finish an interrupted run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="folder for the splits")
    what.add_argument(
        "--catalogue",
        type=Path,
        metavar="OUT",
        help="write OUT/index.html instead: a playable clip and a sheet of each scene, style, camera, split",
    )
    p.add_argument("--recipe", help="a file of defaults for these flags: a name in configs/toybox, or a path")
    p.add_argument("--world", choices=("narrow", "whole"), default="narrow", help="what may be drawn")
    p.add_argument("--clips", type=int, default=4096, help="clips of the train split (default 4096)")
    for split, count in {name: 256 if name == "validation" else 0 for name in SPLITS[1:]}.items():
        p.add_argument(
            f"--{split.replace('_', '-')}-clips", type=int, default=count, help=f"default {count}; 0 for none"
        )
    p.add_argument("--scenes", nargs="+", help="default: those of the world")
    for name in ("styles", "cameras", "pacings", "lights"):
        p.add_argument(f"--{name}", nargs="+", help="default: those of the world")
    p.add_argument(
        "--caption",
        metavar="KIND[+KIND]",
        help=f"of {', '.join(CAPTIONS)}, several to be drawn by chance; default: those of the world",
    )
    p.add_argument(
        "--takes",
        type=int,
        default=1,
        help="clips in a row that show one person (default 1), for data.datasets references",
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--frames", type=int, default=33, help="1 + 4k for the video codec (default 33)")
    p.add_argument("--height", type=int, default=64)
    p.add_argument("--width", type=int, default=64)
    p.add_argument("--fps", type=float, default=16.0)
    p.add_argument("--sample-rate", type=int, default=16000)
    p.add_argument("--channels", type=int, default=2, choices=(1, 2))
    p.add_argument(
        "--any-shape", action="store_true", help="also frames and sizes that the video codec cannot hold"
    )
    p.add_argument("--shard-size", type=int, default=128, help="clips per shard (default 128)")
    p.add_argument("--crf", type=int, default=8, help="x264 quality of the pictures, 0 best (default 8)")
    p.add_argument("--workers", type=int, default=1, help="processes")
    p.add_argument("--overwrite", action="store_true", help="start again where OUT holds other settings")
    latents = p.add_argument_group(
        "latents",
        "instead of films that `sora2 encode` would read: for training alone, in a fraction of the time",
    )
    latents.add_argument("--latents", action="store_true", help="write latents of the clips")
    add_encoding_flags(latents)
    return p


def parse(argv: list[str]) -> argparse.Namespace:
    """Flags over the recipe over the defaults."""
    p = build_parser()
    recipe = p.parse_args(argv).recipe
    if recipe is not None:
        p.set_defaults(**read_recipe(recipe, {action.dest for action in p._actions}))
    return p.parse_args(argv)


def read_recipe(name: str, known: set[str]) -> dict[str, Any]:
    """The flags of a recipe file. `ConfigError` names a file that is missing and a key that is no flag."""
    path = Path(name) if name.endswith(".yaml") else RECIPES / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ConfigError(f"--recipe {name}: there is no {path}; recipes here: {there}")
    values = yaml.safe_load(path.read_text())
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"{path}: {', '.join(unknown)} is no flag of `sora2 toybox` (dashes become _)")
    return values


def world_config(args: argparse.Namespace, split: str) -> ToyboxConfig:
    fields = {
        name: getattr(args, name)
        for name in ("seed", "takes", "frames", "height", "width", "fps", "sample_rate", "channels")
    }
    asked = ("scenes", "styles", "cameras", "pacings", "lights", "caption")
    fields |= {name: getattr(args, name) for name in asked if getattr(args, name) is not None}
    world = whole_world() if args.world == "whole" else ToyboxConfig()
    return dataclasses.replace(world, split=split, **fields)


def main(argv: list[str]) -> int:
    args = parse(argv)
    if args.catalogue is not None:
        from sora2.toybox.catalogue import write_catalogue

        print(write_catalogue(args.catalogue, world_config(args, "train")))
        return 0
    if not args.any_shape:
        VideoShape(args.frames, args.height, args.width, args.fps)
    encoding = read_encoding(args) if args.latents else None
    jobs = []
    for split in SPLITS:
        clips = getattr(args, "clips" if split == "train" else f"{split}_clips")
        if clips > 0:
            config = world_config(args, split)
            job = ToyboxShards(args.out / split, config, clips, args.shard_size, args.crf, encoding)
            jobs.append(job)
    for job in jobs:
        check_split(job.config)
    with tqdm(total=sum(j.clips for j in jobs), unit="clip", desc="toybox", dynamic_ncols=True) as bar:
        for done in write_toybox(jobs, workers=args.workers, overwrite=args.overwrite):
            bar.update(done)
    wider = wider_encoder(args) if args.latents else None
    for job in jobs:
        print(f"{job.folder}: {job.clips} clips")
        if wider is not None:
            tell_cut_captions(job.folder, wider, args.max_text_tokens)
    return 0


def read_encoding(args: argparse.Namespace) -> Encoding:
    """What `add_encoding_flags` asked for."""
    return Encoding(
        video=args.video_codec,
        audio=args.audio_codec,
        text=args.text,
        text_tokens=args.max_text_tokens,
        device=args.device,
        dtype=getattr(torch, args.dtype),
        batch_size=args.batch_size,
    )


def check_split(config: ToyboxConfig) -> None:
    """Raise `ConfigError` before any work when no scene of the config has the split."""
    if not any(config.split in get_scene(name).splits for name in config.scenes):
        having = sorted(name for name, scene in SCENES.items() if config.split in scene.splits)
        raise ConfigError(
            f"--{config.split.replace('_', '-')}-clips: none of the scenes {', '.join(config.scenes)} has "
            f"this split; {', '.join(having) if having else 'no scene'} has"
        )
