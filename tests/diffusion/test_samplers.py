"""Samplers on a Gaussian whose ODE is solved: orders, agreement, and known tokens that keep their bits."""

import math

import pytest
import torch
from gaussian_world import AUDIO, VIDEO, GaussianWorld

from sora2.diffusion.layout import Layout
from sora2.diffusion.noise_levels import Trajectory
from sora2.diffusion.samplers import (
    EVALUATIONS,
    SAMPLERS,
    SamplerError,
    SeededNoise,
    get_sampler,
    start_state,
)
from sora2.diffusion.tasks import TASKS

LAYOUT = Layout.of(VIDEO, AUDIO)
SHAPES = {"video": (VIDEO.tokens, 8), "audio": (AUDIO.tokens, 6)}
ROWS = 3


def arguments(name):
    return TASKS[name].draw(LAYOUT, ROWS, torch.Generator().manual_seed(1))


TOGETHER = {"video": 0.0, "audio": 0.0}


def run(
    sampler,
    world,
    steps,
    task="text_to_av",
    shift=1.0,
    seeds=(0, 1, 2),
    clean=None,
    on_step=None,
    delay=TOGETHER,
):
    noise = SeededNoise(list(seeds), SHAPES)
    noise_map = TASKS[task](
        LAYOUT, len(seeds), arguments(task) if TASKS[task].draw.__name__ != "nothing" else {}
    )
    trajectory = Trajectory(noise_map, steps, {"video": shift, "audio": shift}, delay)
    first = noise()
    if clean is None:
        clean = {n: torch.zeros_like(x) for n, x in first.items()}
    state = start_state(clean, first, trajectory)
    return SAMPLERS[sampler](world, state, trajectory, noise, on_step), first, noise_map


def error(sampler, steps, **kwargs):
    world = GaussianWorld()
    result, noise, _ = run(sampler, world, steps, **kwargs)
    exact = world.solution(noise)
    return max((result[n] - exact[n]).abs().mean().item() for n in result)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2), ("multistep", 2), ("dpmpp", 1.75)])
def test_convergence_order(sampler, order):
    coarse, fine = error(sampler, 64), error(sampler, 128)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15), (coarse, fine)


@pytest.mark.parametrize("shift", [0.5, 3.0])
@pytest.mark.parametrize("sampler", ["euler", "heun", "multistep", "dpmpp"])
def test_all_deterministic_samplers_reach_the_solution(sampler, shift):
    assert error(sampler, 200, shift=shift) < 1e-2


@pytest.mark.parametrize("delay", [{"video": 0.0, "audio": 1.0}, {"video": 0.3, "audio": 0.0}])
@pytest.mark.parametrize("sampler", ["euler", "heun", "multistep", "dpmpp"])
def test_a_stream_that_waits_reaches_the_solution_too(sampler, delay):
    assert error(sampler, 300, delay=delay) < 1.5e-2


def test_a_stream_waits_for_the_other_and_for_nothing_else():
    def levels(task, delay, steps=4, **arguments):
        noise_map = TASKS[task](LAYOUT, 1, {n: torch.tensor([float(v)]) for n, v in arguments.items()})
        one = Trajectory(noise_map, steps, {"video": 2.0, "audio": 1.0}, delay)
        return [{n: level[0] for n, level in one.levels(i).items()} for i in range(steps + 1)]

    last = {"video": 0.0, "audio": 1.0}
    apart = levels("text_to_av", last)
    alone = levels("text_to_av", TOGETHER, steps=2)
    for i, now in enumerate(apart):  # two steps for the pictures, then two for the sound
        assert torch.equal(now["video"], alone[min(i, 2)]["video"])
        assert torch.equal(now["audio"], alone[max(i - 2, 0)]["audio"])
    half = levels("text_to_av", {"video": 0.5, "audio": 0.0}, steps=3)
    assert [now["audio"][0].item() for now in half] == pytest.approx([1, 0.5, 0, 0])
    assert [now["video"][0].item() == 1 for now in half] == [True, True, False, False]
    for task in ("video_to_audio", "audio_to_video"):  # nobody waits for what is known
        for now, then in zip(
            levels(task, last, prefix_seconds=0), levels(task, TOGETHER, prefix_seconds=0), strict=True
        ):
            assert all(torch.equal(now[n], then[n]) for n in now)


