"""What every scene provides, and the registry that finds it by name.

A scene turns parameters into a world, and describes that world: as layers (the renderer knows the styles, light
and camera), as sound (the mixer adds the ambience and the limiter), as truth, as phrases (the grammar builds the
captions). Adding one is a file in `scenes/` with a class that has the methods of `Scene`, decorated with
`@register_scene("name")` and imported by `scenes/__init__.py`. The smallest scene, a ball that hangs and ticks:

    @dataclass(frozen=True)
    class Parameters:
        controls: Controls            # every scene's parameters have them
        x: float

    @register_scene("tick")
    class Tick:
        name: str
        splits = EVERYDAY_SPLITS      # see below; with "test_physics_ood" or "cameo" where they mean something
        held_out = ({"style": "pencil", "light": "dusk"},)

        def sample(self, config, index, overrides):
            rng = stream(config.seed, config.split, self.name, index, "parameters")

            def draw():               # called until the split accepts what it draws
                controls = draw_controls(config, rng)
                return Parameters(controls, float(rng.uniform(0.2, 0.8)))

            drawn = draw_for_split(config, draw, lambda p: [p.controls.names()], self.held_out)
            controls, rest = command(drawn.controls, overrides)
            reject_unknown(rest, ("x",))
            return replace(drawn, controls=controls, **rest)

        def simulate(self, config, parameters):          # the whole clip, in seconds
            return np.arange(0.5, config.seconds, 0.5)   # here: when it ticks

        def picture(self, config, parameters, world, seconds):       # any instants of the clip, (T,)
            ball = Layer(circle(0.1), (222, 40, 44), x=parameters.x, y=0.4, surface="dome", ground=0.9)
            return Picture(room("plain", floor=0.9), [ball])

        def sound(self, config, parameters, world, rng):             # without ambience, not limited
            audio = np.zeros((config.channels, config.samples), np.float32)
            pan = pan_position(parameters.x, config.world_size[0])
            add_impacts(audio, [Impact(t, 0.3, pan, "wood", "small") for t in world], config.sample_rate)
            return audio

        def truth(self, config, parameters, world):
            return {"x": parameters.x, "events": [{"onset_seconds": float(t), "kind": "tick"} for t in world]}

        def attributes(self, truth):                                 # without the controls
            return {}

        def phrases(self, truth, rng):
            return Phrases(label=("ticking red ball",), subject="a red ball", action="hangs and ticks",
                           sound="A wooden tick every half second.")

The core adds to truth: scene, seed, split, index, key, shape of the clip, the controls by name (style, pacing,
light, ambience, ambience_level), `camera` (its kind, and per frame x, y, zoom), caption, captions and prompt.

Rules. World units: 1 is the picture's shorter side, x right, y down, origin top left; `config.world_size` is what the
still camera sees, but others look beyond it by up to 0.25 on each side, so backdrops and floors go on there. Frame k
shows the instant k / fps, sample n the instant n / sample_rate, sounds start exactly at `onset_seconds`. `picture` is
asked for any instants of the clip, in pieces, and must be a pure function of them. `sample` draws everything
(also textures and melodies), so that truth and overrides see it; `sound` gets an own random stream for noise.
Pacing is the scene's to act on (parameters.controls.pacing). A scene with its own weather sets
controls.ambience to "silence", makes the sound itself, and names it: `own_ambience` in the truth and in the phrases.
No caches without a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from sora2.toybox.camera import Camera, CameraMove
from sora2.toybox.captions import Phrases
from sora2.toybox.config import ToyboxConfig, ToyboxError
from sora2.toybox.controls import CHOICES, Controls
from sora2.toybox.layers import Picture
from sora2.toybox.styles import Look

#: The splits that every scene has.
EVERYDAY_SPLITS = ("train", "validation", "test", "test_compositional")


class HasControls(Protocol):
    @property
    def controls(self) -> Controls: ...


class Scene(Protocol):
    """Parameters -> world -> picture, sound, truth, phrases. Parameters and world are the scene's own types."""

    name: str

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the scene can be drawn for (a class attribute will do)."""
        ...

    @property
    def held_out(self) -> tuple[Mapping[str, str], ...]:
        """Combinations of attributes that occur in `test_compositional` alone (a class attribute will do)."""
        ...

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> Any:
        """Draw the parameters of clip `index`, then set the commanded `overrides`.

        Overrides never change what is drawn for the rest. Raises `ToyboxError` on an unknown or impossible
        override.
        """
        ...

    def simulate(self, config: ToyboxConfig, parameters: Any) -> Any:
        """Run the world for the length of the clip."""
        ...

    def picture(self, config: ToyboxConfig, parameters: Any, world: Any, seconds: np.ndarray) -> Picture:
        """What is seen at the instants `seconds` (T,)."""
        ...

    def sound(
        self, config: ToyboxConfig, parameters: Any, world: Any, rng: np.random.Generator
    ) -> np.ndarray:
        """(channels, S) float32 of everything but the ambience, before the limiter."""
        ...

    def truth(self, config: ToyboxConfig, parameters: Any, world: Any) -> dict[str, Any]:
        """Everything that is known, as plain JSON values; `events` in order of `onset_seconds`."""
        ...

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        """The scene's own named attributes behind the caption."""
        ...

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        """The scene in words; `rng` picks among paraphrases."""
        ...


