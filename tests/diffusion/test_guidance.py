"""Guidance: scale 1 is the network itself, the expression is as documented, no evaluation is wasted."""

import pytest
import torch
from gaussian_world import make_batch

from sora2.diffusion.guidance import GuidanceConfig, GuidanceError, guided_velocity
from sora2.types import Batch


class Network:
    """Its velocity shows what it saw: 1000 for references, 100 for text, 10 for the other stream, 1 always; all halved
    without layer 2."""

    def __init__(self):
        self.rows = []

    def __call__(self, batch: Batch, skip=()):
        self.rows.append(batch.size)
        assert skip in ((), (2,))
        sees_text = batch.text is not None and batch.text.mask.any(dim=1)
        result = {}
        for name, other in (("video", "audio"), ("audio", "video")):
            stream = getattr(batch, name)
            if stream is not None:
                partner = getattr(batch, other)
                sees_other = (
                    torch.zeros(batch.size, dtype=torch.bool) if partner is None else partner.mask.any(dim=1)
                )
                value = 1.0 + 100.0 * sees_text + 10.0 * sees_other
                for reference in (batch.reference_video, batch.reference_audio):
                    if reference is not None:
                        value = value + 1000.0 * reference.mask.any(dim=1)
                if batch.text is not None:
                    value = value + batch.text.latent.mean(dim=(1, 2)) * sees_text
                result[name] = value.view(-1, 1, 1) * (1 + stream.latent) * (0.5 if skip else 1.0)
        return result


def scales(video=1.0, audio=1.0):
    return {"video": video, "audio": audio}


def evaluate(config, level=0.5, batch=None, negative=None):
    batch = make_batch(3) if batch is None else batch
    state = {n: getattr(batch, n).latent for n in ("video", "audio") if getattr(batch, n) is not None}
    levels = {n: torch.full(x.shape[:2], level) for n, x in state.items()}
    network = Network()
    velocity = guided_velocity(network, batch, config, negative)(state, levels)
    plain = Network()(batch)
    return velocity, plain, state, network


def test_scale_one_is_the_network_and_costs_one_evaluation():
    velocity, plain, _, network = evaluate(GuidanceConfig(text=scales(), modality=scales()))
    assert network.rows == [3]
    assert all(torch.equal(velocity[n], plain[n]) for n in plain)


def test_the_expression_per_stream():
    config = GuidanceConfig(text=scales(3.0, 2.0), modality=scales(1.0, 4.0))
    velocity, plain, state, network = evaluate(config)
    assert network.rows == [9]  # everything, no text, no video; the video needs no "no audio"
    text = make_batch(3).text.latent.mean(dim=(1, 2)).view(-1, 1, 1)
    push_text, push_other = (100 + text) * (1 + state["video"]), 10 * (1 + state["audio"])
    assert torch.allclose(velocity["video"], plain["video"] + 2.0 * push_text, rtol=1e-4)
    expected = plain["audio"] + 1.0 * (100 + text) * (1 + state["audio"]) + 3.0 * push_other
    assert torch.allclose(velocity["audio"], expected, rtol=1e-4)


def test_one_after_the_other_is_the_same():
    config = GuidanceConfig(text=scales(3.0, 2.0), modality=scales(2.0, 4.0), rescale=0.5)
    together, *_ = evaluate(config)
    apart, _, _, network = evaluate(
        GuidanceConfig(text=config.text, modality=config.modality, rescale=0.5, batched=False)
    )
    assert network.rows == [3, 3, 3, 3]
    assert all(torch.allclose(together[n], apart[n]) for n in together)


@pytest.mark.parametrize("batched", [True, False])
def test_away_from_fewer_layers(batched):
    """In a forward of its own, and only where a stream asks for it."""
    alone = GuidanceConfig(
        text=scales(), modality=scales(), skip=scales(1.0, 3.0), skip_layers=[2], batched=batched
    )
    velocity, plain, _, network = evaluate(alone)
    assert network.rows == [3, 3] and torch.equal(velocity["video"], plain["video"])
    assert torch.allclose(velocity["audio"], 2.0 * plain["audio"])
    silent = make_batch(3, audio=False)
    assert evaluate(alone, batch=silent)[3].rows == [3]

    both = GuidanceConfig(text=scales(2.0, 1.0), skip=scales(3.0, 1.0), skip_layers=(2,), batched=batched)
    velocity, plain, state, network = evaluate(both)
    assert network.rows == ([3, 6] if batched else [3, 3, 3])
    text = make_batch(3).text.latent.mean(dim=(1, 2)).view(-1, 1, 1)
    expected = 2.0 * plain["video"] + (100 + text) * (1 + state["video"])
    assert torch.allclose(velocity["video"], expected, rtol=1e-4)


