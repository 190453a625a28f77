"""What must survive a codec: the mouth, the words, the notes. Perfect for the original, and worse when damaged."""

import importlib.util
import math

import numpy as np
import pytest
import torch

from sora2.metrics.mouth import opening_correlation, seen_opening
from sora2.metrics.round_trip import judge
from sora2.metrics.tuning import note_errors
from sora2.metrics.weights import missing_weights
from sora2.toybox import Toybox, whole_world

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="needs sora2[toybox]"
)
needs_whisper = pytest.mark.skipif(
    bool(missing_weights(["whisper-tiny-en"])) or importlib.util.find_spec("faster_whisper") is None,
    reason="needs sora2[eval]",
)


@pytest.fixture(scope="module")
def talking():
    world = Toybox(whole_world(scenes=("talk",), split="test"))
    return [world.clip(0, words="banana robot", style=style) for style in ("cartoon", "pencil", "moody")]


@pytest.fixture(scope="module")
def playing():
    world = Toybox(whole_world(scenes=("strike",), split="test"))
    return [world.clip(i, ambience="silence", instrument=name) for i, name in enumerate(("bells", "marimba"))]


def faster(clip, cents):
    """The clip with its sound resampled so that it is `cents` higher, in the same time."""
    ratio = 2 ** (cents / 1200)
    samples = clip.audio.shape[1]
    at = np.arange(samples) * ratio
    sound = [np.interp(at, np.arange(samples), channel) for channel in clip.audio.numpy()]
    return clip.replace(audio=torch.from_numpy(np.stack(sound).astype(np.float32)))


@needs_espeak
def test_the_mouth_of_the_original_is_seen_in_every_style(talking):
    for clip in talking:
        assert opening_correlation(clip, clip.meta["truth"]) > 0.95, clip.meta["truth"]["style"]


@needs_espeak
def test_a_face_that_stands_still_or_lags_is_noticed(talking):
    clip = talking[0]
    truth = clip.meta["truth"]
    frozen = clip.replace(video=clip.video[:1].expand_as(clip.video).clone())
    assert abs(opening_correlation(frozen, truth)) < 0.5
    late = clip.replace(video=clip.video.roll(3, dims=0))
    assert opening_correlation(late, truth) < 0.8
    shut = truth | {"mouth": truth["mouth"] | {"opening": [0.0] * len(truth["mouth"]["opening"])}}
    assert math.isnan(opening_correlation(clip, shut))


@needs_espeak
def test_the_place_of_the_mouth_follows_the_camera():
    world = Toybox(whole_world(scenes=("talk",), split="test"))
    for camera in ("pan", "zoom", "shake"):
        clip = world.clip(0, words="banana robot", style="cartoon", light="day", camera=camera)
        seen, true = seen_opening(clip, clip.meta["truth"]), clip.meta["truth"]["mouth"]["opening"]
        assert np.corrcoef(seen, true)[0, 1] > 0.97, camera


def test_notes_of_the_original_are_in_tune(playing):
    for clip in playing:
        errors = np.array(note_errors(clip, clip.meta["truth"]))
        assert np.isfinite(errors).sum() >= 3
        assert np.nanmax(np.abs(errors)) < 2


@pytest.mark.parametrize("cents", [-25, 12])
def test_a_detuned_clip_is_measured_in_cents_and_with_its_sign(playing, cents):
    clip = playing[1]
    # only the first note keeps its place in time when all is played faster
    truth = clip.meta["truth"]
    first = [e for e in truth["events"] if e["kind"] == "note"][:1]
    shifted = [{**e, "onset_seconds": e["onset_seconds"] * 2 ** (-cents / 1200)} for e in first]
    assert note_errors(faster(clip, cents), truth | {"events": shifted}) == pytest.approx([cents], abs=3)


def test_a_note_that_noise_hides_is_lost_and_not_left_out(playing):
    clip = playing[0]
    noise = torch.randn(clip.audio.shape, generator=torch.Generator().manual_seed(0))
    _, events = judge(clip, clip.replace(audio=noise))
    assert len(events["pitch_cents"]) == len(events["pitch_original_cents"]) >= 3
    assert np.mean(events["notes_lost_percent"]) > 60
    assert np.median(np.abs(events["pitch_cents"])) == 60
    _, same = judge(clip, clip)
    assert same["notes_lost_percent"] == [0.0] * len(same["pitch_cents"])


@needs_espeak
@needs_whisper
def test_words_are_heard_in_the_original_and_lost_in_noise():
    quiet = Toybox(whole_world(scenes=("talk",), split="test")).clip(
        0, words="banana robot", ambience="silence"
    )
    noise = torch.randn(quiet.audio.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    _, same = judge(quiet, quiet)
    assert same["words_original_percent"] == [100.0, 100.0]
    assert same["words_lost_points"] == [0.0, 0.0]
    values, lost = judge(quiet, quiet.replace(audio=noise))
    assert lost["words_percent"] == [0.0, 0.0]
    assert lost["words_lost_points"] == [100.0, 100.0]
    assert values["mouth_correlation"] == values["mouth_correlation_original"]


def test_other_scenes_are_not_asked_for_words_or_notes():
    clip = Toybox(whole_world(scenes=("cradle",), height=16, width=16, frames=5)).clip(0)
    assert judge(clip, clip) == ({}, {})
