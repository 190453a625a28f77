"""Which kernels were asked for, and which run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sora2.errors import UserError


@dataclass(frozen=True)
class KernelChoice:
    """Which kernels run, "compiled", "triton" or "plain", and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def asked_mode(mode: str | None, variable: str, modes: tuple[str, ...], error: type[UserError]) -> str:
    """`mode`, or with None what the environment variable says, "auto" without it.

    Raises:
        UserError: of the type `error`; a mode that is none of `modes`.
    """
    asked = os.environ.get(variable, "auto") if mode is None else mode
    if asked not in modes:
        raise error(f"kernels {asked!r} are unknown: use one of {', '.join(modes)} ({variable})")
    return asked