@pytest.mark.parametrize("shown", [("reference_video",), ("reference_video", "reference_audio")])
def test_towards_a_person(shown):
    """Both of a face and a voice are hidden at once; without references it costs nothing."""
    config = GuidanceConfig(text=scales(2.0, 1.0), reference=scales(1.0, 4.0))
    plain_batch = make_batch(3)
    assert evaluate(config, batch=plain_batch)[3].rows == [6]
    batch = plain_batch.replace(**{name: plain_batch.audio.replace() for name in shown})
    velocity, plain, state, network = evaluate(config, batch=batch)
    assert network.rows == [9]  # everything, no text, no references
    text = batch.text.latent.mean(dim=(1, 2)).view(-1, 1, 1)
    video = plain["video"] + (100 + text) * (1 + state["video"])
    assert torch.allclose(velocity["video"], video, rtol=1e-4)
    audio = plain["audio"] + 3.0 * 1000 * len(shown) * (1 + state["audio"])
    assert torch.allclose(velocity["audio"], audio, rtol=1e-4)


def test_outside_the_interval_there_is_no_guidance_and_no_cost():
    config = GuidanceConfig(text=scales(3.0, 3.0), interval=(0.2, 0.8))
    for level in (0.1, 0.9):
        velocity, plain, _, network = evaluate(config, level)
        assert network.rows == [3] and torch.equal(velocity["video"], plain["video"])
    assert evaluate(config, 0.5)[3].rows == [6]


def test_negative_prompt_replaces_no_text():
    batch = make_batch(3)
    negative = batch.text.replace(latent=-batch.text.latent)
    config = GuidanceConfig(text=scales(2.0, 2.0))
    velocity, plain, state, _ = evaluate(config, batch=batch, negative=negative)
    text = batch.text.latent.mean(dim=(1, 2)).view(-1, 1, 1)
    assert torch.allclose(velocity["video"], plain["video"] + 2 * text * (1 + state["video"]), rtol=1e-4)


def test_full_rescale_restores_the_spread():
    velocity, plain, _, _ = evaluate(GuidanceConfig(text=scales(5.0, 5.0), rescale=1.0))
    for n in plain:
        assert torch.allclose(velocity[n].std(dim=(1, 2)), plain[n].std(dim=(1, 2)), rtol=1e-3)


def test_rescale_leaves_alone_what_guidance_does_not_reach():
    """A stream, or tokens of a stream, at levels outside the interval; whatever stands beside them."""
    batch = make_batch(3)
    state = {n: getattr(batch, n).latent for n in ("video", "audio")}
    levels = {n: torch.full(x.shape[:2], 0.9) for n, x in state.items()}
    levels["audio"][:, :2], levels["audio"][1] = 0.5, 0.5  # of three clips: some tokens, all, some
    config = GuidanceConfig(text=scales(5.0, 5.0), rescale=0.7, interval=(0.0, 0.8))
    velocity = guided_velocity(Network(), batch, config)(state, levels)
    plain = Network()(batch)
    reached = levels["audio"] < 0.8
    assert torch.equal(velocity["video"], plain["video"])
    assert torch.equal(velocity["audio"][~reached], plain["audio"][~reached])
    assert not torch.isclose(velocity["audio"][reached], plain["audio"][reached]).any()


@pytest.mark.parametrize("missing", ["audio", "text"])
def test_what_is_not_there_guides_nothing(missing):
    batch = make_batch(3, **{missing: False})
    config = (
        GuidanceConfig(text=scales(), modality=scales(3.0, 3.0)) if missing == "audio" else GuidanceConfig()
    )
    velocity, plain, _, network = evaluate(config, batch=batch)
    assert network.rows == [3] and torch.equal(velocity["video"], plain["video"])


@pytest.mark.parametrize(
    "settings",
    [
        {"text": {"video": 2.0}},
        {"interval": (0.8, 0.2)},
        {"rescale": 2.0},
        {"modality": {}},
        {"skip": {"video": 2.0, "audio": 1.0}},
    ],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(GuidanceError, match=next(iter(settings))):
        GuidanceConfig(**settings)
