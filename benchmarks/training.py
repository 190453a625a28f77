"""The toy model trained end to end, and the loader that feeds it, in one process.

    python benchmarks/training.py [--preset s] [--samples 640] [--threads 2] [--precision auto]

End to end means what `sora2 train` does: loader, noise, forward, backward, clipping, optimizer, two EMAs, logging,
from latent shards of the default Toybox clip (random numbers: speed does not depend on them). The ratio of the loader
is its samples/s alone over the samples/s of training. The ceiling is a matrix product measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import torch

from sora2.codecs import load_codecs
from sora2.data import DatasetConfig, LoaderConfig, ShardWriter, build_loader, pack_latents
from sora2.data.encode import geometry
from sora2.processes import keep_freed_memory
from sora2.train.compose import compose_config
from sora2.train.run import train
from sora2.train.throughput import measure_peak_flops

LIMIT_SAMPLES_PER_SECOND = 35.0
LIMIT_LOADER_RATIO = 10.0


def write_latents(folder: Path, count: int) -> None:
    """`count` latents of the default clip, as `sora2 encode` writes them."""
    codecs = load_codecs("checkpoints/video_vae", "checkpoints/audio_vae", "minilm")
    video = codecs.video_shape(33, 64, 64, 16.0, patch_size=2)
    audio = codecs.audio_shape(video.seconds)
    generator = torch.Generator().manual_seed(0)
    with ShardWriter(folder) as writer:
        for i in range(count):
            meta = {
                "key": f"clip-{i:06d}", "caption": "", "frames": 33, "height": 64, "width": 64, "fps": 16.0,
                "samples": audio.samples, "sample_rate": audio.sample_rate, "channels": audio.channels,
                "fingerprints": codecs.fingerprints(), "geometry": geometry(codecs),
            }  # fmt: skip
            tensors = {
                "video": torch.randn(video.latent_shape, generator=generator),
                "audio": torch.randn(audio.latent_shape, generator=generator),
                "text": torch.randn(20, codecs.text.width, generator=generator),
            }
            writer.write(meta["key"], pack_latents(tensors, meta))


def loader_speed(folder: Path, batches: int = 200) -> float:
    """Samples per second of the loader alone, one reading thread, warm file cache."""
    loader = build_loader(LoaderConfig((DatasetConfig(str(folder)),), batch_size=16))
    with loader:
        for _ in range(20):
            next(loader)
        start = time.perf_counter()
        for _ in range(batches):
            next(loader)
        return 16 * batches / (time.perf_counter() - start)


def training_speed(root: Path, args: argparse.Namespace) -> dict[str, float]:
    """Best and median of the logged rates of one run of `sora2 train`."""
    config = compose_config(
        [
            "name=bench", f"out={root}", f"model={args.preset}", f"data.datasets=[{{path: {root / 'latents'}}}]",
            f"trainer.max_samples={args.samples}", f"trainer.precision={args.precision}", "trainer.log_every_steps=4",
            f"trainer.threads={args.threads}", "trainer.checkpoint_every_minutes=null",
        ]
    )  # fmt: skip
    folder = train(config)
    lines = (folder / "logs/from-000000000000/metrics.csv").read_text().splitlines()
    header, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    column = {
        name: [float(r[header.index(f"speed/{name}")]) for r in rows[1:]]
        for name in ("samples_per_second", "mfu", "data_wait_share")
    }
    rates = column["samples_per_second"]
    return {
        "samples_per_second_best": max(rates),
        "samples_per_second_median": sorted(rates)[len(rates) // 2],
        "mfu_median": sorted(column["mfu"])[len(rates) // 2],
        "data_wait_share_mean": sum(column["data_wait_share"]) / len(rates),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="s")
    parser.add_argument("--samples", type=int, default=640)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", default="auto", choices=("auto", "32-true", "bf16-mixed"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as `sora2 train` does
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_latents(root / "latents", 512)
        before = loader_speed(root / "latents")
        result = training_speed(root, args)
        loader = max(before, loader_speed(root / "latents"))
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    result |= {
        "loader_samples_per_second": loader,
        "loader_ratio": loader / result["samples_per_second_best"],
        **{f"matmul_gflops_{n}": measure_peak_flops(torch.device("cpu"), d) / 1e9 for n, d in dtypes.items()},
        "preset": args.preset,
        "threads": args.threads,
        "precision": args.precision,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, value in result.items():
        print(f"{name:<30}{value:.3g}" if isinstance(value, float) else f"{name:<30}{value}")
    print(f"bars: {LIMIT_SAMPLES_PER_SECOND:g} samples/s end to end, loader ratio {LIMIT_LOADER_RATIO:g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
