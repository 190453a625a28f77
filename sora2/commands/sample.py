"""`sora2 sample`: clips from a checkpoint, by ordinary flags; one, or many through a prompts file."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from sora2.generate.flags import build_parser, make_request
from sora2.generate.prompts import read_prompts
from sora2.generate.request import RequestError


def expand(argv: list[str], args: argparse.Namespace) -> list[tuple[Path, argparse.Namespace]]:
    """(output, flags) of every clip: prompts x seeds."""
    if args.num < 1:
        raise RequestError(f"--num {args.num} must be at least 1")
    if args.batch_size < 1:
        raise RequestError(f"--batch-size {args.batch_size} must be at least 1")
    entries = [("00000", [], "")] if args.prompts_file is None else read_prompts(args.prompts_file)
    if args.prompts_file is not None and args.prompt:
        raise RequestError("--prompt and --prompts-file: give one of them")
    many = args.prompts_file is not None or args.num > 1
    if many and args.out.suffix:
        raise RequestError(f"--out {args.out}: several clips go to a folder; give a name without an ending")
    if not many and args.out.suffix != ".mp4":
        raise RequestError(f"--out {args.out}: one clip is written as a file; give a name that ends in .mp4")
    clips = []
    parser = build_parser()
    parser.exit_on_error = False
    for name, entry, where in entries:
        try:
            one, rest = parser.parse_known_args([*argv, *entry])
        except argparse.ArgumentError as error:
            raise RequestError(f"{where}: {error}") from error
        if rest:
            raise RequestError(f"{where}: {' '.join(rest)} in {' '.join(entry)} is too much")
        for k in range(args.num):
            copy = argparse.Namespace(**{**vars(one), "seed": one.seed + k})
            clips.append((args.out / f"{name}-seed{copy.seed}.mp4" if many else args.out, copy))
    return clips


def main(argv: list[str]) -> int:
    """Returns 0, or raises a UserError."""
    args = build_parser().parse_args(argv)
    clips = expand(argv, args)

    import torch
    from accelerate import PartialState
    from tqdm import tqdm

    from sora2.generate.checkpoint import read_checkpoint
    from sora2.generate.pipeline import Pipeline
    from sora2.generate.record import check_writable, save_sample
    from sora2.kernels import choose_dtype
    from sora2.sequence import every_process

    check_writable([out for out, _ in clips], args.overwrite)
    base = read_checkpoint(args.checkpoint).sampling()
    requests = [(out, make_request(one, base)) for out, one in clips]

    processes = PartialState(cpu=args.device == "cpu")
    device = processes.device if args.device is None else torch.device(args.device)
    pipeline = Pipeline.from_checkpoint(
        args.checkpoint,
        device,
        choose_dtype(device, args.dtype),
        device_map=args.device_map,
        offload_folder=args.offload_folder,
        video_codec=args.video_codec,
        audio_codec=args.audio_codec,
        batch_size=args.batch_size,
    )
    info = {**pipeline.info, "device": str(device)}
    if args.together:
        pipeline.model.among = every_process()
        info["shared_by_processes"] = processes.num_processes
    with nullcontext(requests) if args.together else processes.split_between_processes(requests) as mine:
        bar = tqdm(
            total=len(mine), desc="clips", unit="clip", disable=not processes.is_main_process or len(mine) < 2
        )
        for k in range(0, len(mine), args.batch_size):
            part = mine[k : k + args.batch_size]
            made = pipeline.generate([request for _, request in part], progress=processes.is_main_process)
            for (out, request), clip in zip(part, made, strict=True):
                if args.together and not processes.is_main_process:
                    continue
                save_sample(request, clip, out, info, argv)
                bar.update()
                bar.write(str(out))
        bar.close()
    processes.wait_for_everyone()
    processes.destroy_process_group()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
