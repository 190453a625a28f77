"""Prompts files: many requests for one command, as flags of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sora2.generate.request import RequestError


def read_prompts(path: Path) -> list[tuple[str, list[str], str]]:
    """(name, flags, where it stands) of every line of a prompts file; flags are to be appended to the command's own.

    A line's "name" is that of its output; the default is its number.

    Raises:
        RequestError: no such file, no prompt in it, or a line that is not an object of flags.
    """
    if not path.is_file():
        raise RequestError(f"--prompts-file {path} does not exist")
    lines = [(n, line.strip()) for n, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]
    if not lines:
        raise RequestError(f"--prompts-file {path} is empty")
    if path.suffix != ".jsonl":
        return [
            (f"{k:05d}", [f"--prompt={line}"], f"--prompts-file {path}, line {n}")
            for k, (n, line) in enumerate(lines)
        ]
    found: dict[str, tuple[list[str], str]] = {}
    for k, (n, line) in enumerate(lines):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise RequestError(f"--prompts-file {path}, line {n} is not JSON: {error}") from error
        if not isinstance(entry, dict):
            raise RequestError(
                f'--prompts-file {path}, line {n} must be an object such as {{"prompt": "..."}}'
            )
        name = str(entry.pop("name", f"{k:05d}"))
        if name in found or Path(name).name != name:
            raise RequestError(
                f"--prompts-file {path}, line {n}: name {name!r} is taken, or not a file's name"
            )
        where = f"--prompts-file {path}, line {n}"
        found[name] = _flags(entry, where), where
    return [(name, flags, where) for name, (flags, where) in found.items()]


#: Flags of a single clip, which a line may set.
PER_CLIP = frozenset(
    [
        "prompt",
        "story",
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
        "cameo",
        "consent",
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
        "reference_guidance",
        "audio_reference_guidance",
        "skip_guidance",
        "audio_skip_guidance",
        "skip_layers",
        "guidance_interval",
        "guidance_rescale",
        "video_shift",
        "audio_shift",
        "video_delay",
        "audio_delay",
    ]
)


def _flags(entry: dict[str, Any], where: str) -> list[str]:
    flags: list[str] = []
    for key, value in entry.items():
        name = key.replace("-", "_")
        if name not in PER_CLIP:
            raise RequestError(f"{where}: {key!r} is not one of name, {', '.join(sorted(PER_CLIP))}")
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif isinstance(value, list):
            flags += [flag, *(str(v) for v in value)]
        elif value is not False and value is not None:
            flags.append(f"{flag}={value}")
    return flags
