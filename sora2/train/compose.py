"""The Hydra tree `configs/` with overrides, as the validated config of a run."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sora2.config import ConfigError, from_mapping
from sora2.train.config import TrainConfig

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"


def compose_config(overrides: list[str], config_dir: Path = CONFIG_DIR) -> TrainConfig:
    """The validated config of `configs/train.yaml` with `overrides`. Raises `ConfigError` on any mistake."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir), version_base=None):
            composed = compose("train", overrides=overrides)
        mapping: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, config_dir)) from error
    mapping = {k: v for k, v in mapping.items() if k not in ("experiment", "debug", "hydra")}
    return from_mapping(TrainConfig, mapping)


def _explain(error: Exception, config_dir: Path) -> str:
    """Hydra's message in one line, with the closest known key where it complains of an unknown one."""
    text = " ".join(str(error).split())
    unknown = re.search(r"Key '([^']+)' is not in struct", text) or re.search(
        r"Could not override '([^']+)'", text
    )
    if unknown is None:
        return f"config: {text}"
    full = re.search(r"full_key: (\S+)", text)
    key = full.group(1) if full else unknown.group(1)
    with initialize_config_dir(str(config_dir), version_base=None):
        known = _keys(OmegaConf.to_container(compose("train"), resolve=False))
    close = difflib.get_close_matches(key, known, n=1)
    hint = (
        f"; did you mean {close[0]!r}?"
        if close
        else "; configs/train.yaml and the groups beside it have the known ones"
    )
    return f"unknown config key {key!r}{hint}"


def _keys(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return []
    return [f"{prefix}{k}" for k in value] + [n for k, v in value.items() for n in _keys(v, f"{prefix}{k}.")]
