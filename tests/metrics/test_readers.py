"""Attribute readers: what is asked, what training does to clips, and that the shipped reader is right and robust."""

import json
import shutil

import numpy as np
import pytest
import torch

from sora2.cli import main
from sora2.errors import UserError
from sora2.metrics import Evidence, MetricError, all_metrics, select_metrics
from sora2.metrics.controls import Item, real_items
from sora2.metrics.corruptions import Subject, all_corruptions
from sora2.metrics.evaluation import Row, evaluate_rows
from sora2.metrics.readers import ATTRIBUTES, asked_attributes, damage
from sora2.metrics.readers.accuracy import OVERALL, agreements, damaged
from sora2.metrics.readers.network import ReaderConfig
from sora2.metrics.readers.reading import load_reader, read_all, read_clip
from sora2.metrics.readers.training import ReaderRecipe, truths_of
from sora2.metrics.sources import commanded
from sora2.metrics.tables import value_table
from sora2.metrics.weights import find_weights, missing_weights
from sora2.toybox import Toybox, attributes, whole_world
from sora2.train.ema import named_parameters
from sora2.train.recipe import Progress
from sora2.types import Clip

CLIPS = 45
PROMPT = {n: m for n, m in all_metrics().items() if m.group == "prompt"}
#: What mild damage may cost the mean agreement.
MILD_LOSS = 0.03
TINY = ReaderConfig(still_widths=(4, 8, 8), motion_widths=(4, 8), audio_widths=(4, 8, 8), width=32, heads=2)


