"""A talking face: what is seen, heard and told in the truth is one thing."""

import hashlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sora2.toybox import (
    STYLES,
    Toybox,
    ToyboxConfig,
    ToyboxError,
    attributes,
    clip_from_spec,
    mentions,
    whole_world,
)
from sora2.toybox.scene import get_scene, met_combinations
from sora2.toybox.scenes import talk_parameters
from sora2.toybox.scenes.talk_face import INSIDE, LIPS, TONGUE
from sora2.toybox.scenes.talk_parameters import HELD_OUT
from sora2.toybox.sound import pan_gains
from sora2.toybox.speech import VOCABULARY, Span, SpeechError, Utterance, Voice, speech_backend
from sora2.toybox.speech.timeline import wave_at

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="needs sora2[toybox]"
)

CONFIG = whole_world(scenes=("talk",))
PLAIN = {"ambience": "silence", "light": "day", "camera": "static", "pacing": "normal"}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Utterances of these tests are kept together, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SORA2_SPEECH_CACHE", str(tmp_path_factory.mktemp("speech")))
        yield


class SilentBackend:
    """A stand-in for tests that look at what is drawn alone: every word takes 0.4 s."""

    name = "silent"

    def fingerprint(self):
        return "silent"

    def speak(self, words, voice):
        span = (Span(words[0], 0.0, 0.4),)
        return Utterance(np.full(8820, 0.1, np.float32), 22050, (Span("ə", 0.0, 0.4),), span)


@pytest.fixture
def no_synthesiser(monkeypatch):
    monkeypatch.setattr(talk_parameters, "speech_backend", SilentBackend)


def talk(config=CONFIG, index=0, **spec):
    clip = clip_from_spec(config, index=index, **(PLAIN | spec))
    return clip, clip.meta["truth"]


def drawn_parameters(config, index):
    return get_scene("talk").sample(config, index, {})


def seen_pixels(truth, config, name):
    """(T,) column and row of the mouth, and pixels of a world unit, under the clip's camera."""
    camera = {key: np.array(truth["camera"][key]) for key in ("x", "y", "zoom")}
    scale = camera["zoom"] * config.pixels_per_unit
    place = truth[name]
    return (
        (np.array(place["x"]) - camera["x"]) * scale + (config.width - 1) / 2,
        (np.array(place["y"]) - camera["y"]) * scale + (config.height - 1) / 2,
        scale,
    )


def measured_opening(clip, truth, config):
    """(T,) pixels of dark mouth in the column through its middle, and the row of their middle.

    The green of lips and of what is behind them differ, tongue and dark have the same: coverage is linear in it.
    """
    lips, inside = LIPS[truth["identity"]["skin"]][1], INSIDE[1]
    assert TONGUE[1] == inside
    x, y, scale = seen_pixels(truth, config, "mouth")
    heights, middles = [], []
    for frame, column, row, s in zip(clip.video.numpy(), x, y, scale, strict=True):
        green = frame[:, round(column), 1].astype(float)
        reach = int(0.115 * s)  # the chin has an outline
        rows = np.arange(max(0, round(row) - reach), min(config.height, round(row) + reach + 1))
        cover = np.clip((lips - green[rows]) / (lips - inside), 0, 1)
        heights.append(cover.sum())
        middles.append((cover * rows).sum() / max(cover.sum(), 1e-9))
    return np.array(heights), np.array(middles)


@pytest.mark.parametrize("camera", ["static", "pan", "zoom", "shake"])
@pytest.mark.parametrize("size", [64, 128])
def test_rendered_mouth_opening_agrees_with_truth(camera, size):
    config = whole_world(scenes=("talk",), height=size, width=size)
    for index, skin in enumerate(("porcelain", "tan", "brown")):
        clip, truth = talk(
            config, index, style="cartoon", camera=camera, skin=skin, expression="calm", words="family potato"
        )
        _, row, scale = seen_pixels(truth, config, "mouth")
        true = np.array(truth["mouth"]["opening"]) * scale
        assert true.max() > 0.12 * size and true.min() < 0.01 * size  # it opens wide and shuts
        found, middle = measured_opening(clip, truth, config)
        assert np.abs(found - true).max() <= 0.5
        wide = true > 2
        assert np.abs(middle - row)[wide].max() <= 0.5


@pytest.mark.parametrize("style", STYLES)
def test_the_mouth_can_be_read_in_every_style(style):
    """The dark of the mouth against the lips grows with its opening, also under strokes, shadows and hatching."""
    found = []
    for index in range(4):
        config = CONFIG
        clip, truth = talk(config, index, style=style, skin="tan", expression="calm", words="banana happy")
        x, y, scale = seen_pixels(truth, config, "mouth")
        dark = []
        for frame, column, row, s in zip(clip.video.numpy(), x, y, scale, strict=True):
            wide, tall = round(0.06 * s), round(0.10 * s)
            part = frame[
                round(row) - tall : round(row) + tall + 1, round(column) - wide : round(column) + wide + 1
            ]
            dark.append(-part.mean())
        found.append(np.corrcoef(dark, truth["mouth"]["opening"])[0, 1])
    assert np.mean(found) > 0.9, found