def test_second_order_beats_first_at_equal_evaluations():
    assert error("multistep", 20) < error("euler", 20) / 3
    assert error("heun", 10) < error("euler", 20) / 2


def test_ancestral_keeps_the_distribution():
    world = GaussianWorld()
    result, _, _ = run("ancestral", world, 400, seeds=range(12))
    for x in result.values():
        assert x.mean().item() == pytest.approx(world.mean, abs=0.02)
        assert x.std().item() == pytest.approx(world.std, abs=0.02)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_per_step(sampler):
    world = GaussianWorld()
    run(sampler, world, 10)
    assert 0 <= EVALUATIONS[sampler] * 10 - world.evaluations <= 1


class Hostile(GaussianWorld):
    """A network that says NaN about everything it should not be asked about."""

    def __call__(self, state, levels):
        return {
            n: torch.where(levels[n].unsqueeze(-1) > 0, v, torch.nan)
            for n, v in super().__call__(state, levels).items()
        }


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_tokens_are_never_changed(sampler, task):
    draw = torch.Generator().manual_seed(3)
    clean = {n: torch.randn(ROWS, *shape, generator=draw) for n, shape in SHAPES.items()}
    result, _, noise_map = run(sampler, Hostile(), 7, task, shift=2.0, clean=clean)
    for n, x in result.items():
        known = noise_map.start[n] == 0
        assert torch.equal(x[known], clean[n][known])
        assert x.isfinite().all()
        assert (x[~known] != clean[n][~known]).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_staircase_arrives_everywhere(sampler):
    world = GaussianWorld()
    result, noise, _ = run(sampler, world, 200, "staircase", seeds=(0, 1, 2))
    exact = world.solution(noise)
    for n in result:
        if sampler == "ancestral":
            assert result[n].std().item() == pytest.approx(world.std, abs=0.05)
        else:
            assert (result[n] - exact[n]).abs().max() < 0.1


def test_remix_stays_near_its_source():
    world = GaussianWorld(mean=0.0, std=1.0)
    clean = {n: torch.full((ROWS, *shape), 2.0) for n, shape in SHAPES.items()}
    result, _, noise_map = run("heun", world, 50, "remix", clean=clean)
    for row in range(ROWS):
        t = noise_map.start["video"][row, 0].item()
        expected = 2.0 * (1 - t) / ((1 - t) ** 2 + t**2) ** 0.5  # the mean of what the ODE maps back to data
        assert result["video"][row].mean().item() == pytest.approx(expected, abs=0.15)


def test_steps_report_progress_and_estimates():
    seen = []
    world = GaussianWorld(std=1e-4)
    run("euler", world, 5, on_step=seen.append)
    assert [s.index for s in seen] == list(range(5)) and seen[0].steps == 5
    assert all((s.denoised["audio"] - world.mean).abs().max() < 1e-2 for s in seen)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_gives_its_sample_in_any_batch(sampler):
    together, _, _ = run(sampler, GaussianWorld(), 8, seeds=(5, 6, 7))
    alone, _, _ = run(sampler, GaussianWorld(), 8, seeds=(6,))
    for n in together:
        assert torch.equal(together[n][1], alone[n][0])
        assert not torch.equal(together[n][0], together[n][1])


def test_noise_of_a_stream_does_not_depend_on_the_other():
    both = SeededNoise([3], SHAPES)()
    assert torch.equal(both["audio"], SeededNoise([3], {"audio": SHAPES["audio"]})()["audio"])
    assert both["video"].flatten()[:100].ne(both["audio"].flatten()[:100]).all()


def test_unknown_sampler():
    with pytest.raises(SamplerError, match="heun"):
        get_sampler("ddim")
