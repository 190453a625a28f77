"""What is heard is what happened: onset, pitch, level, place and ambience."""

from itertools import pairwise

import numpy as np
import pytest

from sora2.toybox import AMBIENCES, MATERIALS, SIZES, Toybox, ToyboxConfig, clip_from_spec, whole_world
from sora2.toybox.foreground import foreground, has_own_noise
from sora2.toybox.sound import AMBIENCE_LEVEL, LIMITER_CEILING, impact_level, impact_voice, limit, pan_gains


def impact(**spec):
    """Sound and event of the first floor impact of one ball."""
    spec = {
        "ambience": "silence",
        "count": 1,
        "vx": 0.0,
        "vy": 0.0,
        "x": 0.5,
        "y": 0.4,
        "gravity": "normal",
    } | spec
    clip = clip_from_spec(**spec)
    return clip.audio.numpy(), clip.meta["truth"]["events"]


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("size", SIZES)
def test_onset_is_exact_to_the_sample(material, size):
    for y in (0.2, 0.31, 0.4437):
        audio, events = impact(material=material, size=size, y=y)
        heard = int(np.flatnonzero(np.abs(audio).max(0) > 1e-4)[0])
        assert abs(heard - events[0]["onset_seconds"] * 16000) <= 1.0
        assert np.all(audio[:, : heard - 1] == 0)


def test_onset_lies_between_samples():
    """A delay of half a sample is the waveform of a doubled rate, taken at its odd samples."""
    coarse, fine = impact_voice("wood", "big", 16000, 4000), impact_voice("wood", "big", 32000, 8000)
    half = coarse.render(np.array([0.5 / 16000]), np.array([1.0]))[0]
    np.testing.assert_allclose(
        half, fine.render(np.array([0.0]), np.array([1.0]))[0, 1::2][: half.size], atol=2e-5
    )


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("size", SIZES)
def test_pitch_tells_material_and_size(material, size):
    audio, events = impact(material=material, size=size, y=0.2)
    start = int(events[0]["onset_seconds"] * 16000)
    stop = int(events[1]["onset_seconds"] * 16000) if len(events) > 1 else None
    spectrum = np.abs(np.fft.rfft(audio[0, start:stop] * 1.0, 1 << 16))
    peak = np.argmax(spectrum) * 16000 / (1 << 16)
    assert peak == pytest.approx(MATERIALS[material].frequency_hz[size], rel=0.05)


def test_all_pitches_differ_by_a_third_or_more_and_fit_the_band():
    lowest = sorted(f for m in MATERIALS.values() for f in m.frequency_hz.values())
    assert min(b / a for a, b in pairwise(lowest)) > 1.25
    modes = [f for m in MATERIALS.values() for size in SIZES for f in m.mode_frequencies(size)]
    assert min(modes) >= 150 and max(modes) <= 3500


def test_level_grows_with_speed_and_is_the_peak():
    speeds, peaks = [], []
    for y in (0.75, 0.7, 0.6, 0.45, 0.3, 0.15):
        audio, events = impact(material="wood", size="small", y=y, gravity="high")
        stop = int(events[1]["onset_seconds"] * 16000)
        speeds.append(events[0]["speed"])
        peaks.append(np.hypot(*audio[:, :stop]).max())
        assert peaks[-1] == pytest.approx(events[0]["level"], rel=0.1)
    assert speeds == sorted(speeds) and peaks == sorted(peaks)
    levels = [impact_level(v) for v in np.linspace(0.1, 20, 200)]
    assert all(a < b for a, b in pairwise(levels)) and levels[-1] < 0.95


def test_pan_follows_the_place():
    for x in (0.15, 0.35, 0.5, 0.65, 0.85):
        audio, events = impact(x=x)
        left, right = np.sqrt((audio**2).sum(1))
        assert np.sign(round(right - left, 4)) == np.sign(events[0]["pan"]) == np.sign(x - 0.5)
        angle = np.arctan2(right, left)
        assert angle == pytest.approx((events[0]["pan"] + 1) * np.pi / 4, abs=1e-3)
    for pan in np.linspace(-1, 1, 9):
        assert (pan_gains(pan, 2) ** 2).sum() == pytest.approx(1)


