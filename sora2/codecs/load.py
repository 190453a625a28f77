"""The codecs there are: build one from a configuration, load one from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sora2.codecs.adapters import load_diffusers
from sora2.codecs.base import CodecError, LatentCodec, read_weights
from sora2.codecs.spectral_vae import SpectralVAE
from sora2.codecs.transform import AudioMDCT, VideoDCT
from sora2.codecs.video_vae import VideoVAE
from sora2.config import from_mapping

#: All of this project; of each, `kind` and `config_class` name it.
CODECS: tuple[type[LatentCodec], ...] = (VideoVAE, SpectralVAE, VideoDCT, AudioMDCT)


def build_codec(config: Any) -> LatentCodec:
    """The codec of a configuration, untrained."""
    classes = {c.config_class: c for c in CODECS}
    return classes[type(config)](config)


def read_codec_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a codec folder, with an error that says what is missing."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CodecError(
            f"codec folder {folder} does not exist. Train one with `sora2 train experiment=codec_video` (or "
            "codec_audio), or point to the shipped checkpoints/video_vae and checkpoints/audio_vae; a codec is never "
            "initialised at random"
        )
    if not (folder / "config.json").is_file():
        raise CodecError(
            f"codec folder {folder} has no config.json: it is not a codec; export or copy it again"
        )
    try:
        stored = json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise CodecError(
            f"{folder / 'config.json'} is not JSON ({error}); export or copy the codec again"
        ) from error
    if not isinstance(stored, dict) or not ({"kind", "config"} <= stored.keys() or "_class_name" in stored):
        raise CodecError(
            f"{folder / 'config.json'} lacks the keys 'kind' and 'config'; it is not a codec of this project"
        )
    return stored


def load_codec(folder: str | Path) -> Any:
    """The codec saved in `folder`, in float32, in evaluation mode and without gradients.

    A folder of the diffusers package is loaded through its adapter. Raises CodecError, never invents weights.
    """
    folder = Path(folder)
    stored = read_codec_config(folder)
    if "_class_name" in stored:
        return load_diffusers(folder)
    if not (folder / "model.safetensors").is_file():
        raise CodecError(
            f"codec folder {folder} has no model.safetensors: its export was interrupted, or the weights were not "
            "copied; export or copy it again"
        )
    classes = {c.kind: c for c in CODECS}
    if stored["kind"] not in classes:
        raise CodecError(
            f"{folder / 'config.json'}: kind={stored['kind']!r} is not one of {', '.join(sorted(classes))}"
        )
    codec_class = classes[stored["kind"]]
    codec = codec_class(
        from_mapping(codec_class.config_class, stored["config"], where=f"{folder}/config.json")
    )
    try:
        tensors = read_weights(folder / "model.safetensors")
        codec.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise CodecError(
            f"{folder / 'model.safetensors'} does not hold the weights that config.json describes: {error}. "
            "Export or copy the codec again"
        ) from error
    return codec.eval().requires_grad_(False)


def read_info(folder: str | Path) -> dict[str, Any]:
    """What was recorded beside the weights: data, samples, command."""
    return read_codec_config(folder).get("info", {})
