"""`sora2 sample`: clips from a checkpoint, by ordinary flags; one, or many through a prompts file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from sora2.config import from_mapping
from sora2.diffusion.guidance import GuidanceConfig
from sora2.diffusion.samplers import SAMPLERS
from sora2.diffusion.tasks import TASKS
from sora2.generate.request import TRAINING_ONLY, Request, RequestError, SamplingConfig, resolve_task

EXAMPLES = """examples:
  sora2 sample --checkpoint DIR --prompt "a red rubber ball bounces" --out out.mp4  # text to video with sound
  sora2 sample --checkpoint DIR --video film.mp4 --out foley.mp4  # sound for a film
  sora2 sample --checkpoint DIR --audio rain.wav --prompt "rain" --out rain.mp4  # pictures for a sound
  sora2 sample --checkpoint DIR --image start.png --out moving.mp4  # an image comes alive
  sora2 sample --checkpoint DIR --video film.mp4 --extend --seconds 4 --out longer.mp4  # continue (--extend-backward)
  sora2 sample --checkpoint DIR --video film.mp4 --loop --out loop.mp4  # a seamless loop
  sora2 sample --checkpoint DIR --inbetween a.mp4 b.mp4 --seconds 1 --out joined.mp4  # from one clip to another
  sora2 sample --checkpoint DIR --video film.mp4 --mask 0.2,0.2,0.6,0.6 --out new.mp4  # a region made anew
  sora2 sample --checkpoint DIR --video film.mp4 --time-span 0.5:1.2 --out new.mp4  # a stretch of time made anew
  sora2 sample --checkpoint DIR --video film.mp4 --strength 0.6 --out remix.mp4  # the whole, restyled
  accelerate launch --num-processes 8 scripts/sample.py --checkpoint DIR --prompts-file p.jsonl --out folder
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sora2 sample",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="export folder of a run: model.safetensors, config.yaml",
    )
    add(
        "--out",
        type=Path,
        required=True,
        help="FILE.mp4, or a folder for many; a PNG sheet and a JSON stand beside",
    )
    add("--overwrite", action="store_true", help="replace existing files")

    what = parser.add_argument_group("what is asked for")
    add = what.add_argument
    add("--prompt", default="", help="what is seen and heard")
    add("--negative-prompt", help="what guidance leads away from; default: no text")
    add(
        "--prompts-file",
        type=Path,
        help=".txt, one prompt a line, or .jsonl, one object of these flags a line",
    )
    add(
        "--task",
        choices=[t for t in TASKS if t not in TRAINING_ONLY],
        help="default: implied by what is given",
    )
    add("--seed", type=int, default=0)
    add("--num", type=int, default=1, help="samples per prompt, of seeds SEED, SEED + 1, ...")
    add("--seconds", type=float, help="of the clip, or of what is added to it; default: the trained length")
    add("--size", type=size, metavar="HxW", help="picture size, as 64x96; default: the trained size")
    add("--fps", type=float, help="frames per second; default: the trained rate")
    add("--silent", action="store_true", help="pictures alone")

    known = parser.add_argument_group("what is known already")
    add = known.add_argument
    add("--image", type=Path, help="first frame")
    add("--video", type=Path, help="alone: make sound for it; with the flags below: continue or change it")
    add("--audio", type=Path, help="make pictures for it")
    add("--extend", action="store_true", help="continue --video by --seconds")
    add("--extend-backward", action="store_true", help="make the --seconds before --video")
    add("--loop", action="store_true", help="lead the end of --video back to its beginning, in --seconds")
    add(
        "--inbetween", nargs=2, type=Path, metavar=("A", "B"), help="lead from clip A to clip B, in --seconds"
    )
    add(
        "--mask",
        type=mask,
        metavar="Y0,X0,Y1,X1|PNG",
        help="region of --video to make anew, in parts, or bright",
    )
    add("--time-span", type=time_span, metavar="A:B", help="seconds of --video and its sound to make anew")
    add("--strength", type=float, help="remix --video: 0 keeps it, 1 makes all anew")
    add("--slope", type=float, default=1.0, help="of --task staircase: how much later the last moment begins")

    how = parser.add_argument_group("how it is sampled (default: the checkpoint's own settings)")
    add = how.add_argument
    add("--steps", type=int)
    add("--sampler", choices=list(SAMPLERS))
    add("--guidance", type=float, help="how strongly the text is followed; 1 = not amplified")
    add("--audio-guidance", type=float, help="the same for the sound alone")
    add(
        "--modality-guidance",
        type=float,
        help="how strongly sound and pictures follow each other; 1 = not amplified",
    )
    add("--audio-modality-guidance", type=float, help="the same for the sound alone")
    add(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="noise levels at which it acts",
    )
    add("--guidance-rescale", type=float, help="0 to 1: against over-saturation")
    add("--video-shift", type=float, help="above 1: more steps at high noise")
    add("--audio-shift", type=float)

    machine = parser.add_argument_group("where it runs")
    add = machine.add_argument
    add("--device", default=None, help="default: cuda if there is one, else cpu")
    add("--dtype", choices=["fp32", "bf16"], default="fp32", help="precision of the network")
    add("--device-map", help="auto: spread a large model over all devices, CPU and disk (accelerate)")
    add("--offload-folder", help="disk space of --device-map")
    add("--batch-size", type=int, default=8, help="clips sampled at once")
    add("--video-codec", metavar="DIR", help="where the video codec lies now")
    add("--audio-codec", metavar="DIR", help="where the audio codec lies now")
    return parser


