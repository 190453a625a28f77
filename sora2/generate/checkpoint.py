"""A checkpoint folder -> model and codecs that belong together, or an error that says what does not fit.

The folder holds `model.safetensors` and `config.yaml` (model, codecs with their fingerprints, clip,
sampling). Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import init_empty_weights, load_checkpoint_and_dispatch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from sora2.codecs import Codecs, TextEncoder, build_text_encoder, load_codecs
from sora2.codecs.text import reads_times
from sora2.config import from_mapping
from sora2.errors import UserError
from sora2.generate.grid import Grid, World
from sora2.generate.request import SamplingConfig
from sora2.model import Transformer, TransformerConfig
from sora2.model.config import upgrade
from sora2.weights import PEAKS, is_quantized, unpack


class CheckpointError(UserError):
    """A checkpoint folder that is incomplete, damaged, or does not fit its codecs."""


@dataclass(frozen=True)
class Checkpoint:
    """The description of a checkpoint; weights are loaded by `load_model`."""

    folder: Path
    config: dict[str, Any]
    model: TransformerConfig

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    def sampling(self) -> SamplingConfig:
        """Its own settings; the shift of the noise levels is that of training unless they say otherwise."""
        settings = dict(self.config.get("sampling", {}))
        levels = self.config.get("diffusion", {}).get("levels", {})
        if "shift" in levels:
            settings.setdefault("shift", levels["shift"])
        return from_mapping(SamplingConfig, settings, f"{self.folder / 'config.yaml'}: sampling")

    def sha256(self) -> str:
        """Of the weights file."""
        with self.weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Raises CheckpointError when a file is missing or damaged, ConfigError for foreign keys of the model."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"--checkpoint {folder}: there is no such folder; give the export folder of a run"
        )
    for name in ("config.yaml", "model.safetensors"):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"--checkpoint {folder} has no {name}; give the export folder of a run (training "
                "checkpoints, *.ckpt, are for resuming and are not read here)"
            )
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except yaml.YAMLError as error:
        raise CheckpointError(f"{folder / 'config.yaml'} is not YAML: {error}") from error
    missing = [
        key for key in ("model", "codecs", "clip") if not isinstance(config, dict) or key not in config
    ]
    if missing:
        raise CheckpointError(f"{folder / 'config.yaml'} lacks {missing}; export the run again")
    return Checkpoint(folder, config, from_mapping(TransformerConfig, upgrade(config["model"]), "model"))


def open_codecs(checkpoint: Checkpoint, video: str | None = None, audio: str | None = None) -> Codecs:
    """The codecs that the model was trained on. `video` and `audio` override where they lie, not what they
    are.

    Raises:
        CheckpointError: a fingerprint differs from the one that made the training latents.
        CodecError: a codec folder is missing or damaged.
    """
    named = checkpoint.config["codecs"]
    paths = {
        "video": named["video"] if video is None else video,
        "audio": named["audio"] if audio is None else audio,
    }
    located = {name: _locate(checkpoint.folder, path) for name, path in paths.items()}
    codecs = load_codecs(located["video"], located["audio"], *_text(checkpoint))
    expected = named.get("fingerprints", {})
    for name, found in codecs.fingerprints().items():
        if name in expected and expected[name] != found:
            where = paths.get(name, named.get("text"))
            raise CheckpointError(
                f"the {name} codec {where} has fingerprint {found}, but {checkpoint.folder} was trained on "
                f"latents of {expected[name]}: the model cannot read its latents. Point to the right codec"
                + (f" (--{name}-codec DIR)" if name in paths else "")
                + ", or encode the data and train again"
            )
    return codecs


def _text(checkpoint: Checkpoint) -> tuple[str, int | None]:
    """Name of the text encoder, and the longest text it takes (None: its own)."""
    named = checkpoint.config["codecs"]
    return named.get("text", "minilm"), named.get("text_tokens")


def text_encoder(checkpoint: Checkpoint) -> TextEncoder:
    """That the model was trained with."""
    return build_text_encoder(*_text(checkpoint))


def _locate(folder: Path, path: str) -> str:
    """A codec path as given, or beside the checkpoint, so that a folder can be moved with its codecs."""
    beside = folder / Path(path).name
    return str(beside) if not Path(path).exists() and beside.exists() else path


def check_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Compare names and shapes without reading the weights.

    Raises:
        CheckpointError: the file is damaged, or of another preset.
    """
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    try:
        with safe_open(str(checkpoint.weights), framework="pt") as file:
            names = [name for name in file.keys() if not name.endswith(PEAKS)]  # noqa: SIM118
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{checkpoint.weights} is damaged ({error}); copy it again or export the run again"
        ) from error
    for name in sorted(own.keys() | stored.keys()):
        if own.get(name) != stored.get(name):
            raise CheckpointError(
                f"{checkpoint.weights} does not fit the model of config.yaml: {name} is "
                f"{stored.get(name, 'absent')} in the file and "
                f"{own.get(name, 'absent')} in the model; the two files are of different presets"
            )


