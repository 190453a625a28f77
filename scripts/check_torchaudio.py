"""Make torchaudio importable beside a CPU-only torch.

The torchaudio 2.11 wheel carries extension modules linked against CUDA libraries, so with a CPU build of torch its
import fails, although everything used here (resampling, mel filters) is pure Python. torchaudio itself treats a
missing extension as "no extension": on a CPU-only torch this script removes the extension files, and proves that the
import then works. With a CUDA torch it only checks.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


def import_error() -> str:
    """The error text of `import torchaudio` in a fresh interpreter; empty when it works."""
    done = subprocess.run([sys.executable, "-c", "import torchaudio"], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr


def main() -> int:
    error = import_error()
    if not error:
        return 0
    import torch

    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        print("torchaudio is not installed: run `make setup`", file=sys.stderr)
        return 1
    if torch.version.cuda is not None:
        print(f"torchaudio does not import beside torch {torch.__version__}:\n{error}", file=sys.stderr)
        return 1
    for library in (Path(spec.origin).parent / "lib").glob("*.so"):
        print(f"CPU-only torch: removing the CUDA-linked {library.name}")
        library.unlink()
    error = import_error()
    if error:
        print(f"torchaudio still does not import:\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