@runtime_checkable
class Composite(Protocol):
    """A scene made of shots of others, each with its own backdrop and framing: it films itself."""

    def film(
        self, config: ToyboxConfig, parameters: Any, world: Any, look: Look, move: CameraMove
    ) -> tuple[np.ndarray, Camera]:
        """(T, H, W, 3) uint8 pictures, and the camera that took them."""
        ...


@runtime_checkable
class Prompted(Protocol):
    """A scene that knows what a person would type for it; others get `sora2.toybox.prompts.prompt`."""

    def prompt(self, truth: dict[str, Any], rng: np.random.Generator) -> str:
        """A few words about some of what is seen and heard."""
        ...


SCENES: dict[str, Scene] = {}

S = TypeVar("S", bound=Scene)
P = TypeVar("P")

#: Draws after which a split is found to be empty.
MOST_DRAWS = 10_000


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


def met_combinations(
    carriers: Iterable[Mapping[str, str]], held_out: Iterable[Mapping[str, str]]
) -> list[dict[str, str]]:
    """Those of `held_out` that one of the carriers (the clip, or the clip with one of its things) has whole."""
    carriers = list(carriers)
    return [dict(c) for c in held_out if any(c.items() <= dict(carrier).items() for carrier in carriers)]


def draw_for_split(
    config: ToyboxConfig,
    draw: Callable[[], P],
    carriers: Callable[[P], Iterable[Mapping[str, str]]],
    held_out: Iterable[Mapping[str, str]],
) -> P:
    """Call `draw` until the split accepts the result.

    `test_compositional` wants a held-out combination, `test_physics_ood` and `cameo` take any draw, the other
    splits want none. Raises `ToyboxError` when the config allows no held-out combination at all.
    """
    held_out = tuple(held_out)
    for _ in range(MOST_DRAWS):
        drawn = draw()
        met = bool(met_combinations(carriers(drawn), held_out))
        if config.split in ("test_physics_ood", "cameo") or met == (config.split == "test_compositional"):
            return drawn
    raise ToyboxError(
        f"split {config.split!r} is empty under styles={config.styles}, cameras={config.cameras}, "
        f"lights={config.lights}, obstacles={config.obstacles}: allow more of them"
    )


def reject_unknown(overrides: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise `ToyboxError` for an override that is neither a control nor one of `known`."""
    known = tuple(known)
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise ToyboxError(
            f"unknown attribute {', '.join(map(repr, unknown))}: choose from {', '.join((*CHOICES, *known))}"
        )
