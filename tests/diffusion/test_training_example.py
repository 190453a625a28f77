"""Training examples: the mixture is followed, clean stays clean, dropouts hit right, draws repeat."""

import dataclasses

import pytest
import torch
from gaussian_world import make_batch

from sora2.config import ConfigError
from sora2.diffusion.flow import add_noise, clean_from_velocity, noise_from_velocity, velocity_from_clean
from sora2.diffusion.layout import Layout
from sora2.diffusion.noise_levels import (
    LevelConfig,
    LevelError,
    draw_paired_levels,
    draw_raw_levels,
    shift_level,
)
from sora2.diffusion.tasks import TASKS, TaskError
from sora2.diffusion.training import (
    DiffusionConfig,
    draw_tasks,
    make_training_example,
    sample_training_levels,
    training_loss,
)
from sora2.model import Transformer, TransformerConfig
from tests.model.tiny import awake


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def only(task, **changes):
    return DiffusionConfig(mixture={task: 1.0}, modality_dropout={"video": 0.0, "audio": 0.0}, **changes)


def test_flow_identities():
    x, eps, t = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.rand(2, 3)
    noised, v = add_noise(x, eps, t), eps - x
    assert torch.allclose(clean_from_velocity(noised, v, t), x, atol=1e-6)
    assert torch.allclose(noise_from_velocity(noised, v, t), eps, atol=1e-6)
    assert torch.allclose(velocity_from_clean(noised, x, t), v, atol=1e-4)
    assert torch.equal(add_noise(x, torch.full_like(x, torch.inf), torch.zeros(2, 3)), x)
    assert torch.equal(add_noise(x, eps, torch.ones(2, 3)), eps)


def test_mixture_of_tasks_is_followed():
    batch = make_batch(4000)
    mixture = {"text_to_av": 3.0, "video_to_audio": 1.0, "extend_forward": 1.0}
    layout = Layout.of_batch(batch)
    masks = {n: getattr(batch, n).mask for n in layout.names}
    drawn = draw_tasks(layout, masks, DiffusionConfig(mixture=mixture), generator())
    for name, weight in mixture.items():
        assert drawn.count(name) / 4000 == pytest.approx(weight / 5, abs=0.03)


def test_noised_batch_is_the_equation_and_known_tokens_are_the_data():
    batch = make_batch(64)
    noised, target = make_training_example(batch, DiffusionConfig(), generator())
    for name in ("video", "audio"):
        clean, stream = getattr(batch, name).latent, getattr(noised, name)
        t = stream.noise_level
        known = t == 0
        assert known.any() and (t > 0).any()
        assert torch.equal(stream.latent[known], clean[known])
        assert torch.allclose(stream.latent, clean + t.unsqueeze(-1) * target[name], atol=1e-5)


def test_same_generator_same_example():
    batch, config = make_batch(16), DiffusionConfig()
    first, second = (make_training_example(batch, config, generator(3)) for _ in range(2))
    other = make_training_example(batch, config, generator(4))
    for name in ("video", "audio"):
        assert torch.equal(getattr(first[0], name).latent, getattr(second[0], name).latent)
        assert torch.equal(first[1][name], second[1][name])
        assert not torch.equal(first[1][name], other[1][name])


def test_example_does_not_touch_its_input():
    batch = make_batch(8)
    before = {n: (m.latent.clone(), m.mask.clone()) for n, m in batch.modalities().items()}
    make_training_example(batch, DiffusionConfig(text_dropout=1.0), generator())
    for name, (latent, mask) in before.items():
        assert torch.equal(getattr(batch, name).latent, latent) and torch.equal(
            getattr(batch, name).mask, mask
        )


def test_text_dropout_hides_whole_prompts():
    batch = make_batch(2000)
    noised, _ = make_training_example(batch, DiffusionConfig(text_dropout=0.25), generator())
    hidden = ~noised.text.mask.any(dim=1)
    assert torch.equal(noised.text.mask, (~hidden).unsqueeze(1).expand_as(noised.text.mask))
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_modality_dropout_leaves_something_to_learn():
    drop = {"video": 0.5, "audio": 0.5}
    config = DiffusionConfig(mixture={"video_to_audio": 1.0, "text_to_av": 1.0}, modality_dropout=drop)
    noised, _ = make_training_example(make_batch(500), config, generator())
    learns = {
        n: (getattr(noised, n).mask & (getattr(noised, n).noise_level > 0)).any(dim=1)
        for n in ("video", "audio")
    }
    assert (learns["video"] | learns["audio"]).all()
    foley = (noised.video.noise_level == 0).all(dim=1)
    assert noised.audio.mask[foley].all()  # the only stream to learn is never dropped
    assert not noised.video.mask[foley].all()
    assert not noised.audio.mask[~foley].all()


