"""Attention on the CPU: listed tiles beside dense SDPA and SDPA with a mask, forward and backward.

    python benchmarks/attention.py [--rounds 7] [--shape NAME ...] [--flex]

On audio-video patterns, in fp32 and bf16. Every round runs all contenders one after the other (A B C, A B C, ...) on
the same tensors; a speed-up is the median over rounds of the ratio to dense SDPA of the same dtype within one round.
Times are CPU seconds of one thread. "of ideal" is the speed-up times the pattern's density: 1 would be time in
proportion to the pairs computed. The bar is 0.6 from 4,096 tokens on. Building the pattern is timed apart: it is
remembered for a shape. Before anything is timed, outputs and gradients must equal the reference's. The same on a GPU:
benchmarks/kernels_gpu.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor

from sora2.kernels import Part, Rule, TilePattern, Tiling, attention, concatenate, select_tiles

RESULTS = Path(__file__).parent / "results"
BAR, TOLERANCE = 0.6, 1e-5
BACKENDS = ("compiled", "tiled")  # that skip pairs which a pattern does not list


@dataclass(frozen=True)
class Shape:
    """A packed sequence and its rule. Sound has 25 tokens a second, video 4 frames."""

    name: str
    grid: tuple[int, int, int]  # (t, y, x) video tokens
    rule: Rule
    heads: int = 4
    width: int = 64
    text: int = 24
    chunk_seconds: float | None = None
    copies: int = 1  # samples packed behind each other, each a little shorter than the one before

    def pattern(self) -> TilePattern:
        samples = [self._tiling(self.grid[0] - 2 * i) for i in range(self.copies)]
        patterns = [tiling.pattern(self.rule) for tiling in samples]
        return patterns[0] if self.copies == 1 else concatenate(patterns)

    def _tiling(self, frames: int) -> Tiling:
        _, y, x = self.grid
        video = ((torch.arange(frames) + 0.5) / 4).repeat_interleave(y * x)[None]
        sound = ((torch.arange(int(frames / 4 * 25)) + 0.5) / 25)[None]
        parts = [
            Part("text", torch.zeros(1, self.text)),
            Part("video", video, (frames, y, x)),
            Part("audio", sound),
        ]
        return Tiling.of(parts, (4, 4, 8), 64, self.chunk_seconds)


NEAR = Rule((3, 3, 1), video_hears_seconds=0.5)
SHAPES = (
    Shape("2k window", (16, 8, 16), NEAR),
    Shape("4k window", (16, 16, 16), NEAR),
    Shape("4k window, D 128", (16, 16, 16), NEAR, heads=2, width=128),
    Shape("4k narrow window", (16, 16, 16), Rule((1, 3, 1), 0.5, 0.5)),
    Shape("4k causal", (16, 16, 16), Rule(), chunk_seconds=1.0),
    Shape("4k causal window", (16, 16, 16), Rule((3, 3, 1), 0.5, 0.5), chunk_seconds=1.0),
    Shape("4k top 8", (16, 16, 16), Rule(top_k=8), heads=4),
    Shape("5k pack of three", (8, 16, 16), Rule(), copies=3),
    Shape("8k window", (16, 16, 32), Rule((3, 3, 3), 0.5)),
    Shape("16k window", (32, 16, 32), Rule((3, 3, 3), 0.5, 0.5), heads=2),
)


@dataclass
class Contender:
    """One way to compute the attention of a shape, and its times in seconds by pass."""

    name: str
    forward: Callable[[Tensor, Tensor, Tensor], Tensor]
    base: str  # the contender of the same dtype that it is compared with
    trains: bool = True
    dtype: torch.dtype = torch.float32
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"forward": [], "forward + backward": []})

    def run(self, tensors: list[Tensor], grad: Tensor) -> None:
        *tensors, grad = (x.to(self.dtype) for x in (*tensors, grad))
        q, k, v = tensors
        with torch.no_grad():
            self._time("forward", lambda: self.forward(q, k, v))
        if self.trains:
            leaves = [x.detach().requires_grad_() for x in tensors]
            self._time("forward + backward", lambda: torch.autograd.grad(self.forward(*leaves), leaves, grad))

    def _time(self, name: str, call: Callable[[], object]) -> None:
        start = time.process_time()
        call()
        self.seconds[name].append(time.process_time() - start)


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def masked(pattern: TilePattern) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    mask = pattern.allowed()
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def listed(pattern: TilePattern | None, backend: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda q, k, v: attention(q, k, v, pattern, backend=backend)


def chosen(pattern: TilePattern, top_k: int, backend: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The choice of tiles is made anew in every call, and timed with it."""
    return lambda q, k, v: attention(q, k, v, select_tiles(q, k, pattern, top_k), backend=backend)


def largest_error(pattern: TilePattern, tensors: list[Tensor], grad: Tensor) -> float:
    """Of output and gradients against the reference in float64, relative to the largest value of each."""
    results = {}
    for backend in (*BACKENDS, "reference"):
        dtype = torch.float64 if backend == "reference" else torch.float32
        leaves = [x.to(dtype).requires_grad_() for x in tensors]
        out = attention(*leaves, pattern, backend=backend)
        results[backend] = [out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))]
    want = results.pop("reference")
    return max(
        float((a - b).abs().max() / b.abs().max())
        for found in results.values()
        for a, b in zip(found, want, strict=True)
    )


