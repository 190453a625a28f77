"""A training step of the toy model on one GPU: smoke, speed, and where its time goes.

    python benchmarks/training_gpu.py [--batch 512 1024] [--compile] [--latents FOLDER] [--dry-run]

The real trainer (`sora2.train.module` under Lightning: noise, forward, backward, clipping, Muon, two averages) on
batches that lie on the card, so that no loader is in the way: random numbers of the default Toybox clip, or latents of
a folder of shards. Host time is what a step takes but for its wait at the check of the gradients; where it is the
step's time, the host is the limit. Device time is that of the kernels, from the profiler. First the smoke: losses fall,
and one loss is the same on the CPU and on the card. On the CPU (--dry-run) sizes are tiny and no speed means anything.
"""

from __future__ import annotations

import argparse
import collections
import copy
import itertools
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from gpu_machine import Machine
from torch import Tensor

from sora2.config import from_mapping
from sora2.diffusion.training import DiffusionConfig, make_training_example, training_loss
from sora2.kernels import attention
from sora2.model import Transformer
from sora2.model.config import AttentionConfig
from sora2.model.presets import PRESETS
from sora2.train import parallel
from sora2.train.config import OptimizerConfig, TrainConfig, TrainerConfig
from sora2.train.module import TrainingModule
from sora2.train.step import DiffusionRecipe
from sora2.train.throughput import measure_peak_flops
from sora2.types import AudioShape, Batch, VideoShape, clean_modality

EXPERIMENT = Path("configs/experiment/toybox_bounce.yaml")
VIDEO = VideoShape(33, 64, 64, 16.0)
AUDIO = AudioShape.for_seconds(VIDEO.seconds, 16000)
WARM_UP, PROFILED = 10, 5


def synthetic(rows: int, device: torch.device, seed: int = 0) -> Batch:
    """Random latents of the default clip with captions of 8 to 24 tokens, as the loader would deliver them."""
    draw = torch.Generator().manual_seed(seed)
    length = torch.randint(8, 25, (rows, 1), generator=draw)

    def tokens(n: int, width: int) -> Tensor:
        return torch.randn(rows, n, width, generator=draw).to(device)

    return Batch(
        video=clean_modality(tokens(VIDEO.tokens, VIDEO.token_width), VIDEO.positions()),
        audio=clean_modality(tokens(AUDIO.tokens, AUDIO.token_width), AUDIO.positions()),
        text=clean_modality(tokens(24, 384), torch.zeros(24, 3), torch.arange(24) < length),
        video_shape=VIDEO,
        audio_shape=AUDIO,
    )


class Repeated:
    """One batch, again and again."""

    def __init__(self, batch: Batch, times: int) -> None:
        self.batch, self.times = batch, times

    def __iter__(self) -> Iterator[Batch]:
        return itertools.repeat(self.batch, self.times)


def load(folder: Path, rows: int, device: torch.device) -> Batch:
    from sora2.data import DatasetConfig, LoaderConfig, build_loader

    with build_loader(LoaderConfig((DatasetConfig(str(folder)),), batch_size=rows, workers=0)) as loader:
        return next(loader).to(device)


class Timed(TrainingModule):
    """Adds up how long the host waits to hear that a step was finite."""

    waited = 0.0

    def settle(self) -> None:
        start = time.perf_counter()
        super().settle()
        self.waited += time.perf_counter() - start


