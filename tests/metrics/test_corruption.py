"""Every metric answers to its own defect, in proportion, and to no other."""

import numpy as np
import pytest
import torch

from sora2.metrics import Evidence, select_metrics
from sora2.metrics.controls import Item, frozen_frame, real_items, shuffled_audio
from sora2.metrics.detector_lag import load_detector_lag, measure_detector_lag
from sora2.metrics.evaluation import Row, evaluate_rows
from sora2.metrics.measuring import Task, measure
from sora2.toybox import Toybox, ToyboxConfig, clip_from_spec

METRICS = select_metrics()[0]


def shifted(clip, milliseconds):
    """The clip with its sound later, silence filling in."""
    n = round(milliseconds / 1000 * clip.sample_rate)
    audio = torch.zeros_like(clip.audio)
    audio[:, max(0, n) : audio.shape[1] + min(0, n)] = clip.audio[:, max(0, -n) : audio.shape[1] - max(0, n)]
    return clip.replace(audio=audio)


def with_sound_of(evidence, clip):
    """Evidence of `clip` that reuses what was seen in another clip with the same pictures."""
    other = Evidence(clip)
    other.__dict__.update(tracks=evidence.tracks, motion=evidence.motion)
    return other


def values(name, evidences):
    return np.array([METRICS[name].evaluate(e).value for e in evidences])


@pytest.fixture(scope="module")
def table(clips):
    items = real_items(clips)
    rows = [
        Row("real", "", items, len(items)),
        Row("shuffled", "", shuffled_audio(items), len(items)),
        Row("frozen", "", frozen_frame(items), len(items)),
    ]
    return evaluate_rows(rows, METRICS, progress=False)


def test_real_clips_are_measured_and_right(table):
    real = table.summaries["real"]
    for name in (
        "gravity_error",
        "restitution_error",
        "av_offset",
        "av_f1_45",
        "permanence",
        "flicker",
        "hum",
    ):
        assert real[name].measured_share >= 0.9, name
    assert abs(real["av_offset"].value.estimate) < 5
    assert real["av_jitter"].value.estimate < 10
    assert real["av_f1_45"].value.estimate > 0.88
    assert real["av_skill"].value.estimate > 0.8
    assert real["gravity_error"].value.estimate < 2
    assert real["restitution_error"].value.estimate < 0.05
    assert real["tracked_color"].value.estimate > 0.95
    assert real["struck_material"].value.estimate > 0.95
    assert real["permanence"].value.estimate > 0.98


def test_offset_has_slope_one_and_no_bias(clips, evidences):
    shifts = np.array([-200, -120, -60, -20, 0, 20, 60, 120, 200])
    measured = np.array(
        [
            values(
                "av_offset", [with_sound_of(e, shifted(c, s)) for e, c in zip(evidences, clips, strict=True)]
            )
            for s in shifts
        ]
    )  # (shifts, clips)
    means = np.nanmean(measured, axis=1)
    slope, bias = np.polyfit(shifts, means, 1)
    assert slope == pytest.approx(1, abs=0.02)
    assert abs(bias) < 5
    assert np.mean(np.abs(measured - shifts[:, None]) < 20) > 0.95


def test_f1_falls_with_the_shift_and_rises_with_the_tolerance(clips, evidences):
    f1 = {}
    for s in (0, 30, 60, 100):
        late = [with_sound_of(e, shifted(c, s)) for e, c in zip(evidences[:24], clips, strict=False)]
        for t in (20, 45, 80, 125):
            f1[s, t] = np.nanmean(values(f"av_f1_{t}", late))
    for s in (0, 30, 60, 100):
        assert f1[s, 20] <= f1[s, 45] <= f1[s, 80] <= f1[s, 125]
    assert f1[0, 20] > 2 * f1[30, 20]
    assert f1[30, 45] > 0.85 * f1[0, 45] and f1[60, 45] < 0.5 * f1[0, 45]
    assert f1[60, 80] > 0.85 * f1[0, 80] and f1[100, 80] < 0.6 * f1[0, 80]


def test_wrong_sound_is_heard(table):
    real, shuffled = table.summaries["real"], table.summaries["shuffled"]
    for t in (20, 45):
        assert shuffled[f"av_f1_{t}"].value.estimate < 0.5 * real[f"av_f1_{t}"].value.estimate
    assert abs(shuffled["av_skill"].value.estimate) < 0.15
    assert shuffled["av_offset"].success.estimate < 0.5
    assert shuffled["struck_material"].value.estimate < 0.6
    for name in ("gravity_error", "tracked_color", "permanence", "restitution_error"):  # not about sound
        assert shuffled[name].value.estimate == real[name].value.estimate