@pytest.fixture(scope="module")
def world():
    """Held-out clips, five of each scene."""
    return Toybox(whole_world(split="validation")).clips(range(CLIPS))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The folder of a small reader that guesses, with figures recorded beside it."""
    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    recipe = ReaderRecipe(TINY, damage.DamageConfig())
    # what the trainer averages: parameters, and buffers whether they are stored or not
    recipe.export(folder, named_parameters({"model": recipe.model}), {})
    stored = json.loads((folder / "config.json").read_text())
    stored["accuracy"] = {"attributes": {name: {"mean": 0.9} for name in (*ATTRIBUTES, OVERALL)}}
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


@pytest.fixture
def guessing(untrained, monkeypatch):
    """The metrics read with it."""
    monkeypatch.setenv("SORA2_WEIGHTS_READERS", str(untrained))
    return load_reader(untrained)


@pytest.fixture(scope="module")
def reader():
    if missing_weights(["readers"]):
        pytest.skip("no trained readers: sora2 train experiment=readers, then --weights readers=PATH")
    return load_reader(find_weights("readers"))


@pytest.fixture(scope="module")
def real(reader, world):
    return agreements(reader, world)


def test_everything_that_captions_state_is_asked(world):
    """Words are left to a recogniser of speech; silence is not asked of a story that shows a street or the weather,
    which are heard."""
    for clip in world:
        truth = clip.meta["truth"]
        asked = asked_attributes(truth)
        for said, value in attributes(truth).items():
            name = {"kind": "vehicle"}.get(said.rpartition(".")[2], said.rpartition(".")[2])
            loud_story = any(s["scene"] in ("street", "weather") for s in truth.get("strands", ()))
            if name != "word" and not (name == "ambience" and loud_story):
                wanted = asked[name]
                assert value in wanted if ATTRIBUTES[name].several else value == wanted, (clip.key, said)


def test_a_commanded_truth_asks_for_the_same_and_gives_nothing_away(world):
    for clip in world:
        truth = clip.meta["truth"]
        assert asked_attributes(commanded(truth)) == asked_attributes(truth)
        assert "events" not in commanded(truth) and not any(
            "x" in b for b in commanded(truth).get("balls", ())
        )


def test_what_does_not_apply_is_not_asked(guessing, world):
    by_scene = {c.meta["truth"]["scene"]: asked_attributes(c.meta["truth"]) for c in world}
    assert "material" in by_scene["bounce"] and "material" not in by_scene["weather"]
    assert "ambience" not in by_scene["street"] and "ambience_level" in by_scene["street"]
    assert "hair" not in by_scene["story"] and by_scene["story"]["shots"] in ("2", "3", "4")
    silent = Toybox(whole_world(scenes=("bounce",))).clip(0, ambience="silence").meta["truth"]
    assert "ambience_level" not in asked_attributes(silent)
    weather = next(c for c in world if c.meta["truth"]["scene"] == "weather")
    assert PROMPT["prompt_material"].evaluate(Evidence(weather)) is None
    assert PROMPT["prompt_accuracy"].evaluate(Evidence(weather, truth={"balls": []})) is None


def test_agreement_of_sets_and_of_single_values():
    color, style = ATTRIBUTES["color"], ATTRIBUTES["style"]
    assert color.agreement(("red", "blue"), ("red", "blue")) == 1
    assert color.agreement(("red", "blue"), ("red", "green")) == pytest.approx(1 / 3)
    assert (style.agreement("moody", "moody"), style.agreement("moody", "pencil")) == (1, 0)


def test_a_mirrored_clip_has_a_mirrored_truth(world):
    truth = next(c for c in world if c.meta["truth"]["scene"] == "street").meta["truth"]
    ways = [v["direction"] for v in truth["vehicles"]]
    turned = damage.mirrored_truth(truth)
    assert [v["direction"] for v in turned["vehicles"]] == [
        {"left": "right", "right": "left"}[w] for w in ways
    ]
    assert damage.mirrored_truth(turned) == truth
    x = torch.arange(12.0).view(2, 2, 3)
    assert torch.equal(
        damage.turned(x, torch.tensor([True, False]), axis=-1), torch.stack([x[0].flip(-1), x[1]])
    )


def test_block_coding_is_exact_at_no_step_and_bounded_by_its_step():
    video = torch.rand(1, 3, 2, 16, 24) * 2 - 1
    assert torch.allclose(damage.block_code(video, 1e-6), video, atol=1e-5)
    error = damage.block_code(video, 0.2) - video
    assert 0.001 < error.square().mean().sqrt() < 0.2 / 12**0.5
    flat = torch.full_like(video, 0.25)
    assert torch.allclose(damage.soften(flat, 9), flat, atol=1e-6)


def raw_batch(clips):
    return {
        "video": torch.stack([c.pixels() for c in clips]),
        "audio": torch.stack([c.audio for c in clips]),
        "keys": [c.key for c in clips],
        "metas": [c.meta for c in clips],
        "fps": clips[0].fps,
        "sample_rate": clips[0].sample_rate,
    }


def test_a_recipe_learns_one_batch_and_draws_from_the_generator_alone(world):
    batch = raw_batch(world[:9])
    torch.manual_seed(0)
    recipe = ReaderRecipe(TINY, damage.DamageConfig())

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        return recipe.losses(batch, generator, Progress(0, 1))["main"]

    recipe.eval()
    assert torch.equal(loss(3).total, loss(3).total) and not torch.equal(loss(3).total, loss(4).total)
    recipe.train()
    first = loss(0)
    assert {"scene", "style", "melody", "rain", "shots"} <= first.named.keys()
    optimizer = torch.optim.Adam(recipe.parameters(), lr=1e-2)
    for step in range(12):
        optimizer.zero_grad()
        loss(step).total.backward()
        optimizer.step()
    assert loss(99).total < 0.8 * first.total


def test_training_needs_truth(world, capsys):
    with pytest.raises(UserError, match="'film-1' has no truth"):
        truths_of({"keys": ["film-1"], "metas": [{}]})
    assert main(["train", "experiment=readers", "data.mirror=0.5", "dry_run=true"]) == 2
    assert "data.mirror=0" in capsys.readouterr().err
    assert main(["train", "experiment=readers", "dry_run=true"]) == 0
    assert f"{len(ATTRIBUTES)} attributes" in capsys.readouterr().out


def test_the_shipped_reader_is_right_on_held_out_clips(reader, real):
    for name, floor in {OVERALL: 0.85, "scene": 0.95, "style": 0.9, "light": 0.9, "ambience": 0.9}.items():
        assert np.mean(real[name]) >= floor, name
    assert np.mean(real[OVERALL]) > reader.accuracy_of(OVERALL) - 0.06


def test_recorded_accuracy_stands_beside_the_score(guessing, world):
    assert {m.ceiling() for m in PROMPT.values()} == {0.9} and len(PROMPT) == len(ATTRIBUTES) + 1
    items = real_items(world[:2])
    metrics = select_metrics(["prompt_style", "flicker"])[0]
    headers, rows = value_table(evaluate_rows([Row("real", "", items, 2)], metrics, progress=False))
    assert headers == ["metric", "reader on real clips", "real"]
    beside = {row[0].split("\u00a0")[0].split(",")[0]: row[1] for row in rows}
    assert beside == {"prompt_style": "0.90", "flicker": "–"}


def test_answers_depend_on_the_clip_alone(guessing, world):
    reader = guessing
    together = read_all(reader, world[:6])
    backwards = read_all(reader, world[5::-1])[::-1]
    alone = [read_clip(reader, clip) for clip in world[:6]]
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert {n: x.value for n, x in a.items()} == {n: x.value for n, x in b.items()}
        assert {n: x.value for n, x in a.items()} == {n: x.value for n, x in c.items()}


@pytest.mark.parametrize(
    ("name", "severity"), [("blur", 0.5), ("picture noise", 4), ("compression", 28), ("sound noise", -55)]
)
def test_mild_damage_hides_no_attribute(reader, world, real, name, severity):
    assert severity in all_corruptions()[name].severities or name == "sound noise"
    worse = agreements(reader, damaged(world, name, severity))
    assert np.mean(worse[OVERALL]) > np.mean(real[OVERALL]) - MILD_LOSS


def test_another_shape_of_the_same_clip_reads_alike(reader, world):
    shapes = ({"height": 128, "width": 128}, {"fps": 24.0, "frames": 49}, {"sample_rate": 24_000})
    plain = np.mean([np.mean(list(v)) for v in agreements(reader, world[:9]).values() if v])
    for shape in shapes:
        clips = Toybox(whole_world(split="validation", **shape)).clips(range(9))
        assert np.mean(agreements(reader, clips)[OVERALL]) > plain - 0.1, shape


def test_the_wrong_prompt_is_noticed(reader, world):
    wrong = all_corruptions()["wrong prompt"]
    m = PROMPT["prompt_accuracy"]
    own, other = [], []
    for i, clip in enumerate(world):
        made = wrong.apply(Subject(clip, world[(i + 1) % CLIPS]), 1)
        evidence = Evidence(clip)
        own.append(m.evaluate(evidence).value)
        other.append(m.evaluate(Evidence(clip, truth=made.truth).share(evidence)).value)
    assert np.mean(own) > np.mean(other) + 0.3


def test_what_cannot_be_read_is_unmeasurable(guessing, world):
    m = PROMPT["prompt_style"]
    clip = world[0]
    assert m(clip.replace(audio=None, sample_rate=0), clip.meta["truth"]).reason == "the clip has no audio"
    short = clip.replace(audio=clip.audio[:, :100])
    assert "too short" in m(short, clip.meta["truth"]).reason
    assert (
        m(Clip(video=clip.video, fps=16.0, audio=clip.audio, sample_rate=16_000)).reason
        == "the clip has no truth"
    )


def test_missing_or_other_weights_are_an_error(untrained, tmp_path, monkeypatch):
    monkeypatch.setenv("SORA2_WEIGHTS_READERS", str(tmp_path / "gone"))
    assert "prompt_style" not in select_metrics()[0]
    with pytest.raises(MetricError, match=r"SORA2_WEIGHTS_READERS=.*gone does not exist"):
        select_metrics(["prompt_style"])
    monkeypatch.delenv("SORA2_WEIGHTS_READERS")
    with pytest.raises(
        MetricError, match=r"no config.json; train readers with `sora2 train experiment=readers`"
    ):
        load_reader(tmp_path)
    shutil.copytree(untrained, tmp_path / "other")
    stored = json.loads((tmp_path / "other" / "config.json").read_text())
    stored["attributes"]["style"] = ["baroque"]
    (tmp_path / "other" / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"other attributes \(style\)"):
        load_reader(tmp_path / "other")


def test_a_clip_that_fails_to_load_counts_as_a_failure(guessing):
    metrics = select_metrics(["prompt_accuracy"])[0]
    broken = Item("a", "a", None, failure="cannot be read")
    table = evaluate_rows([Row("films", "", [broken], 1)], metrics, progress=False)
    assert table.summaries["films"]["prompt_accuracy"].success.estimate == 0


def test_the_accuracy_command(untrained, tmp_path, capsys):
    shutil.copytree(untrained, tmp_path / "readers")
    arguments = [
        "--readers",
        str(tmp_path / "readers"),
        "--clips",
        "9",
        "--quiet",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["evaluate-readers", *arguments, "--splits", "test", "--damage", "blur=0.5", "--record"]) == 0
    printed = capsys.readouterr().out
    assert "test, blur 0.5" in printed and "all that apply" in printed and "melody" in printed
    stored = json.loads((tmp_path / "readers" / "config.json").read_text())["accuracy"]
    assert stored["attributes"]["style"]["clips"] == 9 and "--record" in stored["command"]
    assert load_reader(tmp_path / "readers").accuracy_of("style") == stored["attributes"]["style"]["mean"]
    assert main(["evaluate-readers", *arguments, "--splits", "validation", "--record"]) == 2
    assert "name it first" in capsys.readouterr().err
