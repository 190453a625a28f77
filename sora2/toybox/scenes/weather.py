"""Scene `weather`: rain, wind and thunder over a meadow, seen and heard together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sora2.toybox.captions import WORDS, Phrases, enumerate_things
from sora2.toybox.config import ToyboxConfig, check_choice, check_range
from sora2.toybox.controls import Controls, command, draw_controls
from sora2.toybox.layers import Picture
from sora2.toybox.randomness import pick, stream
from sora2.toybox.scene import (
    EVERYDAY_SPLITS,
    draw_for_split,
    met_combinations,
    register_scene,
    reject_unknown,
)
from sora2.toybox.scenes.weather_picture import (
    LEAVES,
    cloud_layers,
    flash_layer,
    flash_strength,
    grass_layer,
    lightning_layers,
    meadow,
    rain_layer,
    tip,
    tree_layers,
    tree_places,
)
from sora2.toybox.scenes.weather_world import (
    GUST_PACES,
    HORIZON,
    NEAR_GROUND,
    RAINS,
    SLANT,
    STRIKE_GAP_SECONDS,
    THUNDERS,
    WINDS,
    Drops,
    Gusts,
    Strike,
    depth_scale,
    draw_drops,
    drop_pitch,
)
from sora2.toybox.sound import LEVEL_GAIN, pan_position
from sora2.toybox.thunder import add_thunder, thunder_level
from sora2.toybox.weather_sound import add_drop, rain_hiss, wind_roar

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "rain": tuple(RAINS),
    "wind": tuple(WINDS),
    "thunder": ("none", *THUNDERS),
}
#: What can be commanded besides the controls; see `WeatherParameters`.
COMMANDS = (*_CHOICES, "flash_seconds", "distance_metres", "lightning_x")
_KINKS = 5


@dataclass(frozen=True)
class WeatherParameters:
    controls: Controls
    rain: str
    wind: str
    thunder: str
    gust_phases: tuple[float, float, float]
    flash_seconds: float  # of the first lightning
    distance_share: float  # 0 to 1: how far in the range of near or far thunder
    lightning_x: float  # share of the picture's width
    kinks: tuple[float, ...]  # sideways turns of the bolt, world units
    drops_seed: int
    distance_metres: float | None = None  # commanded

    @property
    def metres(self) -> float:
        """To the first lightning."""
        if self.distance_metres is not None:
            return self.distance_metres
        low, high = THUNDERS[self.thunder]
        return low + (high - low) * self.distance_share


@dataclass(frozen=True)
class Weather:
    """What happens over the clip."""

    gusts: Gusts
    near: Drops
    near_hz: np.ndarray
    far: Drops
    strikes: tuple[Strike, ...]

    def near_levels(self) -> np.ndarray:
        """(N,) peak amplitude of near drops: the nearer the louder."""
        return 0.16 * depth_scale(self.near.y) ** 2


@register_scene("weather")
class WeatherScene:
    """Drops that tick as they land, gusts that bend trees as they roar, thunder after its lightning.

    Truth: rain, wind, thunder (names); rain_intensity, rain_slant (sideways over downwards), far_drops_per_second
    and per world unit; wind_mean and per-frame gust; trees (foot, height, per-frame crown_x, crown_y); lightning
    (flash_seconds, distance_metres, thunder_seconds, x, strength, per-frame light); drops, the near ones: each
    falls at `speed` along the slant and lands at (x, y) at landing_seconds; events of kind drop and thunder.
    """

    name: str
    splits = EVERYDAY_SPLITS
    held_out = (
        {"rain": "heavy", "wind": "calm"},
        {"thunder": "near", "wind": "storm"},
        {"rain": "light", "thunder": "far"},
        {"style": "cinematic", "rain": "none"},
    )

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> WeatherParameters:
        rng = stream(config.seed, config.split, self.name, index, "parameters")

        def draw() -> WeatherParameters:
            controls = replace(draw_controls(config, rng), ambience="silence")
            while True:
                named = {name: pick(rng, choices) for name, choices in _CHOICES.items()}
                if named != {"rain": "none", "wind": "calm", "thunder": "none"}:
                    break
            return WeatherParameters(
                controls,
                **named,
                gust_phases=tuple(rng.uniform(0, 2 * math.pi, 3).tolist()),
                flash_seconds=float(rng.uniform(0.06, 0.3)) * min(config.seconds, 2.5),
                distance_share=float(rng.random()),
                lightning_x=float(rng.uniform(0.12, 0.88)),
                kinks=tuple(rng.uniform(-0.13, 0.13, _KINKS).tolist()),
                drops_seed=int(rng.integers(1 << 31)),
            )

        drawn = draw_for_split(config, draw, _carriers, self.held_out)
        controls, changes = command(drawn.controls, overrides)
        reject_unknown(changes, COMMANDS)
        for name, choices in _CHOICES.items():
            check_choice(name, changes.get(name, getattr(drawn, name)), choices)
        result = replace(drawn, controls=controls, **changes)
        if result.distance_metres is not None:
            check_range("distance_metres", result.distance_metres, 10.0, 3000.0)
        check_range("flash_seconds", result.flash_seconds, 0.0)
        check_range("lightning_x", result.lightning_x, 0.0, 1.0)
        return result

    def simulate(self, config: ToyboxConfig, parameters: WeatherParameters) -> Weather:
        rng = np.random.default_rng(parameters.drops_seed)
        width, _ = config.world_size
        rain = RAINS[parameters.rain]
        gusts = Gusts(WINDS[parameters.wind], GUST_PACES[parameters.controls.pacing], parameters.gust_phases)
        slant = SLANT * gusts.mean
        near = draw_drops(rng, rain.near_rate, NEAR_GROUND, slant, (0.04, width - 0.04), config.seconds)
        near_hz = drop_pitch(rng, near.x.size)
        ground = (HORIZON, NEAR_GROUND[1])
        far = draw_drops(rng, rain.far_rate, ground, slant, (-0.3, width + 0.3), config.seconds)
        return Weather(gusts, near, near_hz, far, _strikes(config, parameters, rng))

    def picture(
        self, config: ToyboxConfig, parameters: WeatherParameters, world: Weather, seconds: np.ndarray
    ) -> Picture:
        width, height = config.world_size
        overcast = parameters.rain != "none" or parameters.thunder != "none"
        gust = world.gusts.at(seconds)
        drift = 0.05 * (0.1 + world.gusts.mean) * seconds
        layers = cloud_layers(width, overcast, drift)
        for strike in world.strikes:
            layers += lightning_layers(strike, parameters.kinks, seconds)
        for (x, foot, tall), color in sorted(
            zip(tree_places(width), LEAVES, strict=True), key=lambda tree: tree[0][1]
        ):
            layers += tree_layers(x, foot, tall, color, gust)
        layers.append(grass_layer(width, height, gust))
        if parameters.rain != "none":
            layers.append(rain_layer(world.near, world.far, seconds))
        if world.strikes:
            layers.append(flash_layer(world.strikes, seconds))
        return Picture(meadow(overcast), layers)

    def sound(
        self, config: ToyboxConfig, parameters: WeatherParameters, world: Weather, rng: np.random.Generator
    ) -> np.ndarray:
        shape = (config.channels, config.samples, config.sample_rate)
        gain = math.sqrt(LEVEL_GAIN[parameters.controls.ambience_level])  # rain and wind have own levels
        gust = _gust_of_samples(world.gusts, config.samples, config.sample_rate)
        audio = wind_roar(rng, gain * gust, *shape)
        if parameters.rain != "none":
            audio += rain_hiss(rng, gain * RAINS[parameters.rain].intensity, *shape)
        for event in self._events(config, world):
            if event["kind"] == "drop":
                add_drop(
                    audio,
                    event["onset_seconds"],
                    event["hz"],
                    event["level"],
                    event["pan"],
                    config.sample_rate,
                )
        for strike in world.strikes:
            pan = pan_position(strike.x, config.world_size[0])
            add_thunder(audio, rng, strike.thunder_seconds, strike.distance_metres, pan, config.sample_rate)
        return audio

    def truth(self, config: ToyboxConfig, parameters: WeatherParameters, world: Weather) -> dict[str, Any]:
        seconds = config.frame_seconds
        gust = world.gusts.at(seconds)
        trees = []
        for x, foot, tall in tree_places(config.world_size[0]):
            dx, y = tip(foot, tall, gust)
            trees.append(
                {
                    "foot": [x, foot],
                    "height": tall,
                    "crown_x": (x + dx).round(7).tolist(),
                    "crown_y": y.round(7).tolist(),
                }
            )
        return {
            "rain": parameters.rain,
            "wind": parameters.wind,
            "thunder": parameters.thunder,
            "own_ambience": "natural ambience",
            "rain_intensity": RAINS[parameters.rain].intensity,
            "rain_slant": world.near.slant,
            "far_drops_per_second": RAINS[parameters.rain].far_rate,
            "wind_mean": world.gusts.mean,
            "gust": gust.round(7).tolist(),
            "trees": trees,
            "lightning": [
                {
                    "flash_seconds": strike.flash_seconds,
                    "distance_metres": strike.distance_metres,
                    "thunder_seconds": strike.thunder_seconds,
                    "x": strike.x,
                    "strength": flash_strength(strike.distance_metres),
                    "light": strike.light(seconds).round(7).tolist(),
                }
                for strike in world.strikes
            ],
            "drops": [
                {"landing_seconds": t, "x": x, "y": y, "speed": speed}
                for t, x, y, speed in zip(
                    *(
                        getattr(world.near, name).round(7).tolist()
                        for name in ("landing_seconds", "x", "y", "speed")
                    ),
                    strict=True,
                )
            ],
            "events": self._events(config, world),
            "held_out": met_combinations(_carriers(parameters), self.held_out),
        }

    def _events(self, config: ToyboxConfig, world: Weather) -> list[dict[str, Any]]:
        width = config.world_size[0]
        events: list[dict[str, Any]] = [
            {
                "onset_seconds": t,
                "kind": "drop",
                "hz": hz,
                "level": level,
                "pan": pan_position(x, width),
                "x": x,
                "y": y,
            }
            for t, hz, level, x, y in zip(
                world.near.landing_seconds.tolist(),
                world.near_hz.tolist(),
                world.near_levels().tolist(),
                world.near.x.tolist(),
                world.near.y.tolist(),
                strict=True,
            )
        ]
        events += [
            {
                "onset_seconds": strike.thunder_seconds,
                "kind": "thunder",
                "flash_seconds": strike.flash_seconds,
                "distance_metres": strike.distance_metres,
                "level": thunder_level(strike.distance_metres),
                "pan": pan_position(strike.x, width),
                "x": strike.x,
                "y": HORIZON,
            }
            for strike in world.strikes
        ]
        heard = [event for event in events if event["onset_seconds"] < config.seconds]
        return sorted(heard, key=lambda event: float(event["onset_seconds"]))

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        found = {
            name: truth[name]
            for name, usual in (("rain", "none"), ("wind", "calm"), ("thunder", "none"))
            if truth[name] != usual
        }
        return found if found else {"wind": truth["wind"]}

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        found = self.attributes(truth)
        said = [str(pick(rng, WORDS[name][value])) for name, value in found.items()]
        trees = str(pick(rng, ("a meadow with two trees", "two trees in a meadow")))
        verb = "lies" if trees.startswith("a ") else "stand"
        heard = [_SOUNDS[name][value] for name, value in found.items()]
        seen = []
        if truth["thunder"] != "none":
            place = "close by" if truth["thunder"] == "near" else "far off"
            seen.append(f"Lightning flashes {place}, and the thunder comes after it.")
        if truth["wind"] != "calm":
            seen.append("Trees and grass bend with every gust.")
        together = enumerate_things(heard)
        return Phrases(
            label=("meadow", *said),
            subject=trees,
            action=f"{verb} under {enumerate_things(said)}",
            sound=f"{together[0].upper()}{together[1:]}.",
            details=tuple(seen),
            own_ambience=truth["own_ambience"],
        )


WORDS["rain"] = {
    "none": ("dry weather",),
    "light": ("light rain", "drizzle"),
    "heavy": ("heavy rain", "a downpour"),
}
WORDS["wind"] = {
    "calm": ("still air", "calm air"),
    "breeze": ("a breeze", "a fresh breeze"),
    "storm": ("a storm", "a gale"),
}
WORDS["thunder"] = {
    "none": ("no thunder",),
    "near": ("near thunder", "thunder close by"),
    "far": ("distant thunder", "far thunder"),
}
_SOUNDS = {
    "rain": {"light": "drops tick on the ground", "heavy": "the rain hisses and patters"},
    "wind": {
        "calm": "hardly a leaf stirs",
        "breeze": "the wind comes in soft gusts",
        "storm": "the wind roars and whistles",
    },
    "thunder": {
        "near": "thunder cracks a moment after the flash",
        "far": "thunder rolls well after the flash",
    },
}


def _carriers(parameters: WeatherParameters) -> list[dict[str, str]]:
    return [parameters.controls.names() | {name: getattr(parameters, name) for name in _CHOICES}]


def _strikes(
    config: ToyboxConfig, parameters: WeatherParameters, rng: np.random.Generator
) -> tuple[Strike, ...]:
    """The first lightning as it was drawn, and more of its kind as long as the clip goes on."""
    if parameters.thunder == "none":
        return ()
    width = config.world_size[0]
    strikes = [Strike(parameters.flash_seconds, parameters.metres, parameters.lightning_x * width)]
    while True:
        flash = strikes[-1].flash_seconds + float(rng.uniform(*STRIKE_GAP_SECONDS))
        if flash >= config.seconds:
            return tuple(strikes)
        metres = parameters.metres * float(rng.uniform(0.85, 1.15))
        strikes.append(Strike(flash, metres, float(rng.uniform(0.12, 0.88)) * width))


def _gust_of_samples(gusts: Gusts, samples: int, sample_rate: int) -> np.ndarray:
    """(S,) strength of the wind at each sample, read between instants 4 ms apart."""
    knots = np.arange(0, samples / sample_rate + 0.008, 0.004)
    return np.interp(np.arange(samples) / sample_rate, knots, gusts.at(knots))