def test_mono_hears_left_and_right_alike():
    levels = []
    for x in (0.2, 0.8):
        clip = clip_from_spec(ToyboxConfig(channels=1), ambience="silence", count=1, vx=0.0, x=x)
        assert clip.audio.shape[0] == 1
        levels.append(clip.audio.abs().max().item())
    assert levels[0] == pytest.approx(levels[1], rel=1e-6)


def test_two_balls_that_meet_are_one_event_with_both_voices():
    def meet(first, second):
        balls = [
            {"x": 0.3, "y": 0.3, "vx": 0.8, "vy": 0.0, "size": "small", "material": first},
            {"x": 0.7, "y": 0.3, "vx": -0.8, "vy": 0.0, "size": "small", "material": second},
        ]
        clip = clip_from_spec(ambience="silence", gravity="low", balls=balls)
        event = clip.meta["truth"]["events"][0]
        start = round(event["onset_seconds"] * 16000)
        return event, np.abs(np.fft.rfft(clip.audio.numpy().sum(0)[start : start + 2048], 1 << 14))

    event, spectrum = meet("rubber", "metal")
    assert (event["kind"], event["ball"], event["other"]) == ("ball", 0, 1)
    assert event["speed"] == pytest.approx(1.6)
    assert event["x"] == pytest.approx(0.5) and event["pan"] == pytest.approx(0.0, abs=1e-9)
    for material in ("rubber", "metal"):
        bin_ = round(MATERIALS[material].frequency_hz["small"] * (1 << 14) / 16000)
        assert spectrum[bin_ - 8 : bin_ + 9].max() > 5 * np.median(spectrum)


@pytest.mark.parametrize("name", AMBIENCES)
def test_ambience(name):
    clip = clip_from_spec(ambience=name, count=1, gravity="low", y=0.2, vy=0.0, vx=0.2, x=0.3)
    first = int(clip.meta["truth"]["events"][0]["onset_seconds"] * 16000)
    quiet = clip.audio.numpy()[:, :first]
    if name == "silence":
        assert np.all(quiet == 0)
        return
    assert np.sqrt((quiet**2).mean()) == pytest.approx(AMBIENCE_LEVEL[name], rel=0.5)
    assert 0.2 < np.corrcoef(quiet)[0, 1] < 0.95
    power = np.abs(np.fft.rfft(quiet[0])) ** 2
    centre = (power * np.fft.rfftfreq(first, 1 / 16000)).sum() / power.sum()
    assert centre > 1500 if name == "rain" else centre < 400


def test_no_clip_clips():
    for split in ("train", "test_physics_ood"):
        for clip in Toybox(ToyboxConfig(split=split, height=16, width=16)).clips(range(150)):
            assert clip.audio.isfinite().all() and clip.audio.abs().max() < 0.95
    loud = np.array([[0.0, 0.5, 0.8, -3.0, 100.0]], np.float32)
    np.testing.assert_array_equal(limit(loud)[0, :2], loud[0, :2])
    assert np.abs(limit(loud)).max() <= LIMITER_CEILING + 1e-6


def test_the_foreground_is_the_clip_without_its_ambience():
    """From the truth alone, of every scene; what the scene sounds like itself stays, noise or not."""
    world = Toybox(whole_world(split="validation"))
    for index in range(18):
        clip, quiet = world.clip(index), world.clip(index, ambience="silence")
        assert float(clip.audio.abs().max()) < 0.8, "a limited mix cannot be taken apart exactly"
        assert np.allclose(foreground(clip).audio, quiet.audio, atol=1e-6), clip.key
        truth = clip.meta["truth"]
        if truth["scene"] != "story":
            own = truth["scene"] in ("weather", "street")
            assert has_own_noise(truth) == (own or bool(truth.get("rolls"))), clip.key
    assert has_own_noise({"strands": [{}, {"own_ambience": "city hum"}]})
    assert not has_own_noise({"strands": [{}, {"rolls": []}]})
    stranger = quiet.replace(meta={})
    assert foreground(stranger) is stranger
