"""Samplers: from noise to data along a trajectory of per-token levels. Short functions of one signature.

    sampler(velocity, state, trajectory, noise, on_step) -> state

`state` holds the tokens per stream, (B, N, C) float32, at the levels of `trajectory.levels(0)`; see
`start_state`. Each token walks from its own start level to 0; a token whose level does not change in a step
is not touched, so known tokens come out bit for bit as they went in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sora2.diffusion.flow import add_noise, clean_from_velocity
from sora2.diffusion.noise_levels import Trajectory
from sora2.errors import UserError

State = dict[str, Tensor]  # stream -> (B, N, C)
Levels = dict[str, Tensor]  # stream -> (B, N)
VelocityFn = Callable[[State, Levels], State]
NoiseFn = Callable[[], State]  # fresh standard normal noise in the shapes of the state


@dataclass(frozen=True)
class Step:
    """What a step callback is told."""

    index: int  # 0 .. steps - 1
    steps: int
    state: State  # after the step
    denoised: State  # what the network took the clean tokens to be, before the step


OnStep = Callable[[Step], None]
Sampler = Callable[[VelocityFn, State, Trajectory, NoiseFn, OnStep | None], State]


class SamplerError(UserError):
    """An unknown sampler or a number of steps that is not positive."""


def start_state(clean: State, noise: State, trajectory: Trajectory) -> State:
    """Known tokens as they are, the others noised to their start levels."""
    levels = trajectory.levels(0)
    return {n: add_noise(clean[n].float(), noise[n], levels[n].to(clean[n].device)) for n in clean}


def walk(trajectory: Trajectory, state: State) -> Iterator[tuple[int, Levels, Levels]]:
    """(step, levels before it, levels after it), on the state's device."""

    def at(i: int) -> Levels:
        return {n: level.to(state[n].device) for n, level in trajectory.levels(i).items()}

    now = at(0)
    for i in range(trajectory.steps):
        then = at(i + 1)
        yield i, now, then
        now = then


def advance(state: State, velocity: State, now: Levels, then: Levels) -> State:
    """Move along `velocity` from one level to the next; tokens that stay at their level keep their bits."""
    result = {}
    for n, x in state.items():
        dt = (then[n] - now[n]).unsqueeze(-1)  # (B, N, 1)
        result[n] = torch.where(dt != 0, x + dt * velocity[n], x)  # (B, N, C)
    return result


def report(
    on_step: OnStep | None, i: int, steps: int, before: State, after: State, velocity: State, now: Levels
) -> None:
    if on_step is not None:
        on_step(
            Step(i, steps, after, {n: clean_from_velocity(before[n], velocity[n], now[n]) for n in before})
        )


# x' = x + (t' - t) v(x, t)
def euler(
    velocity: VelocityFn, state: State, trajectory: Trajectory, noise: NoiseFn, on_step: OnStep | None = None
) -> State:
    """First order. One evaluation per step."""
    for i, now, then in walk(trajectory, state):
        v = velocity(state, now)
        before, state = state, advance(state, v, now, then)
        report(on_step, i, trajectory.steps, before, state, v, now)
    return state


# x' = x + (t' - t) (v(x, t) + v(x + (t' - t) v(x, t), t')) / 2
def heun(
    velocity: VelocityFn, state: State, trajectory: Trajectory, noise: NoiseFn, on_step: OnStep | None = None
) -> State:
    """Second order, two evaluations per step (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

    A token that reaches 0 takes a plain Euler step: the network says nothing about clean tokens.
    """
    for i, now, then in walk(trajectory, state):
        v = velocity(state, now)
        before, guess = state, advance(state, v, now, then)
        if i + 1 == trajectory.steps:
            state = guess
        else:
            ahead = velocity(guess, then)
            mean = {n: torch.where(then[n].unsqueeze(-1) > 0, (v[n] + ahead[n]) / 2, v[n]) for n in v}
            state = advance(before, mean, now, then)
        report(on_step, i, trajectory.steps, before, state, v, now)
    return state


# x' = x + h (v_i + h / (2 h_prev) (v_i - v_{i-1})),  h = t' - t
def multistep(
    velocity: VelocityFn, state: State, trajectory: Trajectory, noise: NoiseFn, on_step: OnStep | None = None
) -> State:
    """Second order with one evaluation per step: Adams-Bashforth 2 with unequal steps, per token.

    A token's first step is an Euler step.
    """
    previous: tuple[State, Levels] | None = None  # velocity and step of the step before
    for i, now, then in walk(trajectory, state):
        v = velocity(state, now)
        h = {n: then[n] - now[n] for n in v}
        slope = v
        if previous is not None:
            slope = {}
            for n in v:
                moved = previous[1][n] != 0  # (B, N)
                ratio = torch.where(moved, h[n] / torch.where(moved, previous[1][n], 1.0) / 2, 0.0)
                slope[n] = v[n] + ratio.unsqueeze(-1) * (v[n] - previous[0][n])
        before, state = state, advance(state, slope, now, then)
        previous = (v, h)
        report(on_step, i, trajectory.steps, before, state, v, now)
    return state


