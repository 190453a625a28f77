"""Our transformer's forward + backward against the two joint audio-video transformers of diffusers, in one
process.

    python benchmarks/peers.py [--precision float32 bfloat16] [--threads 2] [--rounds 5] [--batch 16]

Peers: `MiniMaxH3Transformer3DModel` (single stream) and `LTX2VideoTransformer3DModel` (dual stream), random
weights, width 256, depth 8, 24 text + 144 video + 52 audio tokens, in their own proportions. Ours is the
preset `s` with its feed-forwards scaled until the parameters equal the peer's within 1 %. Runs alternate A B
A B; the ratio is of the fastest runs (the median ratio stands beside it). On a shared machine look at the
ratio of CPU seconds with one thread.

bfloat16: float32 weights under autocast for ours, as in training; for each peer the faster of that and
bfloat16 weights. Noise levels: ours takes one per token of every sample (`token`; `clip` and `frame` show the
coarser maps); LTX-2 takes one per sample, and H3 one per batch, the only kind it can.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sora2.kernels import has_fast_bf16
from sora2.model import PRESETS, Transformer, TransformerConfig
from sora2.model.flops import count_parameters, forward_flops
from sora2.types import AudioShape, Batch, Modality, VideoShape, clean_modality

TEXT, TEXT_WIDTH = 24, 384
VIDEO = VideoShape(33, 64, 64, 16.0)
AUDIO = AudioShape.for_seconds(VIDEO.seconds, 16000)
TOKENS = {"text": TEXT, "video": VIDEO.tokens, "audio": AUDIO.tokens}


@dataclass
class Contender:
    """A model, the call that runs it once, and its times."""

    name: str
    parameters: int
    step: Callable[[], None]
    wall: list[float]
    cpu: list[float]

    def run(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.step()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def matched(parameters: int) -> TransformerConfig:
    """Preset `s` with all feed-forward ratios scaled by one factor to this parameter count."""
    base, low, high = PRESETS["s"], 0.2, 4.0
    for _ in range(30):
        factor = (low + high) / 2
        config = replace(
            base,
            video_ffn_ratio=base.video_ffn_ratio * factor,
            audio_ffn_ratio=base.audio_ffn_ratio * factor,
            text_ffn_ratio=base.text_ffn_ratio * factor,
        )
        low, high = (factor, high) if count_parameters(config) < parameters else (low, factor)
    return config


def our_batch(size: int, levels: str) -> Batch:
    def modality(width: int, positions: Tensor, frames: int) -> Modality:
        n = positions.shape[0]
        runs = {"clip": 1, "frame": frames, "token": n}[levels]
        level = torch.rand(size, runs).repeat_interleave(n // runs, dim=1)
        return Modality(
            torch.randn(size, n, width),
            positions.expand(size, n, 3),
            level,
            torch.ones(size, n, dtype=torch.bool),
        )

    text = clean_modality(torch.randn(size, TEXT, TEXT_WIDTH), torch.zeros(TEXT, 3))
    video = modality(VIDEO.token_width, VIDEO.positions(), VIDEO.latent_frames)
    return Batch(video=video, audio=modality(AUDIO.token_width, AUDIO.positions(), AUDIO.tokens), text=text)


def backward(outputs: list[Tensor], model: nn.Module) -> None:
    torch.stack([o.float().square().mean() for o in outputs]).sum().backward()
    model.zero_grad(set_to_none=True)


def ours(config: TransformerConfig, size: int, levels: str, precision: str) -> Contender:
    model, batch = _awake(Transformer(config)), our_batch(size, levels)
    half = precision == "bfloat16"

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = model(batch)
        backward(list(out.values()), model)

    return Contender(f"ours, a level per {levels}", count_parameters(config), step, [], [])


def h3(size: int, weights: torch.dtype, autocast: bool) -> Contender:
    from diffusers import MiniMaxH3Transformer3DModel
    from diffusers.utils import logging

    logging.set_verbosity_error()  # it warns that parts should stay float32, which a run of random weights need not

    model = MiniMaxH3Transformer3DModel(
        num_attention_heads=4, attention_head_dim=64, hidden_size=256, num_layers=8, num_refiner_layers=1,
        ffn_dim=688, in_channels=16, audio_in_channels=64, text_dim=TEXT_WIDTH, time_embed_hidden_dim=256,
        time_embed_dim=128, rope_freq_dim=8,
    )  # fmt: skip
    model = _awake(model).to(weights)
    n = sum(TOKENS.values())
    starts = (0, TEXT, TEXT + VIDEO.tokens, n)
    tags = torch.tensor([1] * TEXT + [0] * VIDEO.tokens + [2] * AUDIO.tokens)
    arguments = {
        "hidden_states": torch.randn(size, VIDEO.tokens, 64, dtype=weights),
        "audio_hidden_states": torch.randn(size, AUDIO.tokens, 64, dtype=weights),
        "encoder_hidden_states": torch.randn(size, TEXT, TEXT_WIDTH, dtype=weights),
        "timestep": torch.tensor([0.0, 0.4, 0.6]),
        "timestep_indices": torch.tensor([0] * TEXT + [1] * VIDEO.tokens + [2] * AUDIO.tokens),
        "token_tags": tags,
        "position_ids": torch.cat([torch.zeros(TEXT, 3), VIDEO.positions(), AUDIO.positions()]),
        "text_indices": torch.arange(starts[0], starts[1]),
        "video_indices": torch.arange(starts[1], starts[2]),
        "audio_indices": torch.arange(starts[2], starts[3]),
    }
    return _peer("MiniMax-H3", model, arguments, weights, autocast)


def ltx2(size: int, weights: torch.dtype, autocast: bool) -> Contender:
    from diffusers import LTX2VideoTransformer3DModel

    model = LTX2VideoTransformer3DModel(
        in_channels=64, out_channels=64, num_attention_heads=4, attention_head_dim=64, cross_attention_dim=256,
        audio_in_channels=64, audio_out_channels=64, audio_num_attention_heads=4, audio_attention_head_dim=32,
        audio_cross_attention_dim=128, num_layers=8, caption_channels=TEXT_WIDTH,
    )  # fmt: skip
    model = _awake(model).to(weights)
    words = torch.randn(size, TEXT, TEXT_WIDTH, dtype=weights)
    t, h, w = VIDEO.grid
    arguments = {
        "hidden_states": torch.randn(size, VIDEO.tokens, 64, dtype=weights),
        "audio_hidden_states": torch.randn(size, AUDIO.tokens, 64, dtype=weights),
        "encoder_hidden_states": words,
        "audio_encoder_hidden_states": words,
        "timestep": torch.rand(size) * 1000,
        "audio_timestep": torch.rand(size) * 1000,
        "num_frames": t,
        "height": h,
        "width": w,
        "fps": VIDEO.fps,
        "audio_num_frames": AUDIO.tokens,
    }
    return _peer("LTX-2", model, arguments, weights, autocast)


def _peer(name: str, model: nn.Module, arguments: dict, weights: torch.dtype, autocast: bool) -> Contender:
    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            out = model(**arguments, return_dict=False)
        backward(list(out), model)

    how = "bfloat16 weights" if weights == torch.bfloat16 else "autocast" if autocast else "float32"
    return Contender(f"{name}, {how}", sum(p.numel() for p in model.parameters()), step, [], [])


def _awake(model: nn.Module) -> nn.Module:
    """Weights off zero, so that no product meets only zeros."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return model