class Watch(L.Callback):
    """Warms up, then times `steps` steps, counts the waits of a few, and profiles a few."""

    def __init__(self, steps: int, card: bool) -> None:
        self.steps, self.card = steps, card
        self.losses: list[Tensor] = []
        self.found: dict[str, Any] = {}
        self.count = 0

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        if self.count == WARM_UP:
            self._synchronize()
            module.waited, self.start = 0.0, time.perf_counter()
        elif self.count == WARM_UP + self.steps and self.card:
            self.profiler = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            )
            self.profiler.start()
        elif self.count == WARM_UP + self.steps + PROFILED and self.card:
            self.caught = warnings.catch_warnings(record=True)
            self.warnings = self.caught.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        self.count += 1
        self.losses.append(module.latest_totals["main"])
        if self.count == WARM_UP + self.steps:
            self._synchronize()
            seconds = time.perf_counter() - self.start
            self.found["step_ms"] = 1000 * seconds / self.steps
            self.found["host_ms"] = 1000 * (seconds - module.waited) / self.steps
        elif self.count == WARM_UP + self.steps + PROFILED and self.card:
            self._synchronize()
            self.profiler.stop()
            self._read_profile()
        elif self.count == WARM_UP + self.steps + 2 * PROFILED and self.card:
            torch.cuda.set_sync_debug_mode("default")
            self.caught.__exit__(None, None, None)
            waits = [w for w in self.warnings if "synchroniz" in str(w.message)]
            places = collections.Counter(f"{Path(w.filename).name}:{w.lineno}" for w in waits)
            self.found |= {"waits_per_step": len(waits) / PROFILED, "waits": dict(places.most_common(12))}

    def _read_profile(self) -> None:
        cuda = torch.autograd.DeviceType.CUDA
        kernels = [
            e
            for e in self.profiler.key_averages()
            if e.device_type == cuda and not getattr(e, "is_user_annotation", False)
        ]
        kernels.sort(key=lambda e: -e.self_device_time_total)
        per_step = 1000 * PROFILED
        self.found["device_ms"] = sum(e.self_device_time_total for e in kernels) / per_step
        self.found["launches"] = sum(e.count for e in kernels) / PROFILED
        self.found["kernels_ms"] = {e.key[:90]: e.self_device_time_total / per_step for e in kernels[:25]}

    def _synchronize(self) -> None:
        if self.card:
            torch.cuda.synchronize()


def recipe_of(preset: str, dense_backend: str) -> DiffusionRecipe:
    torch.manual_seed(0)
    task = yaml.safe_load(EXPERIMENT.read_text())["task"]
    config = replace(PRESETS[preset], attention=AttentionConfig(dense_backend=dense_backend))
    return DiffusionRecipe(Transformer(config), DiffusionConfig.from_dict(task), {})


def fit(recipe: DiffusionRecipe, batch: Batch, steps: int, card: bool, compile_: bool) -> Watch:
    """The real trainer for a while on one batch, with fresh noise at every step."""
    settings = yaml.safe_load(EXPERIMENT.read_text())["optimizer"] | {"warmup_samples": 10 * batch.size}
    trainer_config = TrainerConfig(accelerator="gpu" if card else "cpu", compile=compile_, max_samples=10**9)
    precision = parallel.precision(trainer_config)
    trainer_config = from_mapping(TrainerConfig, vars(trainer_config) | {"precision": precision}, "trainer")
    config = TrainConfig(
        name="benchmark",
        recipe="diffusion",
        data={},
        optimizer=from_mapping(OptimizerConfig, settings, "optimizer"),
        trainer=trainer_config,
    )
    parallel.apply(recipe, trainer_config)
    watch = Watch(steps, card)
    total = WARM_UP + steps + (2 * PROFILED if card else 0)
    trainer = L.Trainer(
        accelerator=trainer_config.accelerator, devices=1, precision=precision, max_epochs=1, logger=False,
        callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Timed(recipe, config), Repeated(batch, total))
    return watch


def smoke(recipe: DiffusionRecipe, rows: int, device: torch.device) -> dict[str, Any]:
    """Losses fall, and the trained network's loss on one noised batch is the CPU's, and so is its gradient."""
    watch = fit(recipe, synthetic(rows, device), 30, device.type == "cuda", False)
    losses = torch.stack([x.detach().float().cpu() for x in watch.losses])
    noised, target = make_training_example(
        synthetic(16, torch.device("cpu")), recipe.diffusion, torch.Generator().manual_seed(1)
    )
    answers: dict[str, tuple[float, Tensor]] = {}
    for name, where, half in (("cpu", "cpu", False), ("fp32", device, False), ("bf16", device, True)):
        model = copy.deepcopy(recipe.model).to(where)
        there = {k: v.to(where) for k, v in target.items()}
        moved = noised.to(where)
        with torch.autocast(torch.device(where).type, torch.bfloat16, enabled=half):
            loss, _ = training_loss(model(moved), moved, there, recipe.diffusion)
        loss.backward()
        grads = [p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None]
        answers[name] = float(loss.detach()), torch.cat(grads)
    exact = answers["cpu"]
    found: dict[str, Any] = {
        "losses": [round(float(x), 4) for x in losses],
        "finite": bool(losses.isfinite().all()),
        "falls": bool(losses[-5:].mean() < 0.98 * losses[:5].mean()),
        "loss_cpu": exact[0],
    }
    for name in ("fp32", "bf16"):
        loss_value, grad = answers[name]
        found[f"loss_difference_{name}"] = abs(loss_value / exact[0] - 1)
        found[f"gradient_difference_{name}"] = float((grad - exact[1]).norm() / exact[1].norm())
    found["passed"] = (
        found["finite"] and found["falls"] and found["loss_difference_fp32"] < 1e-3
        and found["loss_difference_bf16"] < 2e-2 and found["gradient_difference_bf16"] < 0.1
    )  # fmt: skip
    return found