def test_word_onsets_agree_with_the_sound():
    for index in range(6):
        clip, truth = talk(index=index)
        audio = clip.audio.numpy()
        events = truth["events"]
        first = round(events[0]["onset_seconds"] * 16000)
        assert np.all(audio[:, :first] == 0)
        assert int(np.flatnonzero(np.abs(audio).max(0) > 1e-5)[0]) - first in (0, 1)
        for before, after in itertools.pairwise(events):
            end, start = (round(s * 16000) for s in (before["end_seconds"], after["onset_seconds"]))
            assert np.all(audio[:, end + 1 : start] == 0)  # nothing between the words
            assert np.abs(audio[:, start : start + 2]).max() > 1e-5


@pytest.mark.parametrize("rate", [16000, 24000])
def test_the_sound_is_the_synthesised_words_where_truth_says(rate):
    config = whole_world(scenes=("talk",), sample_rate=rate)
    clip, truth = talk(config, 3, words=("hello", "robot"))
    voice = Voice(*(truth["voice"][key] for key in ("number", "pitch", "words_per_minute")))
    expected = np.zeros((2, config.samples), np.float32)
    for event in truth["events"]:
        _, wave = wave_at(speech_backend(), event["word"], voice, rate)
        start = round(event["onset_seconds"] * rate)
        assert start == pytest.approx(event["onset_seconds"] * rate, abs=1e-6)
        assert event["level"] == pytest.approx(np.abs(wave).max())
        expected[:, start : start + wave.size] += (
            pan_gains(event["pan"], 2)[:, None].astype(np.float32) * wave
        )
    np.testing.assert_allclose(clip.audio.numpy(), expected, atol=1e-6)
    assert truth["words"] == [event["word"] for event in truth["events"]] == ["hello", "robot"]


def test_phonemes_tile_the_words_and_shut_the_mouth():
    _, truth = talk(whole_world(scenes=("talk",), fps=64, frames=128), words="purple")
    (event,) = truth["events"]
    spans = truth["phonemes"]
    assert spans[0]["start_seconds"] == pytest.approx(event["onset_seconds"], abs=1e-6)
    assert spans[-1]["end_seconds"] == pytest.approx(event["end_seconds"], abs=1e-6)
    seconds = np.arange(128) / 64
    opening = np.array(truth["mouth"]["opening"])
    for span in spans:
        middle = (span["start_seconds"] + span["end_seconds"]) / 2
        now = opening[np.argmin(np.abs(seconds - middle))]
        assert now < 0.02 if span["phoneme"] == "p" else now > 0.02
    quiet = (seconds < event["onset_seconds"] - 0.15) | (seconds > event["end_seconds"] + 0.15)
    assert opening[quiet].max() < 1e-3


def test_the_face_is_where_truth_says():
    """The shirt is green and the wall is grey: what is skin-coloured lies within the head and the neck."""
    config = CONFIG
    clip, truth = talk(
        config, 1, style="cartoon", skin="light", hair="bald", hat="none", glasses="none", background="plain"
    )
    x, y, scale = seen_pixels(truth, config, "head")
    half = truth["head"]["half_width"] * scale
    for frame, column, row, reach in zip(clip.video.numpy(), x, y, half, strict=True):
        line = frame[round(row + 0.06 * 64)].astype(int)
        skin = np.flatnonzero(np.abs(line - np.array([242, 198, 160])).max(axis=1) < 30)
        assert abs((skin.min() + skin.max()) / 2 - column) < 1.5
        assert reach - 3 < (skin.max() - skin.min() + 1) / 2 < reach + 3.5  # the ears stand out


def test_eyes_blink():
    config = whole_world(scenes=("talk",), frames=96)
    clip, truth = talk(config, 2, style="cartoon", glasses="none", hat="none", hair="bald", expression="calm")
    open_ = np.array(truth["eyes_open"])
    assert open_.min() < 0.3 and np.median(open_) == 1.0
    x, y, _ = seen_pixels(truth, config, "head")
    rows = np.round(y - 0.05 * 64).astype(int)
    columns = np.round(x).astype(int)
    white = [
        (frame[r - 3 : r + 4, c - 14 : c + 15].min(axis=2) > 225).sum()
        for frame, r, c in zip(clip.video.numpy(), rows, columns, strict=True)
    ]
    assert np.corrcoef(white, open_)[0, 1] > 0.8


