"""The property that every headline metric claims: it sees its own damage, in proportion, and ignores all else."""

import dataclasses
import json

import numpy as np
import pytest

from sora2.cli import main
from sora2.metrics import MetricError, all_metrics
from sora2.metrics.calibration import calibrate, calibration_clips
from sora2.metrics.corruptions import Subject, all_corruptions, select_corruptions

METRICS = {n: m for n, m in all_metrics().items() if m.headline and m.domain == "bounce"}
CORRUPTIONS = {n: c for n, c in all_corruptions().items() if not c.scenes or "bounce" in c.scenes}
#: Metrics that match events one to one.
MATCHING = ("av_f1_20", "av_f1_45", "av_precision_45", "av_recall_45", "av_skill")
#: Damage after which there is less to see or hear.
ABSENCES = ("object removed", "black", "frames frozen", "sounds removed")


def with_references():
    """The headline metrics, and the raw twins that they are differences of."""
    known = all_metrics()
    return {n: known[n] for n in (*METRICS, *(n.removesuffix("_excess") for n in METRICS)) if n in known}


@pytest.fixture(scope="module")
def gross():
    """Every headline metric under the grossest damage of every kind."""
    return calibrate(calibration_clips(8), with_references(), CORRUPTIONS, severities=1, progress=False)


def test_every_claim_names_damage_that_exists():
    for m in all_metrics().values():
        assert m.answers_to | m.also <= set(all_corruptions()), m.name
    assert len(METRICS) > 35
    assert set().union(*(m.answers_to for m in METRICS.values())) >= set(CORRUPTIONS) - {
        "black", "audio compression", "loudness flattened",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", [n for n in METRICS if n not in ("momentum_error", "prompt_gravity")]
)  # which ask for more clips than these
def test_own_damage_is_noticed(gross, name):
    for damage in METRICS[name].answers_to:
        assert gross.responses[name, damage].answers, damage


@pytest.mark.parametrize("name", list(METRICS))
def test_all_other_damage_is_ignored(gross, name):
    for response in gross.of_metric(name):
        if not response.expected:
            assert response.indifferent or response.improves, response.corruption.name


@pytest.mark.parametrize("name", list(METRICS))
def test_absence_and_silence_never_help(gross, name):
    for damage in ABSENCES:
        assert not gross.responses[name, damage].improves, damage


@pytest.mark.parametrize("name", list(METRICS))
def test_the_undamaged_clip_is_best(gross, name):
    for damage in METRICS[name].answers_to:
        change, error = gross.responses[name, damage].change()
        assert (change >= -0.02 - 2 * error).all(), damage


def test_gravity_as_asked_answers_to_a_wrong_prompt():
    """Over more clips: the reader is right about the gravity of 7 in 10 clips of the narrow world."""
    name, damage = "prompt_gravity", "wrong prompt"
    result = calibrate(
        calibration_clips(64),
        {name: METRICS[name]},
        select_corruptions([damage]),
        severities=1,
        progress=False,
    )
    assert result.responses[name, damage].answers


def test_momentum_answers_to_mass():
    staged = [calibration_clips(24)[i] for i in range(3, 24, 4)]
    result = calibrate(
        staged, {"momentum_error": METRICS["momentum_error"]}, select_corruptions(["mass"]), progress=False
    )
    assert result.responses["momentum_error", "mass"].answers


@pytest.mark.parametrize(
    ("metrics", "damage"),
    [
        (("av_offset",), "audio shift"),
        (("av_jitter", "av_precision_45"), "event jitter"),
        (("missing_sounds",), "sounds removed"),
        (("spurious_sounds",), "sounds added"),
        (("gravity_error",), "gravity"),
        (("position_error",), "frames frozen"),
        (("restitution_error",), "restitution"),
        (("permanence",), "object removed"),
        (("shape_drift",), "size drift"),
        (("flicker",), "flicker"),
        (("picture_noise",), "picture noise"),
        (("blur", "blur_excess"), "blur"),
        (("ghosting",), "ghosting"),
        (("frozen_frames",), "frames dropped"),
        (("clicks",), "clicks"),
        (("hum",), "hum"),
        (("clipping",), "clipping"),
        (("dc_offset",), "dc offset"),
        (("stereo_width", "pan_error"), "channels swapped"),
    ],
)
def test_more_damage_costs_more(metrics, damage):
    if damage == "channels swapped":  # mono, half-way, is the narrowest: only the place of sounds is monotone
        metrics = ("pan_error",)
    known = all_metrics()
    result = calibrate(
        calibration_clips(8),
        {n: known[n] for n in metrics},
        select_corruptions([damage]),
        severities=4,
        progress=False,
    )
    for name in metrics:
        response = result.responses[name, damage]
        assert response.monotone, (name, response.change()[0].round(3))


