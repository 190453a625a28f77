"""What every scene provides, and the registry that finds it by name.

A scene is a few pure functions. Adding one (talk, strike, weather, story ...) is a file in `scenes/` with a
class that has them, decorated with `@register_scene`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from sora2.toybox.config import ToyboxConfig, ToyboxError


class Scene(Protocol):
    """Parameters -> world -> pictures, sound, truth. `P` and `W` are the scene's own types."""

    name: str

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> Any:
        """Draw the parameters of clip `index`, then set the commanded `overrides`.

        Overrides never change what is drawn for the rest. Raises `ToyboxError` on an unknown or impossible
        override.
        """
        ...

    def simulate(self, config: ToyboxConfig, parameters: Any) -> Any:
        """Run the world for the length of the clip."""
        ...

    def render_video(self, config: ToyboxConfig, parameters: Any, world: Any) -> np.ndarray:
        """(T, H, W, 3) uint8."""
        ...

    def render_audio(
        self, config: ToyboxConfig, parameters: Any, world: Any, rng: np.random.Generator
    ) -> np.ndarray:
        """(channels, S) float32 in (-1, 1)."""
        ...

    def truth(self, config: ToyboxConfig, parameters: Any, world: Any) -> dict[str, Any]:
        """Everything that is known, as plain JSON values."""
        ...

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        """The named attributes behind the caption."""
        ...

    def caption(self, attributes: dict[str, str], rng: np.random.Generator) -> str:
        """A paraphrase that names the attributes."""
        ...


SCENES: dict[str, Scene] = {}

S = TypeVar("S", bound=Scene)


def register_scene(name: str) -> Callable[[type[S]], type[S]]:
    """Class decorator: make the scene available as `name`."""

    def register(scene: type[S]) -> type[S]:
        if name in SCENES:
            raise ToyboxError(f"scene {name!r} is registered twice")
        instance = scene()
        instance.name = name
        SCENES[name] = instance
        return scene

    return register


def get_scene(name: str) -> Scene:
    """The scene called `name`; `ToyboxError` lists the known ones."""
    if name not in SCENES:
        raise ToyboxError(f"scene {name!r} is unknown: choose from {', '.join(sorted(SCENES))}")
    return SCENES[name]
