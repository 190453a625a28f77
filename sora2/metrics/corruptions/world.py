"""Damage to the world: the clip is made again with one law broken, and measured against the law.

Picture and sound agree with each other in all of these, so synchrony must not notice, except where the text says that
one stream alone is changed. Scene `bounce`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sora2.metrics.corruptions import registry
from sora2.metrics.corruptions.registry import Subject
from sora2.toybox.physics import Contact, Disc, Trajectories, simulate
from sora2.toybox.render import film
from sora2.toybox.scenes.bounce_parameters import BounceParameters, world_box
from sora2.toybox.toybox import draw_look, mix
from sora2.types import Clip

BOTH = ("video", "audio")

corruption = functools.partial(registry.corruption, scenes=("bounce",))


@dataclasses.dataclass(frozen=True)
class Made:
    """What a clip was made of."""

    parameters: BounceParameters
    world: Trajectories


def made_of(subject: Subject) -> Made:
    """The parameters and the flights of a clip: as it was drawn, or else as its truth says that it was commanded."""
    config, truth = subject.config, subject.truth
    parameters = subject.scene.sample(config, truth["index"], {})
    drawn = [(b.color, b.material, b.size, round(b.x, 7)) for b in parameters.balls]
    if (drawn, parameters.gravity_value, parameters.controls.style) != (
        [(b["color"], b["material"], b["size"], b["x"][0]) for b in truth["balls"]],
        truth["gravity_value"],
        truth["style"],
    ):
        parameters = subject.scene.sample(config, truth["index"], commanded_of(truth))
    return Made(parameters, subject.scene.simulate(config, parameters))


def commanded_of(truth: dict[str, Any]) -> dict[str, Any]:
    """Overrides that make the clip of a truth again, whether or not it was commanded."""
    fields = ("color", "material", "size", "radius", "restitution")
    balls = [
        {f: ball[f] for f in fields} | {f: ball[f][0] for f in ("x", "y", "vx", "vy")}
        for ball in truth["balls"]
    ]
    names = {n: truth[n] for n in ("style", "background", "ambience")}
    return {**names, "gravity": truth["gravity_value"], "balls": balls}


def render(subject: Subject, made: Made, streams: tuple[str, ...] = BOTH) -> Clip:
    """The clip with those streams made anew."""
    config, scene, clip = subject.config, subject.scene, subject.clip
    index, parameters = subject.truth["index"], made.parameters
    if "video" in streams:
        look, move = draw_look(config, scene.name, index, parameters.controls)
        video = film(
            config,
            look,
            move,
            lambda seconds: scene.picture(config, parameters, made.world, seconds),
            config.frame_seconds,
        )
        clip = clip.replace(video=torch.from_numpy(video))
    if "audio" in streams:
        about = subject.truth | parameters.controls.names()
        clip = clip.replace(audio=torch.from_numpy(mix(config, scene, parameters, made.world, about)))
    return clip


def simulated(
    subject: Subject, made: Made, change: Callable[[int, Disc], None], gravity: float | None = None
) -> Made:
    """The world run again with changed discs."""
    config, parameters = subject.config, made.parameters
    discs = []
    for i, b in enumerate(parameters.balls):
        disc = Disc(b.x, b.y, b.vx, b.vy, radius=b.radius, mass=b.mass, restitution=b.restitution)
        change(i, disc)
        discs.append(disc)
    g = parameters.gravity_value if gravity is None else gravity
    world = simulate(discs, world_box(config), g, config.samples / config.sample_rate)
    return Made(parameters, world)


def _keep(index: int, disc: Disc) -> None:
    """No change."""


@corruption("gravity", unit="x", severities=(0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2), neutral=1, streams=BOTH)
def gravity(subject: Subject, factor: float) -> Clip:
    """Everything falls with another gravity than commanded."""
    made = made_of(subject)
    return render(subject, simulated(subject, made, _keep, factor * made.parameters.gravity_value))


@corruption("restitution", unit="x", severities=(0.4, 0.6, 0.8, 0.9, 1), neutral=1, streams=BOTH)
def restitution(subject: Subject, factor: float) -> Clip:
    """Everything bounces less than its material does."""

    def change(index: int, disc: Disc) -> None:
        disc.restitution *= factor

    return render(subject, simulated(subject, made_of(subject), change))


@corruption("energy", unit="", severities=(0, 1.03, 1.06, 1.1, 1.15), neutral=0, streams=BOTH)
def energy(subject: Subject, ratio: float) -> Clip:
    """Every bounce of the first ball gives energy: this restitution, above 1."""

    def change(index: int, disc: Disc) -> None:
        if index == 0:
            disc.restitution = ratio

    return render(subject, simulated(subject, made_of(subject), change))


@corruption("mass", unit="x", severities=(1, 3, 10, 30, 100), neutral=1, streams=BOTH)
def mass(subject: Subject, factor: float) -> Clip:
    """The lightest ball hits as if it were heavier than all others."""
    made = made_of(subject)
    lightest = int(np.argmin([b.mass for b in made.parameters.balls]))

    def change(index: int, disc: Disc) -> None:
        if index == lightest:
            disc.mass *= factor

    return render(subject, simulated(subject, made, change))


@dataclasses.dataclass(frozen=True)
class Warped:
    """A world on another clock; it has what a scene reads of `Trajectories`."""

    world: Trajectories
    clock: Callable[[np.ndarray], np.ndarray]
    contacts: tuple[Contact, ...]

    def at(self, seconds: np.ndarray) -> np.ndarray:
        return self.world.at(self.clock(seconds))


@corruption("time warp", unit="x", severities=(0.4, 0.6, 0.8, 1), neutral=1, streams=BOTH)
def time_warp(subject: Subject, speed: float) -> Clip:
    """The second half in slow motion, picture and sound alike."""
    made = made_of(subject)
    half = subject.config.seconds / 2

    def clock(t: np.ndarray) -> np.ndarray:
        return np.where(t < half, t, half + speed * (t - half))

    def moved(c: Contact) -> Contact:
        when = c.seconds if c.seconds < half else half + (c.seconds - half) / speed
        return dataclasses.replace(c, seconds=when)

    contacts = tuple(moved(c) for c in made.world.contacts)
    return render(subject, Made(made.parameters, Warped(made.world, clock, contacts)))


@corruption(
    "object removed", unit="of the clip", severities=(0, 0.15, 0.3, 0.5, 0.75), neutral=0, streams=("video",)
)
def object_removed(subject: Subject, share: float) -> Clip:
    """The first ball is gone from the picture towards the end; its sounds stay."""
    made = made_of(subject)
    balls, world = made.parameters.balls, made.world
    if len(balls) == 1:
        return _from(subject, _empty(subject, made), share)
    others = dataclasses.replace(made.parameters, balls=balls[1:])
    rest = dataclasses.replace(world, flights=world.flights[1:], grounds=world.grounds[1:])
    without = render(subject, Made(others, rest), ("video",)).video
    return _from(subject, without, share)


@corruption(
    "object added", unit="of the clip", severities=(0, 0.15, 0.3, 0.5, 0.75), neutral=0, streams=("video",)
)
def object_added(subject: Subject, share: float) -> Clip:
    """A ball that nobody asked for hangs in the picture towards the end, silent."""
    made = made_of(subject)
    first = made.parameters.balls[0]
    used = {b.color for b in made.parameters.balls}
    color = next(c for c in ("green", "blue", "purple", "red", "orange", "yellow") if c not in used)
    guest = dataclasses.replace(first, color=color, radius=5 / 64)
    width = subject.config.world_size[0]
    still = np.array([[0.0, 0.5 * width, 0.12, *[0.0] * 7]])
    parameters = dataclasses.replace(made.parameters, balls=(guest, *made.parameters.balls))
    world = dataclasses.replace(
        made.world, flights=(still, *made.world.flights), grounds=(("",), *made.world.grounds)
    )
    return _from(subject, render(subject, Made(parameters, world), ("video",)).video, share)


@corruption("teleport", unit="of the width", severities=(0, 0.25, 0.4, 0.6), neutral=0, streams=("video",))
def teleport(subject: Subject, distance: float) -> Clip:
    """Every ball jumps sideways in the middle of the clip, towards where there is room; its sounds stay."""
    made = made_of(subject)
    config = subject.config
    half, width = config.seconds / 2, config.world_size[0]
    x = made.world.at(np.array([half]))[:, 0, 0]

    @dataclasses.dataclass(frozen=True)
    class Jumped:
        world: Trajectories
        contacts: tuple[Contact, ...]

        def at(self, seconds: np.ndarray) -> np.ndarray:
            states = self.world.at(seconds).copy()
            jump = np.where(x > 0.5 * width, -distance * width, distance * width)
            states[:, 0] += jump[:, None] * (seconds >= half)
            radius = np.array([b.radius for b in made.parameters.balls])[:, None]
            states[:, 0] = np.clip(states[:, 0], radius, width - radius)
            return states

    return render(subject, Made(made.parameters, Jumped(made.world, made.world.contacts)), ("video",))


@corruption("passed through", unit="", severities=(0, 1), neutral=0, streams=BOTH)
def passed_through(subject: Subject, share: float) -> Clip:
    """Balls do not meet: each flies as if it were alone."""
    made = made_of(subject)
    config = subject.config
    worlds = []
    for b in made.parameters.balls:
        disc = Disc(b.x, b.y, b.vx, b.vy, radius=b.radius, mass=b.mass, restitution=b.restitution)
        seconds = config.samples / config.sample_rate
        worlds.append(simulate([disc], world_box(config), made.parameters.gravity_value, seconds))
    flights = tuple(w.flights[0] for w in worlds)
    contacts = [dataclasses.replace(c, ball=i) for i, w in enumerate(worlds) for c in w.contacts]
    grounds = tuple(w.grounds[0] for w in worlds)
    heard = tuple(sorted(contacts, key=lambda c: c.seconds))
    world = Trajectories(flights, grounds, heard, config.samples / config.sample_rate)
    return render(subject, Made(made.parameters, world))


@corruption("size drift", unit="x", severities=(1, 1.15, 1.3, 1.6, 2), neutral=1, streams=("video",))
def size_drift(subject: Subject, factor: float) -> Clip:
    """Every ball grows over the clip to this size."""
    made = made_of(subject)
    steps = 12
    video = subject.clip.video.clone()
    of_frame = np.linspace(0, steps - 1, len(video)).round().astype(int)
    for k in range(1, steps):
        scale = factor ** (k / (steps - 1))
        balls = tuple(dataclasses.replace(b, radius=b.radius * scale) for b in made.parameters.balls)
        grown = Made(dataclasses.replace(made.parameters, balls=balls), made.world)
        frames = torch.from_numpy(of_frame == k)
        video[frames] = render(subject, grown, ("video",)).video[frames]
    return subject.clip.replace(video=video)


def _resounded(
    subject: Subject, change: Callable[[list[Contact], np.random.Generator], list[Contact]]
) -> Clip:
    """The sound made anew from changed contacts; the picture stays."""
    made = made_of(subject)
    contacts = change(list(made.world.contacts), subject.rng("contacts"))
    contacts = sorted((c for c in contacts if c.seconds >= 0), key=lambda c: c.seconds)
    world = dataclasses.replace(made.world, contacts=tuple(contacts))
    return render(subject, Made(made.parameters, world), ("audio",))


@corruption("event jitter", unit="ms", severities=(0, 10, 20, 40, 80), neutral=0, streams=("audio",))
def event_jitter(subject: Subject, deviation: float) -> Clip:
    """Every impact sounds a little early or late, each by another amount."""

    def change(contacts: list[Contact], rng: np.random.Generator) -> list[Contact]:
        moves = deviation / 1000 * rng.standard_normal(len(contacts))
        return [dataclasses.replace(c, seconds=c.seconds + m) for c, m in zip(contacts, moves, strict=True)]

    return _resounded(subject, change)


@corruption(
    "sounds removed", unit="of impacts", severities=(0, 0.25, 0.5, 0.75, 1), neutral=0, streams=("audio",)
)
def sounds_removed(subject: Subject, share: float) -> Clip:
    """Impacts at random are not heard."""

    def change(contacts: list[Contact], rng: np.random.Generator) -> list[Contact]:
        order = rng.permutation(len(contacts))
        return [contacts[i] for i in order[round(share * len(contacts)) :]]

    return _resounded(subject, change)


@corruption("sounds added", unit="1/s", severities=(0, 1, 2, 4), neutral=0, streams=("audio",))
def sounds_added(subject: Subject, rate: float) -> Clip:
    """Impacts are heard that nobody sees."""
    seconds = subject.config.seconds
    half = 0.5 * subject.config.world_size[0]

    def change(contacts: list[Contact], rng: np.random.Generator) -> list[Contact]:
        moments = rng.uniform(0.1, seconds - 0.15, 64)[: round(rate * seconds)]
        return [*contacts, *(Contact(float(t), "floor", 0, None, 2.5, half, half) for t in moments)]

    return _resounded(subject, change)


@corruption("loudness flattened", unit="", severities=(0, 0.5, 1), neutral=0, streams=("audio",))
def loudness_flattened(subject: Subject, share: float) -> Clip:
    """All impacts towards one loudness; the order of loudness stays until the last."""

    def change(contacts: list[Contact], rng: np.random.Generator) -> list[Contact]:
        middle = (
            math.exp(float(np.mean([math.log(max(c.speed, 0.11)) for c in contacts]))) if contacts else 1.0
        )
        return [
            dataclasses.replace(c, speed=max(c.speed, 0.11) ** (1 - share) * middle**share)
            for c in contacts
            if c.speed >= 0.1
        ]

    return _resounded(subject, change)


@corruption("loudness scrambled", unit="", severities=(0, 0.33, 0.67, 1), neutral=0, streams=("audio",))
def loudness_scrambled(subject: Subject, share: float) -> Clip:
    """Impacts are as loud as others of the clip should be, by degrees."""

    def change(contacts: list[Contact], rng: np.random.Generator) -> list[Contact]:
        loud = [c for c in contacts if c.speed >= 0.1]
        other = [loud[i].speed for i in rng.permutation(len(loud))]
        return [
            dataclasses.replace(c, speed=c.speed ** (1 - share) * s**share)
            for c, s in zip(loud, other, strict=True)
        ]

    return _resounded(subject, change)


def _empty(subject: Subject, made: Made) -> torch.Tensor:
    """The picture without any ball, (T, H, W, 3)."""
    ball = dataclasses.replace(made.parameters.balls[0], radius=0.02)
    away = np.array([[0.0, -9.0, -9.0, *[0.0] * 7]])
    world = dataclasses.replace(made.world, flights=(away,), grounds=(("",),), contacts=())
    parameters = dataclasses.replace(made.parameters, balls=(ball,))
    return render(subject, Made(parameters, world), ("video",)).video


def _from(subject: Subject, other: torch.Tensor, share: float) -> Clip:
    """The clip with the last `share` of its frames taken from `other`."""
    video = subject.clip.video.clone()
    start = round((1 - share) * len(video))
    video[start:] = other[start:]
    return subject.clip.replace(video=video)