def measure(shape: Shape, rounds: int, with_flex: bool) -> dict:
    start = time.process_time()
    pattern = shape.pattern()
    build = time.process_time() - start
    n = pattern.queries.tokens
    g = torch.Generator().manual_seed(0)
    *tensors, grad = (torch.randn(1, shape.heads, n, shape.width, generator=g) for _ in range(4))
    used = pattern if shape.rule.top_k is None else select_tiles(*tensors[:2], pattern, shape.rule.top_k)
    one_head = [x[:, :1].contiguous() for x in tensors]
    checked = pattern if shape.rule.top_k is None else select_tiles(*one_head[:2], pattern, shape.rule.top_k)
    error = largest_error(checked, one_head, grad[:, :1].contiguous()) if n <= 10_000 else None
    if error is not None and error > TOLERANCE:
        raise SystemExit(f"{shape.name}: tiles differ from the reference by {error:.1e}; nothing is timed")
    dense32, dense16, bf16 = "dense SDPA", "dense SDPA, bf16", torch.bfloat16
    ours = {
        b: listed(pattern, b) if shape.rule.top_k is None else chosen(pattern, shape.rule.top_k, b)
        for b in BACKENDS
    }
    contenders = [
        Contender(dense32, dense, dense32),
        *(Contender(b, ours[b], dense32) for b in BACKENDS),
        Contender(dense16, dense, dense16, dtype=bf16),
        Contender("dense compiled, bf16", listed(None, "compiled"), dense16, dtype=bf16),
        Contender("compiled, bf16", ours["compiled"], dense16, dtype=bf16),
    ]
    if n <= 10_000 and shape.rule.top_k is None:
        contenders.append(Contender("SDPA with a mask", masked(pattern), dense32))
    if with_flex and shape.rule.top_k is None:
        contenders.append(Contender("FlexAttention", listed(pattern, "flex"), dense32, trains=False))
    for round_ in range(rounds + 1):
        for c in contenders:
            c.run(tensors, grad)
            if round_ == 0:  # compilation, first touch of memory
                c.seconds = {name: [] for name in c.seconds}
    by_name = {c.name: c for c in contenders}
    record = {"tokens": n, "heads": shape.heads, "width": shape.width, "paths": {}}
    record |= {"density": used.density, "list_bytes": used.list_bytes, "build_seconds": build, "error": error}
    for c in contenders:
        row = {}
        for name, times in c.seconds.items():
            if times:
                base = by_name[c.base].seconds[name]
                speed = statistics.median(b / t for b, t in zip(base, times, strict=True))
                row[name] = {
                    "milliseconds": 1000 * statistics.median(times),
                    "speedup": speed,
                    "times": times,
                }
                row[name]["of_ideal"] = speed * used.density
        record["paths"][c.name] = row
    return record


def show(name: str, record: dict) -> None:
    print(f"\n{name}: {record['tokens']} tokens, density {record['density']:.3f}, lists {record['list_bytes']} bytes,"
          f" built in {1000 * record['build_seconds']:.0f} ms, error {record['error']}")  # fmt: skip
    for path, row in record["paths"].items():
        cells = [
            f"{kind} {v['milliseconds']:8.1f} ms  x{v['speedup']:5.2f}  {v['of_ideal']:.2f} of ideal"
            for kind, v in row.items()
        ]
        print(f"  {path:<21}" + "   ".join(cells), flush=True)


def plot(records: dict[str, dict], path: Path) -> None:
    """Speed-up over dense SDPA against 1 / density, forward and backward."""
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    limit = max(1 / r["density"] for r in records.values()) * 1.15
    axes.plot([1, limit], [1, limit], color="grey", linewidth=1, label="ideal: 1 / density")
    axes.plot(
        [1, limit],
        [BAR, BAR * limit],
        color="grey",
        linewidth=1,
        linestyle="--",
        label=f"bar: {BAR} / density",
    )
    for path_name, marker in (
        ("compiled", "o"),
        ("compiled, bf16", "s"),
        ("tiled", "+"),
        ("SDPA with a mask", "x"),
    ):
        rows = [(1 / r["density"], r["paths"][path_name]["forward + backward"]["speedup"], name)
                for name, r in records.items() if path_name in r["paths"]]  # fmt: skip
        axes.scatter([r[0] for r in rows], [r[1] for r in rows], marker=marker, label=path_name)
        for x, y, name in rows if path_name == "compiled" else []:
            axes.annotate(name, (x, y), textcoords="offset points", xytext=(6, -3), fontsize=7)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="1 / density",
        ylabel="speed-up over dense SDPA, forward + backward",
    )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shape", nargs="*", choices=[s.name for s in SHAPES], help="default: all")
    parser.add_argument(
        "--flex", action="store_true", help="also FlexAttention: compiles for a minute per shape"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "attention_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    about = {"torch": torch.__version__, "machine": platform.processor() or platform.machine(), "threads": 1}
    records: dict[str, dict] = {}
    for shape in SHAPES:
        if not args.shape or shape.name in args.shape:
            records[shape.name] = measure(shape, args.rounds, args.flex)
            show(shape.name, records[shape.name])
            args.out.write_text(json.dumps({**about, "bar": BAR, "shapes": records}, indent=1) + "\n")
            plot(records, args.out.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
