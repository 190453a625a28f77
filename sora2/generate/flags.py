"""The flags of `sora2 sample`, and the requests that they mean."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from sora2.diffusion.guidance import GuidanceConfig
from sora2.diffusion.layout import STREAMS
from sora2.diffusion.samplers import SAMPLERS
from sora2.diffusion.tasks import TASKS
from sora2.generate.request import TRAINING_ONLY, Request, RequestError, SamplingConfig, resolve_task
from sora2.generate.story import parse_cards
from sora2.kernels import PRODUCTS

EXAMPLES = """examples, each with --checkpoint DIR:
  sora2 sample --prompt "a red rubber ball bounces" --out out.mp4     text to video with sound
  sora2 sample --video film.mp4 --out foley.mp4                       sound for a film
  sora2 sample --audio rain.wav --prompt "rain" --out rain.mp4        pictures for a sound
  sora2 sample --image start.png --out moving.mp4                     an image comes alive
  sora2 sample --video film.mp4 --extend --seconds 4 --out more.mp4   continue it (or --extend-backward)
  sora2 sample --story "0: a red ball" "4 cut: rain at night" --out story.mp4   a prompt for each scene
  sora2 sample --cameo me.mp4 --consent "me" --prompt 'a face says "hello"' --out cameo.mp4   my face, my voice
  sora2 sample --video film.mp4 --loop --out loop.mp4                 a seamless loop
  sora2 sample --inbetween a.mp4 b.mp4 --seconds 1 --out joined.mp4   from one clip to another
  sora2 sample --video film.mp4 --mask 0.2,0.2,0.6,0.6 --out new.mp4  a region made anew
  sora2 sample --video film.mp4 --time-span 0.5:1.2 --out new.mp4     a stretch of time made anew
  sora2 sample --video film.mp4 --strength 0.6 --out remix.mp4        the whole, restyled
  accelerate launch --num-processes 8 scripts/sample.py --prompts-file prompts.jsonl --out folder
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
    add(
        "--prompt",
        default="",
        help='what is seen and heard; in quotes what is said, with its second if you like: says "<0.3>hello<0.8>"',
    )
    add(
        "--story",
        nargs="+",
        metavar="CARD",
        help='what is told from a second of the clip on: "0: a red ball rolls" "2.5 cut: a face says hello"; without '
        "`cut` it goes on from what was; or a .txt of one card a line. --prompt is of all cards",
    )
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
    add(
        "--seconds",
        type=float,
        help="of the clip, or of what is added to it; default: the trained length, in frames",
    )
    add("--size", type=size, metavar="HxW", help="picture size, as 64x96; default: the trained size")
    add("--fps", type=float, help="frames per second; default: the trained rate")
    add("--silent", action="store_true", help="pictures alone")

    known = parser.add_argument_group("what is known already")
    add = known.add_argument
    add(
        "--cameo",
        type=Path,
        help="a person: the face in the first picture of a clip and the voice in its sound, or a picture or a sound",
    )
    add("--consent", help="with --cameo: who agreed to it, and where that is written; kept beside the clip")
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

    add_sampling_flags(parser)

    machine = parser.add_argument_group("where it runs")
    add = machine.add_argument
    add("--device", default=None, help="default: cuda if there is one, else cpu")
    add_dtype_flag(machine)
    add("--device-map", help="auto: spread a large model over all devices, CPU and disk (accelerate)")
    add("--offload-folder", help="disk space of --device-map")
    add(
        "--together",
        action="store_true",
        help="processes (accelerate launch, torchrun) share the tokens of every clip; default: they share the clips",
    )
    add("--batch-size", type=int, default=8, help="clips sampled at once")
    add("--video-codec", metavar="DIR", help="where the video codec lies now")
    add("--audio-codec", metavar="DIR", help="where the audio codec lies now")
    return parser


def add_dtype_flag(parser: argparse._ActionsContainer) -> None:
    """The flag whose value `sora2.kernels.choose_dtype` reads."""
    parser.add_argument(
        "--dtype",
        choices=["auto", *PRODUCTS],
        default="auto",
        help="of the network's products (default: auto, bf16 where the hardware multiplies it, else fp32)",
    )


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `override_sampling` reads."""
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
        "--reference-guidance",
        type=float,
        help="how strongly it follows the face and the voice of --cameo; 1 = not amplified",
    )
    add("--audio-reference-guidance", type=float, help="the same for the sound alone")
    add(
        "--skip-guidance",
        type=float,
        help="how strongly it leads away from the same network without --skip-layers; 1 = not at all",
    )
    add("--audio-skip-guidance", type=float, help="the same for the sound alone")
    add("--skip-layers", type=int, nargs="+", metavar="N", help="layers of the network, from 0")
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
    add("--video-delay", type=float, help="0 to 1: how far the sound is made before the pictures begin")
    add(
        "--audio-delay",
        type=float,
        help="the reverse; 1 = pictures first, then the sound for them, in --steps",
    )


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
        story=() if args.story is None else parse_cards(args.story),
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
        cameo=args.cameo,
        consent=args.consent,
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
        reference=streams(g.reference, args.reference_guidance, args.audio_reference_guidance),
        skip=streams(g.skip, args.skip_guidance, args.audio_skip_guidance),
        skip_layers=g.skip_layers if args.skip_layers is None else tuple(args.skip_layers),
        interval=g.interval if args.guidance_interval is None else tuple(args.guidance_interval),
        rescale=g.rescale if args.guidance_rescale is None else args.guidance_rescale,
        batched=g.batched,
    )

    def named(old: dict[str, float], setting: str) -> dict[str, float]:
        given = {n: getattr(args, f"{n}_{setting}") for n in STREAMS}
        return {n: old[n] if value is None else value for n, value in given.items()}

    return dataclasses.replace(
        base,
        sampler=base.sampler if args.sampler is None else args.sampler,
        steps=base.steps if args.steps is None else args.steps,
        guidance=guidance,
        shift=named(base.shift, "shift"),
        delay=named(base.delay, "delay"),
    )
