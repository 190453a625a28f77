"""What is left of a sample: the mp4, its contact sheet, and a JSON of everything needed to repeat it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sora2.atomic import save_json
from sora2.config import to_mapping
from sora2.generate.request import Request, RequestError
from sora2.media import contact_sheet, write_clip
from sora2.types import Clip

PACKAGES = ("sora2", "torch", "numpy", "accelerate", "av", "safetensors")


def paths(out: Path) -> tuple[Path, Path, Path]:
    """mp4, contact sheet and JSON of one sample; a picture's sheet has another name than the picture."""
    return out, out.with_suffix(".sheet.png"), out.with_suffix(".json")


def check_writable(outs: list[Path], overwrite: bool) -> None:
    """Raises RequestError for a name that is not a clip's, or for files that exist; to be called first."""
    for out in outs:
        if out.suffix != ".mp4":
            raise RequestError(f"--out {out}: a clip is written as .mp4")
        there = [path for path in paths(out) if path.exists()]
        if there and not overwrite:
            raise RequestError(
                f"--out: {there[0]} exists; choose another name, or pass --overwrite to replace it"
            )


def describe(request: Request, clip: Clip, info: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """The JSON of one sample."""
    fields = to_mapping(request)
    for name in ("image", "video", "video_end", "audio", "cameo", "mask"):
        value = fields[name]
        if isinstance(value, dict):  # a clip in memory
            fields[name] = f"clip {value['key']!r}"
        elif isinstance(value, torch.Tensor):
            fields[name] = value.int().tolist()
        elif isinstance(value, Path):
            fields[name] = str(value)
    fields["task"] = clip.meta["task"]
    made: dict[str, Any] = {"seconds": clip.seconds}
    if clip.video is not None:
        made |= {"frames": clip.video.shape[0], "size": list(clip.video.shape[1:3]), "fps": clip.fps}
    if clip.audio is not None:
        made |= {
            "samples": clip.audio.shape[1],
            "sample_rate": clip.sample_rate,
            "channels": clip.audio.shape[0],
        }
    return {
        "caption": request.caption,
        "seed": request.seed,
        "arguments": arguments,
        "request": fields,
        "clip": made,
        **info,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "threads": torch.get_num_threads(),
    }


def save_sample(
    request: Request, clip: Clip, out: Path, info: dict[str, Any], arguments: list[str]
) -> tuple[Path, Path, Path]:
    """Write the three files; each appears whole or not at all, the JSON last."""
    film, sheet, record = paths(out)
    write_clip(clip, film, lossless_audio=True)
    title = request.caption if request.caption else clip.meta["task"]
    contact_sheet(clip, sheet, title=f"{title}  (seed {request.seed}, {clip.meta['task']})")
    save_json(describe(request, clip, info, arguments), record)
    return film, sheet, record
