"""Files that are there whole or not at all: written under a temporary name, flushed, renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from sora2.errors import UserError

_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(temporary)` and rename the result to `path`.

    On any failure (a full disk, Ctrl-C) the temporary file is removed and an earlier `path` is untouched; a failure
    of the file system becomes a `UserError` that names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)  # some writers make files that only their owner may read
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) or "No space left" in str(error):
            raise UserError(
                f"could not write {path}: {error}. Earlier files are untouched; free space or choose another folder."
            ) from error
        raise


def save_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Contiguous CPU copies of `tensors`, atomically."""
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_atomic(path, lambda temporary: save_file(copies, str(temporary), metadata=metadata))


def save_text(text: str, path: Path) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(text))


def save_json(value: Any, path: Path) -> None:
    save_text(json.dumps(value, indent=1, sort_keys=True) + "\n", path)