@pytest.mark.parametrize(
    ("task", "drop", "left"), [("audio_only", 0.0, "audio"), ("text_to_av", 1.0, "video")]
)
def test_a_stream_that_no_clip_has_left_is_not_computed(monkeypatch, task, drop, left):
    """The rest is what several ranks see, who compute it masked: same noise, same velocities."""
    config = DiffusionConfig(mixture={task: 1.0}, modality_dropout={"video": 0.0, "audio": drop})
    lean, target = make_training_example(make_batch(8), config, generator())
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    whole, masked = make_training_example(make_batch(8), config, generator())
    assert set(target) == {left} and set(masked) == {"video", "audio"}
    assert {"text", left} == set(lean.modalities()) and lean.video_shape == whole.video_shape
    assert torch.equal(target[left], masked[left])
    widths = {"video_width": 8, "audio_width": 6, "text_width": 3}
    model = awake(
        Transformer(TransformerConfig(width=32, depth=2, heads=2, **widths), generator()), generator(1)
    )
    torch.testing.assert_close(model(lean)[left], model(whole)[left], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("streams", [("video",), ("audio",)])
def test_missing_modality_trains_and_costs_nothing(streams):
    batch = make_batch(8, video="video" in streams, audio="audio" in streams, text=False)
    noised, target = make_training_example(batch, DiffusionConfig(), generator())
    velocity = {n: torch.zeros_like(t, requires_grad=True) for n, t in target.items()}
    total, named = training_loss(velocity, noised, target, DiffusionConfig())
    absent = "audio" if streams == ("video",) else "video"
    assert set(target) == set(streams) and total.isfinite() and total > 0
    assert named[absent].isnan() and named[f"{absent}/0.00-0.25"].isnan()
    total.backward()


def test_clip_without_a_stream_draws_only_tasks_it_can_do():
    batch = make_batch(400)
    silent = torch.arange(400) < 200
    batch = batch.replace(audio=batch.audio.replace(mask=batch.audio.mask & ~silent.unsqueeze(1)))
    config = DiffusionConfig(mixture={"video_to_audio": 0.9, "text_to_av": 0.1})
    noised, _ = make_training_example(batch, config, generator())
    assert (noised.video.noise_level[silent] > 0).all()
    assert (noised.video.noise_level[~silent] == 0).all(dim=1).float().mean() > 0.8
    with pytest.raises(TaskError, match=r"task\.mixture.*clip 0.*\['video'\]"):
        make_training_example(batch, only("video_to_audio"), generator())


def test_levels_of_extension_are_shared_by_both_streams_in_time():
    levels = sample_training_levels(make_batch(50), only("extend_forward"), generator())
    for row in range(50):
        known_video = (levels["video"][row].view(5, 4)[:, 0] == 0).sum().item()
        known_audio = (levels["audio"][row] == 0).sum().item()
        until = 0 if known_video == 0 else (1 + 4 * (known_video - 1)) / 8
        assert until - 0.05 <= known_audio / 25 <= until + 4 / 8 + 0.05


def test_staircase_levels_never_fall_along_time():
    levels = sample_training_levels(make_batch(50), only("staircase"), generator())
    for name in ("video", "audio"):
        assert (levels[name].diff(dim=1) >= -1e-6).all()
        assert (levels[name][:, -1] > levels[name][:, 0]).float().mean() > 0.9


def test_pairings():
    def draw(pairing, shift):
        config = LevelConfig(pairing={pairing: 1.0}, shift=shift)
        raw, s = draw_paired_levels(512, config, generator())
        return {n: shift_level(raw[n], s[n]) for n in raw}

    unequal = {"video": 4.0, "audio": 1.0}
    paired = draw("paired", unequal)
    assert torch.equal(paired["video"], paired["audio"])
    shared = draw("shared", unequal)
    assert torch.allclose(shared["video"], shift_level(shared["audio"], 4.0))
    independent = draw("independent", unequal)
    assert abs(torch.corrcoef(torch.stack(list(independent.values())))[0, 1]) < 0.1


def test_raw_levels_are_logit_normal_and_evenly_spread_in_every_batch():
    config = LevelConfig(mean=-0.5, std=1.5, uniform=0.0)
    logits = torch.logit(torch.cat([draw_raw_levels(64, config, generator(i)) for i in range(100)]))
    assert logits.mean().item() == pytest.approx(-0.5, abs=0.05)
    assert logits.std().item() == pytest.approx(1.5, abs=0.05)
    spread = [draw_raw_levels(64, config, generator(i)).median().item() for i in range(30)]
    assert max(spread) - min(spread) < 0.05
    uniform = torch.cat([draw_raw_levels(64, LevelConfig(uniform=1.0), generator(i)) for i in range(50)])
    assert torch.allclose(
        torch.quantile(uniform, torch.linspace(0.1, 0.9, 9)), torch.linspace(0.1, 0.9, 9), atol=0.02
    )


def test_loss_ignores_clean_hidden_and_absent_tokens():
    batch = make_batch(32)
    config = DiffusionConfig()
    noised, target = make_training_example(batch, config, generator())
    velocity = {n: t.clone() for n, t in target.items()}
    for n in target:
        stream = getattr(noised, n)
        ignored = (stream.noise_level == 0) | ~stream.mask
        assert ignored.any()
        velocity[n][ignored] = 1e6
        velocity[n].requires_grad_(True)
    total, named = training_loss(velocity, noised, target, config)
    assert total.item() == 0 and named["video"].item() == 0
    total.backward()
    assert all((v.grad == 0).all() for v in velocity.values())


def test_loss_weights_and_buckets_add_up():
    batch = make_batch(64)
    config = only("text_to_av")
    noised, target = make_training_example(batch, config, generator())
    velocity = {n: t + 0.5 for n, t in target.items()}
    total, named = training_loss(velocity, noised, target, config)
    assert total.item() == pytest.approx(0.5)
    weighted = dataclasses.replace(
        config, loss=dataclasses.replace(config.loss, weight={"video": 1.0, "audio": 3.0})
    )
    assert training_loss(velocity, noised, target, weighted)[0].item() == pytest.approx(1.0)
    buckets = [k for k in named if k.startswith("video/")]
    assert buckets == ["video/0.00-0.25", "video/0.25-0.50", "video/0.50-0.75", "video/0.75-1.00"]
    assert all(named[k].item() == pytest.approx(0.25) for k in buckets)


def test_bucket_without_tokens_is_nan():
    batch = make_batch(4)
    config = only("remix")
    noised, target = make_training_example(batch, config, generator())
    low = torch.full_like(noised.video.noise_level, 0.1)
    noised = noised.replace(video=noised.video.replace(noise_level=low))
    _, named = training_loss(target, noised, target, config)
    assert named["video/0.75-1.00"].isnan() and not named["video/0.00-0.25"].isnan()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"mixture": {"text_to_film": 1.0}}, LevelError, "text_to_film"),
        ({"mixture": {"text_to_av": 0.0}}, LevelError, "positive"),
        ({"text_dropout": 1.5}, LevelError, "text_dropout"),
        ({"text_dropuot": 0.1}, ConfigError, "text_dropout"),
        ({"levels": {"shift": {"video": -1.0, "audio": 1.0}}}, LevelError, "shift"),
        ({"levels": {"pairing": {"together": 1.0}}}, LevelError, "shared"),
        ({"loss": {"buckets": 0}}, LevelError.__mro__[1], "buckets"),
    ],
)
def test_bad_settings_are_named(values, error, message):
    with pytest.raises(error, match=message):
        DiffusionConfig.from_dict(values)


def test_every_task_can_be_trained_alone():
    for name in TASKS:
        noised, target = make_training_example(make_batch(8), only(name), generator())
        total, _ = training_loss({n: t + 1 for n, t in target.items()}, noised, target, DiffusionConfig())
        assert total.item() > 0, name