def attention_times(machine: Machine, rows: int) -> dict[str, float | str]:
    """Milliseconds of one layer's attention, forward and backward, under a mask of padded captions."""
    heads, n, width = 4, 24 + VIDEO.tokens + AUDIO.tokens, 64
    q, k, v = (
        torch.randn(rows, heads, n, width, device=machine.device, dtype=machine.dtype, requires_grad=True)
        for _ in range(3)
    )
    length = torch.randint(8, 25, (rows, 1))
    place = torch.arange(n)
    mask = ((place >= 24) | (place < length)).to(machine.device)  # (B, N)

    def both(out: Tensor) -> None:
        torch.autograd.grad(out.sum(), (q, k, v))

    calls = {
        "masked sdpa": lambda i: both(attention(q, k, v, key_mask=mask, backend="sdpa")),
        "masked triton": lambda i: both(attention(q, k, v, key_mask=mask, backend="triton")),
        "no mask sdpa": lambda i: both(attention(q, k, v, backend="sdpa")),
    }
    return machine.measure(calls)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--preset", default="s", choices=tuple(PRESETS))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes minutes")
    parser.add_argument("--attention", nargs="+", default=["auto", "triton"], help="its dense backends")
    parser.add_argument("--latents", type=Path, help="a folder of latent shards, instead of random numbers")
    parser.add_argument("--skip-smoke", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training_gpu.json"))
    args = parser.parse_args()
    machine = Machine(args.dry_run)
    device, card = machine.device, not args.dry_run
    if args.dry_run:
        args.batch, args.preset, args.steps, args.attention = [4], "xs", 3, ["auto"]
    warnings.filterwarnings("ignore", module="lightning")
    peak = measure_peak_flops(device, machine.dtype)
    result: dict[str, Any] = {**machine.describe(), "product_tflops": peak / 1e12, "preset": args.preset}
    print(f"bf16 product: {peak / 1e12:.0f} TFLOP/s", flush=True)
    if not args.skip_smoke:
        result["smoke"] = smoke(recipe_of(args.preset, "auto"), 16 if args.dry_run else 128, device)
        print("smoke:", {k: v for k, v in result["smoke"].items() if k != "losses"}, flush=True)
    result["attention_ms"] = attention_times(machine, args.batch[0])
    print("attention, one layer, ms:", result["attention_ms"], flush=True)
    result["runs"] = []
    for rows in args.batch:
        batch = load(args.latents, rows, device) if args.latents else synthetic(rows, device)
        forms = itertools.product((False, True) if args.compile else (False,), args.attention)
        for compile_, dense_backend in forms:
            recipe = recipe_of(args.preset, dense_backend)
            watch = fit(recipe, batch, args.steps, card, compile_)
            run = {"batch": rows, "compile": compile_, "attention": dense_backend, **watch.found}
            seconds = run["step_ms"] / 1000
            run["samples_per_second"] = rows / seconds
            run["mfu"] = 3 * recipe.forward_flops(batch) / seconds / peak
            if card:
                run["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
                torch.cuda.reset_peak_memory_stats()
            result["runs"].append(run)
            shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in run.items()}
            shown = {k: v for k, v in shown.items() if not isinstance(v, dict)}
            print(shown, flush=True)
            for kernel, ms in list(run.get("kernels_ms", {}).items())[:15]:
                print(f"    {ms:7.3f} ms  {kernel}")
            print("    waits:", run.get("waits"), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result.get("smoke", {"passed": True})["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
