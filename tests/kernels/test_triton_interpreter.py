"""The Triton kernels in Triton's CPU interpreter, which must be chosen before Triton is imported: in a process of its
own, one for all gates. Run as a script, this file is that process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sora2.kernels import use_cpu_kernels
from sora2.kernels.triton import KernelError, gpu_kernels, takes, use_gpu_kernels
from sora2.kernels.triton.gates import GATES, Bench, run_gates
from sora2.kernels.triton.interpreter import repair
from sora2.kernels.triton.operator_gates import OPERATOR_GATES
from sora2.kernels.triton.token_gates import TOKEN_GATES

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def reports() -> dict[str, dict]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    run = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return {r["gate"]: r for r in map(json.loads, run.stdout.splitlines())}


def model_in_eager_mode(bench: Bench) -> None:
    """A transformer takes the token-wise kernels and gives what it gives without them: velocities and gradients."""
    from sora2.model import Transformer, TransformerConfig
    from sora2.types import Batch, Modality
    from tests.model.tiny import awake

    config = TransformerConfig(
        width=24,
        depth=1,
        heads=2,
        video_width=4,
        audio_width=3,
        text_width=5,
        level_features=8,
        level_width=8,
    )
    generator = torch.Generator().manual_seed(0)
    model = awake(Transformer(config, generator), generator).to(bench.device)

    def tokens(n: int, width: int, level: float | None) -> Modality:
        places, latent = (
            torch.rand(2, n, 3, generator=generator),
            torch.randn(2, n, width, generator=generator),
        )
        levels = torch.rand(2, n, generator=generator) if level is None else torch.full((2, n), level)
        known = torch.ones(2, n, dtype=torch.bool)
        return Modality(*(x.to(bench.device) for x in (latent, places, levels, known)))

    batch = Batch(video=tokens(5, 4, None), audio=tokens(3, 3, 0.5), text=tokens(2, 5, 0.0))
    answers = []
    use_cpu_kernels("plain")
    for mode in ("plain", "triton"):
        use_gpu_kernels(mode)
        assert takes(next(model.parameters())) == (mode == "triton")
        out = model(batch)
        loss = sum(x.square().sum() for x in out.values())
        answers.append(
            [*out.values(), *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)]
        )
    use_gpu_kernels()
    use_cpu_kernels()
    for plain, ours in zip(*answers, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


EVERY_GATE = (*GATES, *OPERATOR_GATES, *TOKEN_GATES, model_in_eager_mode)


@pytest.mark.parametrize("gate", [g.__name__ for g in EVERY_GATE])
def test_gate(reports: dict[str, dict], gate: str) -> None:
    assert reports[gate]["passed"], reports[gate]["message"]


def test_without_a_gpu_they_are_left_away(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.zeros(1)
    assert not takes(here) and "CUDA" in gpu_kernels(here.device).reason
    monkeypatch.setenv("SORA2_GPU_KERNELS", "tritn")
    with pytest.raises(
        KernelError, match=r"'tritn' are unknown: use one of auto, triton, plain \(SORA2_GPU_KERNELS\)"
    ):
        use_gpu_kernels()
    with pytest.raises(KernelError, match="cannot run: Triton kernels need a CUDA device"):
        use_gpu_kernels("triton")
        gpu_kernels(here.device)
    use_gpu_kernels("auto")


@pytest.mark.gpu
def test_a_model_on_a_gpu_takes_them() -> None:
    model_in_eager_mode(Bench.card())


if __name__ == "__main__":
    repair()
    for report in run_gates(Bench.interpreter(), EVERY_GATE):
        print(json.dumps(vars(report)), flush=True)