@pytest.fixture(scope="module")
def graded():
    """Every headline metric under three severities of every kind of damage that one of them declares."""
    declared = set().union(*(m.answers_to for m in METRICS.values())) & set(CORRUPTIONS)
    damage = {n: CORRUPTIONS[n] for n in sorted(declared)}
    return calibrate(calibration_clips(8), with_references(), damage, severities=3, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in METRICS if n != "momentum_error"])
def test_more_of_every_declared_damage_costs_more(graded, name):
    for damage in METRICS[name].answers_to:
        if damage == "audio shift" and name in MATCHING:  # see the next test
            continue
        response = graded.responses[name, damage]
        assert response.monotone, (damage, response.change()[0].round(3))


def test_matching_falls_until_it_reaches_chance():
    """Beyond 100 ms other events come into reach, and F1 wanders about its chance level: only the lag goes on."""
    damage = dataclasses.replace(
        CORRUPTIONS["audio shift"], severities=(-100.0, -60.0, -30.0, 0.0, 30.0, 60.0, 100.0)
    )
    metrics = {n: METRICS[n] for n in MATCHING}
    result = calibrate(calibration_clips(8), metrics, {"audio shift": damage}, progress=False)
    for name in metrics:
        assert result.responses[name, "audio shift"].monotone, name


def test_damage_leaves_the_clip_alone_and_nothing_else(clips):
    subject = Subject(clips[0], clips[1])
    before = (clips[0].video.clone(), clips[0].audio.clone())
    for c in CORRUPTIONS.values():
        assert c.apply(subject, c.neutral).clip is clips[0]
        made = c.apply(subject, c.severities[-1] if c.severities[-1] != c.neutral else c.severities[0])
        assert made.clip.video.shape == clips[0].video.shape and made.clip.audio.shape == clips[0].audio.shape
        if "video" not in c.streams:
            assert made.clip.video is clips[0].video, c.name
        if "audio" not in c.streams:
            assert made.clip.audio is clips[0].audio, c.name
        again = c.apply(subject, c.severities[-1] if c.severities[-1] != c.neutral else c.severities[0])
        assert np.array_equal(made.clip.audio.numpy(), again.clip.audio.numpy()), c.name
    assert (clips[0].video == before[0]).all() and (clips[0].audio == before[1]).all()


def test_a_metric_that_is_blind_or_backwards_is_caught():
    """The suite itself: a constant is no answer, a reversed metric improves, a random one is not monotone."""
    offset = METRICS["flicker"]
    rng = np.random.default_rng(0)
    measures = {
        "constant": lambda e: 0.7,
        "reversed": lambda e: 30.0 - float(e.luma.std(axis=0).mean()),
        "random": lambda e: float(rng.uniform(0, 9)),
    }
    broken = {n: dataclasses.replace(offset, name=n, measure=f) for n, f in measures.items()}
    from sora2.metrics import registry

    registry._REGISTRY.clip.update(broken)
    try:
        result = calibrate(calibration_clips(8), broken, select_corruptions(["flicker"]), progress=False)
    finally:
        for name in broken:
            del registry._REGISTRY.clip[name]
    assert not result.responses["constant", "flicker"].answers
    assert (
        result.responses["reversed", "flicker"].improves
        and not result.responses["reversed", "flicker"].monotone
    )
    assert (
        not result.responses["random", "flicker"].indifferent
        or not result.responses["random", "flicker"].smallest
    )


def test_the_command(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--clips", "2", "--severities", "2", "--metrics", "av_offset,flicker,published_av_align",
                 "--corruptions", "audio shift,flicker,object removed,wrong audio,frames frozen,gravity"]  # fmt: skip
    assert main(["calibrate", *arguments, "--quiet", "--out", str(out)]) == 0
    stored = json.loads((out / "calibration.json").read_text())["responses"]["av_offset"]["audio shift"]
    assert stored["own"] and len(stored["severities"]) == len(stored["median"]) == 5
    page = (out / "index.html").read_text()
    assert "av_offset" in page and "Published metrics" in page and (out / "plots" / "matrix.png").exists()
    assert "av_offset" in capsys.readouterr().out
    assert len(list((out / "measured").glob("*.json"))) == 2
    assert main(["calibrate", "--corruptions", "rust", "--out", str(out)]) == 2
    assert "unknown corruption rust: choose from" in capsys.readouterr().err
    assert main(["calibrate", "--clips", "1", "--quiet", "--out", str(out)]) == 2
    with pytest.raises(MetricError, match="at least 2"):
        calibrate(calibration_clips(1), {}, {}, progress=False)