def test_a_frozen_frame_cannot_be_measured(table):
    frozen = table.summaries["frozen"]
    for name in ("gravity_error", "restitution_error", "av_offset", "av_f1_45", "struck_material"):
        assert frozen[name].measured == 0 and frozen[name].success.estimate == 0.0
        (reason,) = frozen[name].reasons
        assert "still picture for 100%" in reason


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25])
def test_gravity_error_is_the_change_of_gravity(scale):
    errors = []
    for index in range(10):
        clip = clip_from_spec(index=index, gravity=4.0 * scale)
        truth = {**clip.meta["truth"], "gravity_value": 4.0}
        errors.append(METRICS["gravity_error"](clip, truth).value)
    assert np.nanmedian(errors) == pytest.approx(100 * abs(scale - 1), abs=2.5)


@pytest.mark.parametrize("change", [-0.3, -0.15, 0.1])
def test_restitution_error_is_the_change_of_restitution(change):
    errors = []
    for index in range(10):
        clip = clip_from_spec(
            index=index, count=1, material="rubber", gravity="normal", restitution=0.85 + change
        )
        ball = {**clip.meta["truth"]["balls"][0], "restitution": 0.85}
        errors.append(METRICS["restitution_error"](clip, {**clip.meta["truth"], "balls": [ball]}).value)
    assert np.nanmedian(errors) == pytest.approx(abs(change), abs=0.03)


def test_the_wrong_colour_and_material_are_wrong():
    clip = clip_from_spec(index=4, count=1, color="blue", material="metal", ambience="silence")
    truth = clip.meta["truth"]
    for metric, name, other in (("tracked_color", "color", "red"), ("struck_material", "material", "rubber")):
        wrong = {**truth, "balls": [{**truth["balls"][0], name: other}]}
        assert METRICS[metric](clip).value == 1.0
        assert METRICS[metric](clip, wrong).value == 0.0


def test_a_missing_ball_never_helps(clips, evidences):
    for clip, evidence in zip(clips[:16], evidences, strict=False):
        truth = clip.meta["truth"]
        absent = next(c for c in ("red", "orange", "yellow", "green", "blue", "purple")
                      if all(b["color"] != c for b in truth["balls"]))  # fmt: skip
        ghost = {**truth["balls"][0], "color": absent}
        asked = Evidence(clip, truth={**truth, "balls": [*truth["balls"], ghost]})
        asked.__dict__.update(tracks=evidence.tracks, motion=evidence.motion)
        for name in ("tracked_color", "struck_material", "permanence"):
            with_ghost, without = METRICS[name].evaluate(asked), METRICS[name].evaluate(evidence)
            assert not with_ghost.measured or with_ghost.value < without.value or without.value == 0, name


def test_empty_pictures_and_silence_succeed_at_nothing(clips):
    clip, names = clips[0], tuple(METRICS)
    grey = clip.replace(video=torch.full_like(clip.video, 128))
    silent = clip.replace(audio=torch.zeros_like(clip.audio))
    black = clip.replace(video=torch.zeros_like(clip.video))
    for worse in (grey, silent, black):
        outcome = measure(Item("x", "x", worse, clip.meta["truth"], reference=clip), Task(names))
        assert outcome.gates
        for name, value in outcome.values.items():
            assert not METRICS[name].success(value) and value.reason.startswith("fails a gate"), name


def test_a_picture_strewn_with_colour_is_no_success(clips):
    generator = torch.Generator().manual_seed(0)
    patches = torch.randint(0, 256, (33, 3, 7, 7), generator=generator).float()
    patches = torch.nn.functional.interpolate(patches, size=(64, 64), mode="nearest")
    clutter = clips[0].replace(video=patches.permute(0, 2, 3, 1).to(torch.uint8).contiguous())
    for name in ("av_offset", "av_f1_45", "av_f1_125", "av_skill", "gravity_error", "tracked_color"):
        assert not METRICS[name].success(METRICS[name](clutter)), name


def test_detector_lag_is_of_the_train_split_and_repeats():
    stored = load_detector_lag()
    assert "train" in stored.source
    assert abs(measure_detector_lag(clips=12).lag_seconds - stored.lag_seconds) < 0.001


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [{"fps": 24.0, "frames": 49}, {"height": 96, "width": 160}, {"sample_rate": 24000, "channels": 1}],
    ids=["24 fps", "96x160", "24 kHz mono"],
)
def test_other_shapes_of_clip(shape):
    config = ToyboxConfig(split="test", **shape)
    evidences = [Evidence(clip) for clip in Toybox(config).clips(range(24))]
    assert abs(np.nanmedian(values("av_offset", evidences))) < 5
    assert np.nanmedian(values("gravity_error", evidences)) < 2
    assert np.nanmean(values("tracked_color", evidences)) > 0.95
    assert np.nanmean(values("struck_material", evidences)) > 0.93
    assert np.nanmean(values("av_f1_45", evidences)) > 0.85
