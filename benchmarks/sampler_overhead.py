"""How much of sampling is spent outside the network: levels, steps, guidance, packing of branches.

    python benchmarks/sampler_overhead.py [--preset s] [--steps 20] [--batch 1 8] [--precision bfloat16]

The default Toybox clip with random weights, through the sampler loop as the pipeline runs it (noise, start
state, steps, text and modality guidance), once per sampler. Overhead is 1 - (time inside the network's
forward) / (time of the loop), the smallest of the rounds: both are measured in the same run, so other load on
the machine cancels. Encoding, decoding and writing are not part of either.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from sora2.diffusion.guidance import GuidanceConfig, guided_velocity
from sora2.diffusion.layout import Layout
from sora2.diffusion.noise_levels import Trajectory
from sora2.diffusion.samplers import SAMPLERS, SeededNoise, start_state
from sora2.diffusion.tasks import get_task
from sora2.kernels import has_fast_bf16
from sora2.model import PRESETS, build
from sora2.types import AudioShape, Batch, VideoShape, clean_modality

VIDEO = VideoShape(33, 64, 64, 16.0)
AUDIO = AudioShape.for_seconds(VIDEO.seconds, 16000)
SHAPES = {"video": (VIDEO.tokens, VIDEO.token_width), "audio": (AUDIO.tokens, AUDIO.token_width)}
LIMIT = 0.05

GUIDANCE = {
    "plain": GuidanceConfig(text={"video": 1.0, "audio": 1.0}),
    "text": GuidanceConfig(),
    "text and modality": GuidanceConfig(modality={"video": 2.0, "audio": 2.0}, rescale=0.5),
}


class Timed:
    """A model that knows how long its forward takes."""

    def __init__(self, model: torch.nn.Module, precision: str) -> None:
        self.model, self.enabled, self.seconds = model, precision == "bfloat16", 0.0

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            velocity = self.model(batch)
        self.seconds += time.perf_counter() - begin
        return velocity


@torch.inference_mode()
def overhead(
    network: Timed, sampler: str, guidance: GuidanceConfig, batch: int, steps: int, task: str
) -> float:
    """Share of one sampling loop that is not the network's."""
    text = clean_modality(torch.randn(batch, 24, network.model.config.text_width), torch.zeros(24, 3))
    network.seconds, begin = 0.0, time.perf_counter()
    layout = Layout.of(VIDEO, AUDIO)
    chosen = get_task(task)
    noise_map = chosen(layout, batch, chosen.draw(layout, batch, torch.Generator().manual_seed(0)))
    trajectory = Trajectory(noise_map, steps, {"video": 2.0, "audio": 1.0})
    noise = SeededNoise(list(range(batch)), SHAPES)
    clean = {n: torch.zeros(batch, *shape) for n, shape in SHAPES.items()}
    state = start_state(clean, noise(), trajectory)
    streams = {
        "video": clean_modality(clean["video"], VIDEO.positions()),
        "audio": clean_modality(clean["audio"], AUDIO.positions()),
    }
    known = Batch(**streams, text=text, video_shape=VIDEO, audio_shape=AUDIO)
    SAMPLERS[sampler](guided_velocity(network, known, guidance), state, trajectory, noise)
    return 1 - network.seconds / (time.perf_counter() - begin)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="s", choices=list(PRESETS))
    parser.add_argument("--precision", default="bfloat16" if has_fast_bf16() else "float32")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "sampler_overhead.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = Timed(build(arguments.preset).eval(), arguments.precision)
    cases = [(s, "text", b, "text_to_av") for b in arguments.batch for s in SAMPLERS]
    cases += [("multistep", g, b, "text_to_av") for b in arguments.batch for g in GUIDANCE if g != "text"]
    cases += [("multistep", "text", b, "staircase") for b in arguments.batch]
    rows = []
    for sampler, guidance, batch, task in tqdm(cases, desc="sampler overhead"):
        shares = [
            overhead(network, sampler, GUIDANCE[guidance], batch, arguments.steps, task)
            for _ in range(arguments.rounds)
        ]
        rows.append(
            {"sampler": sampler, "guidance": guidance, "batch": batch, "task": task, "overhead": min(shares)}
        )
    print(f"{'sampler':12}{'guidance':20}{'task':12}{'batch':>6}{'overhead':>10}")
    for r in rows:
        print(f"{r['sampler']:12}{r['guidance']:20}{r['task']:12}{r['batch']:6d}{100 * r['overhead']:9.2f}%")
    worst = max(r["overhead"] for r in rows)
    print(f"worst {100 * worst:.2f} %, limit {100 * LIMIT:.0f} %")
    report = {
        "worst": worst,
        "limit": LIMIT,
        "passed": worst < LIMIT,
        "rows": rows,
        "torch": torch.__version__,
    }
    report |= {k: getattr(arguments, k) for k in ("preset", "precision", "steps", "rounds", "threads")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
