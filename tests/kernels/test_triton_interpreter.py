"""The Triton kernels in Triton's CPU interpreter, which must be chosen before Triton is imported: in a process of its
own, one for all gates. Run as a script, this file is that process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sora2.kernels.triton.gates import GATES, Bench, run_gates
from sora2.kernels.triton.interpreter import repair
from sora2.kernels.triton.operator_gates import OPERATOR_GATES
from sora2.kernels.triton.token_gates import TOKEN_GATES

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def reports() -> dict[str, dict]:
    root = Path(__file__).parents[2]
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    run = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, cwd=root
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return {r["gate"]: r for r in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("gate", [g.__name__ for g in GATES + OPERATOR_GATES + TOKEN_GATES])
def test_gate(reports: dict[str, dict], gate: str) -> None:
    assert reports[gate]["passed"], reports[gate]["message"]


if __name__ == "__main__":
    repair()
    for report in run_gates(Bench.interpreter(), GATES + OPERATOR_GATES + TOKEN_GATES):
        print(json.dumps(vars(report)), flush=True)