def test_the_same_in_another_process_and_without_a_cache(tmp_path):
    """Also: the synthesiser is loaded only when a face speaks."""
    code = """
import hashlib, json, sys
sys.modules["espeakng_loader"] = sys.modules["onnxruntime"] = None
from sora2.toybox import Toybox, whole_world
for name in ("espeakng_loader", "onnxruntime"):
    del sys.modules[name]
toybox = Toybox(whole_world(scenes=("talk",)))
for index in (7, 3):
    clip = toybox.clip(index)
    print(hashlib.sha256(clip.video.numpy().tobytes() + clip.audio.numpy().tobytes()
          + json.dumps(clip.meta["truth"]).encode()).hexdigest())
"""
    environment = {**os.environ, "SORA2_SPEECH_CACHE": str(tmp_path), "OMP_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    toybox = Toybox(CONFIG)
    here = []
    for index in (7, 3):
        clip = toybox.clip(index)
        content = clip.video.numpy().tobytes() + clip.audio.numpy().tobytes()
        here.append(hashlib.sha256(content + json.dumps(clip.meta["truth"]).encode()).hexdigest())
    assert done.stdout.split() == here


def test_captions_say_the_words_and_the_face():
    for index in range(12):
        _, truth = talk(index=index)
        said = {name: value for name, value in attributes(truth).items() if name not in ("style", "ambience")}
        for kind, text in truth["captions"].items():
            assert f'"{" ".join(truth["words"])}"' in text, (kind, text)
            for name, value in said.items():
                assert mentions(text, name, value), (kind, name, value, text)


def test_commanded_attributes_leave_the_rest():
    clip, truth = talk(index=5, words="hello")
    other, changed = talk(index=5, words="hello", hat="cap", skin="dark")
    assert changed["identity"]["hat"] == "cap" and changed["identity"]["skin"] == "dark"
    np.testing.assert_array_equal(clip.audio.numpy(), other.audio.numpy())
    assert truth["mouth"] == changed["mouth"] and truth["events"] == changed["events"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"words": "hello world"}, "'world' is not in the vocabulary: choose from apple"),
        ({"words": "hello " * 5}, "one to four words"),
        ({"hat": "crown"}, "hat='crown' is unknown: choose from none, cap"),
        ({"gravity": "low"}, "unknown attribute 'gravity'"),
        ({"identity": "me"}, "must be an Identity"),
        ({"words": "butter"}, "'butter' is not in the vocabulary"),
        (
            {"words": "elephant tomorrow chocolate potato", "pacing": "slow"},
            "give fewer words or more frames",
        ),
    ],
)
def test_impossible_requests_are_refused(spec, said):
    with pytest.raises((ToyboxError, SpeechError), match=said):
        talk(**spec)


@pytest.mark.parametrize(("frames", "fps"), [(1, 24), (16, 24), (96, 8), (480, 24)])
def test_any_length(frames, fps):
    config = whole_world(scenes=("talk",), frames=frames, fps=fps, height=32, width=48, channels=1)
    clip, truth = talk(config, 4)
    assert clip.video.shape == (frames, 32, 48, 3) and clip.audio.shape == (1, config.samples)
    assert len(truth["mouth"]["opening"]) == frames
    onsets = [event["onset_seconds"] for event in truth["events"]]
    assert onsets == sorted(onsets)
    assert truth["complete"] == (truth["events"][-1]["end_seconds"] <= config.seconds)
    assert truth["complete"] or frames <= 16
    repeats = len(truth["events"]) / len(truth["words"])
    assert repeats == int(repeats) and (repeats > 3) == (frames == 480)


def test_drawn_words_are_of_the_vocabulary_and_fit(no_synthesiser):
    counts = set()
    for index in range(16):
        parameters = drawn_parameters(CONFIG, index)
        counts.add(len(parameters.words))
        assert set(parameters.words) <= set(VOCABULARY) and parameters.complete
    assert counts == {1, 2, 3, 4}


def test_cameo_shows_one_person_with_one_voice_who_is_never_seen_elsewhere(no_synthesiser):
    cameo = [drawn_parameters(whole_world(scenes=("talk",), split="cameo"), index) for index in range(8)]
    for group in (cameo[:4], cameo[4:]):
        assert len({p.identity for p in group}) == 1
        assert len({(p.voice.number, p.voice.pitch) for p in group}) == 1
        assert len({p.words for p in group}) > 1
        assert all(p.identity.held_out for p in group)
    assert [p.who["role"] for p in cameo[:4]] == ["enrolment"] * 3 + ["target"]
    for split in ("train", "validation", "test", "test_compositional"):
        config = whole_world(scenes=("talk",), split=split)
        drawn = [drawn_parameters(config, index) for index in range(6)]
        assert not any(p.identity.held_out for p in drawn)
        met = [bool(met_combinations(p.carriers(), HELD_OUT)) for p in drawn]
        assert all(met) if split == "test_compositional" else not any(met)


def test_voices_of_identities_differ_and_pacing_changes_the_rate():
    _, low = talk(index=2, voice=0, pitch=-0.9, words="robot")
    _, high = talk(index=2, voice=0, pitch=0.9, words="robot")
    assert (low["voice"]["pitch"], high["voice"]["pitch"]) == (0, 2)
    seconds = [
        talk(index=2, words="robot", pacing=pacing)[1]["events"][0] for pacing in ("slow", "normal", "fast")
    ]
    lengths = [event["end_seconds"] - event["onset_seconds"] for event in seconds]
    assert lengths[0] > 1.1 * lengths[1] > 1.2 * lengths[2]


def test_the_narrow_world_can_talk():
    clip = Toybox(ToyboxConfig(scenes=("talk",))).clip(0)
    assert clip.meta["truth"]["style"] in ("cartoon", "cinematic")