def interleave(peers: list[Contender], mine: list[Contender], rounds: int, label: str) -> None:
    for c in (*peers, *mine):  # warm-up
        c.step()
    for _ in tqdm(range(rounds), desc=label):
        for m in mine:
            for c in (*peers, m):
                c.run()


def compare(peer: Callable[..., Contender], precision: str, size: int, rounds: int) -> list[dict]:
    variants = (
        [(torch.float32, False)]
        if precision == "float32"
        else [(torch.float32, True), (torch.bfloat16, False)]
    )
    peers = [peer(size, weights, autocast) for weights, autocast in variants]
    config = matched(peers[0].parameters)
    mine = [ours(config, size, levels, precision) for levels in ("token", "frame", "clip")]
    interleave(peers, mine, rounds, f"{precision} {peers[0].name}")
    best = min(peers, key=lambda c: min(c.cpu))
    flops = 3 * size * forward_flops(config, TOKENS)
    rows = []
    for c in [*peers, *mine]:
        row = {"precision": precision, "name": c.name, "parameters": c.parameters}
        row |= {
            "samples_per_second": size / min(c.wall),
            "median_samples_per_second": size / statistics.median(c.wall),
        }
        row |= {"cpu_seconds": min(c.cpu), "wall_seconds": min(c.wall)}
        if c in mine:
            row |= {
                "against": best.name,
                "ratio": min(best.wall) / min(c.wall),
                "median_ratio": statistics.median(best.wall) / statistics.median(c.wall),
                "cpu_ratio": min(best.cpu) / min(c.cpu),
                "gflops_per_second": flops / min(c.wall) / 1e9,
            }
        rows.append(row)
    return rows


def show(rows: list[dict]) -> None:
    print(f"{'':40}{'params M':>9}{'samples/s':>11}{'ratio':>7}{'median':>8}{'cpu':>7}")
    for r in rows:
        ratios = "".join(
            f"{r[k]:{w}.2f}" for k, w in (("ratio", 7), ("median_ratio", 8), ("cpu_ratio", 7)) if k in r
        )
        name = f"{r['precision']} {r['name']}"
        print(f"{name:40}{r['parameters'] / 1e6:9.2f}{r['samples_per_second']:11.2f}{ratios}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"])
    parser.add_argument("--peers", nargs="+", default=["h3", "ltx2"], choices=["h3", "ltx2"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peers.json")
    found = parser.parse_args()
    if found.precision is None:
        found.precision = ["float32", "bfloat16"] if has_fast_bf16() else ["float32"]
        if not has_fast_bf16():
            print(
                "bfloat16 left out: this CPU has no bf16 products, all would run ten times slower than in float32;"
            )
            print("ask for it with --precision bfloat16 --batch 2 --rounds 1")
    return found


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    for precision in options.precision:
        for name in options.peers:
            rows += compare({"h3": h3, "ltx2": ltx2}[name], precision, options.batch, options.rounds)
    show(rows)
    report = {
        "processor": platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16_in_hardware": has_fast_bf16(),
        "torch": torch.__version__,
        "threads": options.threads,
        "batch": options.batch,
        "tokens": TOKENS,
        "rounds": options.rounds,
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
