"""Networks whose weights no package ships: read from a path that the user gives, never downloaded.

CLIP, CLAP, DINO and VideoMAE are folders as transformers writes them (config.json, weights, preprocessor, tokenizer).
The others are TorchScript files, for their code is nobody's library: `SIGNATURES` says what each must take and return;
`torch.jit.trace` or `torch.jit.script` of the authors' module makes one.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sora2.metrics.values import MetricError
from sora2.metrics.weights import find_weights

Array = NDArray[np.float64]

#: Weights -> what `forward` of the TorchScript file takes and returns.
SIGNATURES: dict[str, str] = {
    "imagebind": "(frames (N, 3, 224, 224) normalised as CLIP's, mel (M, 1, 128, 204) normalised as ImageBind's) -> "
    "((N, 1024), (M, 1024))",
    "synchformer": "(frames (120, 3, 224, 224) 0 to 1 at 25 fps, sound (76800,) at 16 kHz) -> logits (21,) of offsets "
    "of sound behind picture, -2 to 2 s",
    "i3d": "(video (B, 3, T, H, W) 0 to 255, rescale: bool, resize: bool, return_features: bool) -> (B, 400)",
    "vggish": "(log-mel (N, 1, 96, 64)) -> (N, 128)",
    "raft": "(first (1, 3, H, W) 0 to 255, second) -> flow (1, 2, H, W) in pixels",
    "musiq": "(picture (1, 3, H, W) 0 to 1) -> score, 0 to 100",
}


def run_script(name: str, *inputs: Any) -> Any:
    """What the TorchScript file of `name` makes of `inputs`.

    Raises:
        MetricError: the file is missing, is no TorchScript, or takes something else; the message has the signature.
    """
    script = _script(find_weights(name), name)
    try:
        with torch.no_grad():
            return script(*inputs)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise MetricError(f"--weights {name}: its forward must be {SIGNATURES[name]}: {reason}") from error


@functools.lru_cache(maxsize=4)
def _script(path: Path, name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise MetricError(
            f"--weights {name}={path} is no TorchScript file (torch.jit.save) with forward {SIGNATURES[name]}"
        ) from error


def from_transformers(folder: Path, *parts: str) -> tuple[Any, ...]:
    """The named Auto classes of transformers, each read from `folder`; the last of them is the network.

    Raises:
        MetricError: transformers is not installed, or the folder lacks one of them.
    """
    return _read_folder(folder, parts)


@functools.lru_cache(maxsize=4)
def _read_folder(folder: Path, parts: tuple[str, ...]) -> tuple[Any, ...]:
    try:
        import transformers
    except ImportError as error:
        raise MetricError("these metrics need transformers: pip install sora2[hub]") from error
    found = []
    for part in parts:
        try:
            found.append(getattr(transformers, part).from_pretrained(folder, local_files_only=True))
        except (OSError, ValueError, KeyError) as error:
            raise MetricError(f"{folder} holds nothing that transformers.{part} can read: {error}") from error
    found[-1].eval()
    return tuple(found)


def picture_embeddings(name: str, frames: NDArray[np.uint8]) -> Array:
    """(T, D) of CLIP's image tower ("clip-b32") or DINO's class token ("dino-b16"), for (T, H, W, 3)."""
    processor, model = from_transformers(find_weights(name), "AutoImageProcessor", "AutoModel")
    inputs = processor(images=list(frames), return_tensors="pt")
    if hasattr(model, "get_image_features"):
        return _run(lambda: model.get_image_features(**inputs))
    return _run(lambda: model(**inputs).last_hidden_state[:, 0])


def text_embedding(name: str, text: str) -> Array:
    """(D,) of CLIP's or CLAP's text tower, cut to the length that it takes."""
    tokenizer, model = from_transformers(find_weights(name), "AutoTokenizer", "AutoModel")
    config = getattr(model.config, "text_config", model.config)
    longest = min(int(config.max_position_embeddings), 77)
    inputs = tokenizer([text], return_tensors="pt", truncation=True, max_length=longest)
    return _run(lambda: model.get_text_features(**inputs))[0]


def sound_embedding(sound: NDArray[np.float32]) -> Array:
    """(D,) of CLAP's sound tower, for (S,) at the rate that its folder asks for, see `clap_rate`."""
    extractor, model = from_transformers(find_weights("clap"), "AutoFeatureExtractor", "AutoModel")
    inputs = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return _run(lambda: model.get_audio_features(**inputs))[0]


def clap_rate() -> int:
    """Samples per second that CLAP takes."""
    return int(from_transformers(find_weights("clap"), "AutoFeatureExtractor", "AutoModel")[0].sampling_rate)


def video_embedding(frames: NDArray[np.uint8]) -> Array:
    """(D,) mean of VideoMAE's last states, for as many frames of (T, H, W, 3) as it takes, spread over the clip."""
    processor, model = from_transformers(find_weights("videomae"), "AutoImageProcessor", "AutoModel")
    chosen = np.linspace(0, len(frames) - 1, model.config.num_frames).round().astype(int)
    inputs = processor([list(frames[chosen])], return_tensors="pt")
    return _run(lambda: model(**inputs).last_hidden_state.mean(dim=1))[0]


def _run(forward: Callable[[], Any]) -> Array:
    """A tower's output as numbers: newer versions of transformers wrap it."""
    with torch.no_grad():
        found = forward()
    return (found if isinstance(found, torch.Tensor) else found.pooler_output).double().numpy()