# x' = (t' / t) x + ((1 - t') - (t' / t) (1 - t)) D,  D = x0 + (h / (2 h_prev)) (x0 - x0_prev),
# h = log((1 - t') / t') - log((1 - t) / t)
def dpmpp(
    velocity: VelocityFn, state: State, trajectory: Trajectory, noise: NoiseFn, on_step: OnStep | None = None
) -> State:
    """DPM-Solver++(2M) in the log signal-to-noise of rectified flow (Lu et al. 2022, arXiv:2211.01095,
    algorithm 2).

    One evaluation per step. Where a step's h is infinite (from pure noise, and to data) it is first order,
    which leaves an order of about 1.75 over a whole trajectory.
    """
    previous: tuple[State, Levels] | None = None  # clean estimate and h of the step before
    for i, now, then in walk(trajectory, state):
        v = velocity(state, now)
        before, clean, h, state = state, {}, {}, {}
        for n, x in before.items():
            t, s = now[n], then[n]
            clean[n] = clean_from_velocity(x, v[n], t)  # (B, N, C)
            h[n] = torch.logit(t) - torch.logit(s)  # (B, N), infinite at both ends
            estimate = clean[n]
            if previous is not None:
                ratio = h[n] / (2 * previous[1][n])
                usable = torch.isfinite(h[n]) & torch.isfinite(previous[1][n]) & (previous[1][n] > 0)
                ratio = torch.where(usable, ratio, 0.0).unsqueeze(-1)  # (B, N, 1)
                estimate = clean[n] + ratio * (clean[n] - previous[0][n])
            keep = (s / torch.where(t > 0, t, 1.0)).unsqueeze(-1)  # (B, N, 1)
            signal = (1 - s).unsqueeze(-1) - keep * (1 - t).unsqueeze(-1)
            state[n] = torch.where((s != t).unsqueeze(-1), keep * x + signal * estimate, x)  # (B, N, C)
        previous = (clean, h)
        report(on_step, i, trajectory.steps, before, state, v, now)
    return state


# to t_d = t'^2 / t, then x' = a x_d + sqrt(t'^2 - (a t_d)^2) eps,  a = (1 - t') / (1 - t_d)
def ancestral(
    velocity: VelocityFn, state: State, trajectory: Trajectory, noise: NoiseFn, on_step: OnStep | None = None
) -> State:
    """Stochastic: step below the next level, scale to its signal, and add the noise that is missing there.

    If x_d holds (1 - t_d) x0 + t_d eps, x' holds (1 - t') x0 and noise of variance t'^2: the marginals are
    kept, and errors of earlier steps are forgotten.
    """
    for i, now, then in walk(trajectory, state):
        v = velocity(state, now)
        down = {n: then[n] * (then[n] / torch.where(now[n] > 0, now[n], 1.0)) for n in v}
        before, low = state, advance(state, v, now, down)
        fresh = noise()
        state = {}
        for n, x in low.items():
            t, d = then[n].unsqueeze(-1), down[n].unsqueeze(-1)  # (B, N, 1)
            scale = (1 - t) / torch.where(d < 1, 1 - d, 1.0)
            missing = (t.square() - (d * scale).square()).clamp_min(0).sqrt()
            moved = (then[n] != now[n]).unsqueeze(-1)
            state[n] = torch.where(moved, scale * x + missing * fresh[n], before[n])  # (B, N, C)
        report(on_step, i, trajectory.steps, before, state, v, now)
    return state


SAMPLERS: dict[str, Sampler] = {f.__name__: f for f in (euler, heun, multistep, dpmpp, ancestral)}

#: Network evaluations per step.
EVALUATIONS = {"euler": 1, "heun": 2, "multistep": 1, "dpmpp": 1, "ancestral": 1}


def get_sampler(name: str) -> Sampler:
    """Raises SamplerError with the known names."""
    if name not in SAMPLERS:
        raise SamplerError(f"unknown sampler {name!r}; one of: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


class SeededNoise:
    """Noise per request from its own seed, drawn on the CPU: the same whatever else is in the batch.

    Each stream has a generator of its own, so that the video's noise does not depend on whether there is
    sound.
    """

    def __init__(
        self, seeds: list[int], shapes: dict[str, tuple[int, int]], device: torch.device | str = "cpu"
    ):
        """`shapes` is (N, C) per stream."""
        self.shapes, self.device = shapes, device
        self.generators = {
            name: [torch.Generator().manual_seed(2 * seed + (name == "audio")) for seed in seeds]
            for name in shapes
        }

    def __call__(self) -> State:
        """The next noise, per stream (B, N, C) float32."""
        return {
            name: torch.stack([torch.randn(shape, generator=g) for g in self.generators[name]]).to(
                self.device
            )
            for name, shape in self.shapes.items()
        }