def size(text: str) -> tuple[int, int]:
    height, x, width = text.lower().partition("x")
    if not (x and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 64x96")
    return int(height), int(width)


def mask(text: str) -> tuple[float, float, float, float] | Path:
    if Path(text).exists() or "," not in text:
        return Path(text)
    try:
        y0, x0, y1, x1 = (float(v) for v in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither y0,x0,y1,x1 in parts of the picture, such as 0.2,0.2,0.6,0.6, nor a PNG"
        ) from error
    return y0, x0, y1, x1


def time_span(text: str) -> tuple[float, float]:
    try:
        begin, end = (float(v) for v in text.split(":"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not BEGIN:END in seconds, such as 0.5:1.2") from error
    return begin, end


def make_request(args: argparse.Namespace, sampling: SamplingConfig) -> Request:
    """One request from parsed flags; `sampling` holds the checkpoint's settings.

    Raises:
        RequestError: flags that contradict each other.
    """
    if args.extend and args.extend_backward:
        raise RequestError("--extend and --extend-backward: one at a time; extend the result the other way")
    if args.inbetween is not None and args.video is not None:
        raise RequestError("--inbetween names both clips; leave out --video")
    request = Request(
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        task=args.task,
        seed=args.seed,
        sampling=override_sampling(args, sampling),
        seconds=args.seconds,
        size=args.size,
        fps=args.fps,
        image=args.image,
        video=args.video if args.inbetween is None else args.inbetween[0],
        video_end=None if args.inbetween is None else args.inbetween[1],
        audio=args.audio,
        extend="forward" if args.extend else "backward" if args.extend_backward else None,
        loop=args.loop,
        mask=args.mask,
        time_span=args.time_span,
        strength=args.strength,
        slope=args.slope,
        silent=args.silent,
    )
    resolve_task(request)
    return request


def override_sampling(args: argparse.Namespace, base: SamplingConfig) -> SamplingConfig:
    """The checkpoint's sampling settings with those that flags name."""

    def streams(old: dict[str, float], both: float | None, audio: float | None) -> dict[str, float]:
        new = dict(old) if both is None else {"video": both, "audio": both}
        return new if audio is None else {**new, "audio": audio}

    g = base.guidance
    guidance = GuidanceConfig(
        text=streams(g.text, args.guidance, args.audio_guidance),
        modality=streams(g.modality, args.modality_guidance, args.audio_modality_guidance),
        interval=g.interval if args.guidance_interval is None else tuple(args.guidance_interval),
        rescale=g.rescale if args.guidance_rescale is None else args.guidance_rescale,
        batched=g.batched,
    )
    shift = {
        "video": base.shift["video"] if args.video_shift is None else args.video_shift,
        "audio": base.shift["audio"] if args.audio_shift is None else args.audio_shift,
    }
    return dataclasses.replace(
        base,
        sampler=base.sampler if args.sampler is None else args.sampler,
        steps=base.steps if args.steps is None else args.steps,
        guidance=guidance,
        shift=shift,
    )


def read_prompts(path: Path) -> list[list[str]]:
    """Flags of every line of a prompts file, to be appended to the command's own.

    Raises:
        RequestError: no such file, no prompt in it, or a line that is not an object of flags.
    """
    if not path.is_file():
        raise RequestError(f"--prompts-file {path} does not exist")
    lines = [(n, line.strip()) for n, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]
    if not lines:
        raise RequestError(f"--prompts-file {path} is empty")
    if path.suffix != ".jsonl":
        return [[f"--prompt={line}"] for _, line in lines]
    found = []
    for n, line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise RequestError(f"--prompts-file {path}, line {n} is not JSON: {error}") from error
        if not isinstance(entry, dict):
            raise RequestError(
                f'--prompts-file {path}, line {n} must be an object such as {{"prompt": "..."}}'
            )
        found.append(_flags(entry, f"--prompts-file {path}, line {n}"))
    return found


PER_CLIP = [
    "prompt",
    "negative_prompt",
    "task",
    "seed",
    "seconds",
    "size",
    "fps",
    "silent",
    "image",
    "video",
    "audio",
    "extend",
    "extend_backward",
    "loop",
    "inbetween",
    "mask",
    "time_span",
    "strength",
    "slope",
    "steps",
    "sampler",
    "guidance",
    "audio_guidance",
    "modality_guidance",
    "audio_modality_guidance",
]


def _flags(entry: dict[str, Any], where: str) -> list[str]:
    flags: list[str] = []
    for key, value in entry.items():
        name = key.replace("-", "_")
        if name not in PER_CLIP:
            raise RequestError(f"{where}: {key!r} is not one of {', '.join(PER_CLIP)}")
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif isinstance(value, list):
            flags += [flag, *(str(v) for v in value)]
        elif value is not False and value is not None:
            flags.append(f"{flag}={value}")
    return flags


def expand(argv: list[str], args: argparse.Namespace) -> list[tuple[Path, argparse.Namespace]]:
    """(output, flags) of every clip: prompts x seeds."""
    if args.num < 1:
        raise RequestError(f"--num {args.num} must be at least 1")
    entries = [[]] if args.prompts_file is None else read_prompts(args.prompts_file)
    if args.prompts_file is not None and args.prompt:
        raise RequestError("--prompt and --prompts-file: give one of them")
    many = args.prompts_file is not None or args.num > 1
    if many and args.out.suffix:
        raise RequestError(f"--out {args.out}: several clips go to a folder; give a name without an ending")
    if not many and args.out.suffix != ".mp4":
        raise RequestError(f"--out {args.out}: one clip is written as a file; give a name that ends in .mp4")
    clips = []
    for n, entry in enumerate(entries):
        one = build_parser().parse_args([*argv, *entry])
        for k in range(args.num):
            copy = argparse.Namespace(**{**vars(one), "seed": one.seed + k})
            clips.append((args.out / f"{n:05d}-seed{copy.seed}.mp4" if many else args.out, copy))
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

    check_writable([out for out, _ in clips], args.overwrite)
    settings = read_checkpoint(args.checkpoint).config.get("sampling", {})
    base = from_mapping(SamplingConfig, settings, f"{args.checkpoint}/config.yaml: sampling")
    requests = [(out, make_request(one, base)) for out, one in clips]

    processes = PartialState(cpu=args.device == "cpu")
    device = processes.device if args.device is None else torch.device(args.device)
    pipeline = Pipeline.from_checkpoint(
        args.checkpoint,
        device,
        {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype],
        device_map=args.device_map,
        offload_folder=args.offload_folder,
        video_codec=args.video_codec,
        audio_codec=args.audio_codec,
        batch_size=args.batch_size,
    )
    info = {**pipeline.info, "device": str(device), "dtype": args.dtype}
    with processes.split_between_processes(requests) as mine:
        bar = tqdm(
            total=len(mine), desc="clips", unit="clip", disable=not processes.is_main_process or len(mine) < 2
        )
        for k in range(0, len(mine), args.batch_size):
            part = mine[k : k + args.batch_size]
            made = pipeline.generate([request for _, request in part], progress=processes.is_main_process)
            for (out, request), clip in zip(part, made, strict=True):
                save_sample(request, clip, out, info, argv)
                bar.update()
                bar.write(str(out))
        bar.close()
    processes.wait_for_everyone()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
