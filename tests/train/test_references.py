"""A model learns whose voice a reference is, through the configs that users have."""

from __future__ import annotations

import pytest
import torch

from sora2.cli import main
from sora2.diffusion.training import DiffusionConfig, make_training_example, training_loss
from sora2.generate import Pipeline, Request
from sora2.model import Transformer, TransformerConfig
from sora2.train import checkpoint
from sora2.train.compose import compose_config
from sora2.train.run import train
from sora2.types import AudioShape, Batch, Clip, clean_modality
from tests.worlds import training_overrides, write_latents

SOUND = AudioShape(samples=8 * 640, sample_rate=16000, latent_channels=6)


def _voices(count: int, seed: int, own: bool = True) -> Batch:
    """Clips that sound as their person does all along: a vector for each, beside the same person or the next one."""
    draw = torch.Generator().manual_seed(seed)
    who = torch.randn(count, 1, 6, generator=draw)
    sound = who + 0.1 * torch.randn(count, SOUND.tokens, 6, generator=draw)
    beside = who if own else who.roll(1, dims=0)
    voice = beside + 0.1 * torch.randn(count, SOUND.tokens, 6, generator=draw)
    modalities = {
        name: clean_modality(x, SOUND.positions())
        for name, x in (("audio", sound), ("reference_audio", voice))
    }
    return Batch(**modalities, audio_shape=SOUND)


def test_whose_voice_it_is_is_learned_from_the_reference():
    config = TransformerConfig(
        width=32,
        depth=2,
        heads=2,
        video_width=8,
        audio_width=6,
        text_width=10,
        level_features=16,
        level_width=16,
    )
    model = Transformer(config, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    task = DiffusionConfig(mixture={"text_to_av": 1.0})
    for step in range(150):
        draw = torch.Generator().manual_seed(step)
        noised, target = make_training_example(_voices(32, step), task, draw)
        loss, _ = training_loss(model(noised), noised, target, task)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def held_out(own: bool) -> float:
        noised, target = make_training_example(
            _voices(256, 10_000, own), task, torch.Generator().manual_seed(1)
        )
        with torch.no_grad():
            return float(training_loss(model(noised), noised, target, task)[0])

    assert held_out(own=True) < 0.6 * held_out(own=False)


@pytest.fixture
def overrides(world):
    def persons(i: int) -> dict[str, str]:
        return {"person": f"p{i % 5}"}

    folder = write_latents(world / "people", world / "codecs", meta=persons)
    sets = f"[{{path: {folder}, weight: 0.7, references: 0.8}}, {{path: {folder}, weight: 0.3, streams: [audio]}}]"
    return {"data.datasets": sets, "data.drop.reference_video": 0.2}


def test_training_with_references_resumes_exactly_and_samples_people(world, overrides, capsys):
    assert main(["train", *training_overrides(world, "whole", **overrides), "dry_run=true"]) == 0
    said = capsys.readouterr().out  # 4 cells of a picture, 29 moments of sound
    assert ", and 33 of a person's face and voice where clips have references" in said
    whole = train(compose_config(training_overrides(world, "whole", **overrides)))
    halves = training_overrides(world, "halves", **overrides)
    train(compose_config([*halves, "trainer.stop_at_samples=24"]))
    again = train(compose_config(halves))
    one, other = (
        checkpoint.load(checkpoint.newest(run / "checkpoints"))["state_dict"] for run in (whole, again)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    pipeline = Pipeline.from_checkpoint(whole / "export")
    assert pipeline.world.references
    picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    person = Clip(video=picture, fps=8.0, audio=torch.zeros(2, 16000), sample_rate=16000, key="anna")
    clip = pipeline.generate([Request(prompt="clip", cameo=person, consent="Anna")])[0]
    assert clip.video.shape[0] == 9
    plain = train(compose_config(training_overrides(world, "plain")))
    assert not Pipeline.from_checkpoint(plain / "export").world.references