def load_model(
    checkpoint: Checkpoint,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: str | dict[str, Any] | None = None,
    max_memory: dict[Any, Any] | None = None,
    offload_folder: str | None = None,
) -> Transformer:
    """The transformer in evaluation mode, built without allocating its weights twice.

    `device_map` ("auto", "balanced", or module name -> device) spreads a model over several devices, the CPU
    and the disk through accelerate; blocks are never split.

    Raises:
        CheckpointError: see `check_weights`; weights in 8 bits with a `device_map`.
    """
    with init_empty_weights(include_buffers=False):
        model = Transformer(checkpoint.model)
    check_weights(checkpoint, model)
    if device_map is None:
        weights = load_file(str(checkpoint.weights), device=str(device))
        weights = unpack(weights) if is_quantized(weights) else weights
        model.load_state_dict({name: t.to(dtype) for name, t in weights.items()}, assign=True)
        model.to(device)
    else:
        _check_spread(checkpoint)
        model = load_checkpoint_and_dispatch(
            model,
            checkpoint=str(checkpoint.weights),
            device_map=device_map,
            max_memory=max_memory,
            no_split_module_classes=["Block"],
            preload_module_classes=["Block", "Modulation"],  # they use their children's weights directly
            offload_folder=offload_folder,
            dtype=dtype,
        )
    return model.eval().requires_grad_(False)


def _check_spread(checkpoint: Checkpoint) -> None:
    """`CheckpointError` for weights in 8 bits, which accelerate would spread as they are."""
    with safe_open(str(checkpoint.weights), framework="pt") as file:
        if is_quantized(file.keys()):
            raise CheckpointError(
                f"{checkpoint.weights} is stored in 8 bits, which a device map cannot spread: leave --device-map away, "
                "or export the run again with --dtype bfloat16"
            )


def make_world(checkpoint: Checkpoint, codecs: Codecs) -> World:
    """The defaults and limits of a checkpoint.

    Raises:
        CheckpointError: the model's token widths are not those of the codecs.
    """
    clip = checkpoint.config["clip"]
    shape = codecs.video_shape(
        clip["frames"], clip["height"], clip["width"], clip["fps"], patch_size=checkpoint.model.patch_size
    )
    sound = codecs.audio_shape(shape.seconds)
    for name, width in codecs.token_widths(shape, sound).items():
        if checkpoint.model.token_width(name) != width:
            raise CheckpointError(
                f"{checkpoint.folder}: model.{name}_width is {checkpoint.model.token_width(name)}, but a "
                f"{name} token of its codec has {width} numbers; model and codec do not belong together"
            )
    for name, found in (("sample_rate", sound.sample_rate), ("channels", sound.channels)):
        if clip.get(name, found) != found:
            raise CheckpointError(
                f"{checkpoint.folder}: clip.{name}={clip[name]}, but its audio codec works at {found}"
            )
    return World(
        grid=Grid(shape.height, shape.width, shape.fps, sound.sample_rate, sound.channels),
        frames=shape.frames,
        temporal_stride=shape.temporal_stride,
        cell=shape.spatial_stride * shape.patch_size,
        sampling=checkpoint.sampling(),
        chunk_seconds=checkpoint.model.attention.chunk_seconds,
        reads_times=reads_times(codecs.text),
        references=bool(checkpoint.config.get("references", False)),
    )
