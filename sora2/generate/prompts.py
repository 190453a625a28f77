"""Prompts files: many requests for one command, as flags of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sora2.generate.request import RequestError


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
