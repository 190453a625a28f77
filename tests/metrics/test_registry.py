import math

import pytest
import torch

from sora2.metrics import MetricError, Unmeasurable, all_metrics, metric, select_metrics
from sora2.metrics.evidence import Evidence
from sora2.metrics.registry import _REGISTRY
from sora2.types import Clip


@pytest.fixture
def scratch():
    """A metric of a test, which is gone after it."""
    before = dict(_REGISTRY.clip)
    yield
    _REGISTRY.clip.clear()
    _REGISTRY.clip.update(before)


def test_every_metric_says_what_it_is():
    metrics = all_metrics()
    assert {
        "av_offset",
        "av_f1_45",
        "gravity_error",
        "restitution_error",
        "tracked_color",
        "video_psnr",
    } <= set(metrics)
    for m in metrics.values():
        assert m.description.endswith(".") and m.needs and m.direction in ("lower", "higher", "zero")


def test_one_function_is_a_metric(scratch):
    @metric("peak_level", unit="dB", direction="higher", needs=("audio",), tolerance=-20)
    def peak_level(evidence):
        """Peak level."""
        peak = float(evidence.clip.audio.abs().max())
        if peak == 0:
            raise Unmeasurable("silence")
        return 20 * math.log10(peak), {"peak": peak}

    m = select_metrics(["peak_level"])[0]["peak_level"]
    loud = m(Clip(audio=torch.full((1, 10), 0.5), sample_rate=10))
    assert loud.measured and loud.value == pytest.approx(-6.02, abs=0.01) and loud.unit == "dB"
    assert m.success(loud)
    silent = m(Clip(audio=torch.zeros(1, 10), sample_rate=10))
    assert (silent.status, silent.reason) == ("unmeasurable", "silence") and math.isnan(silent.value)
    assert not m.success(silent)
    assert (
        m(Clip(video=torch.zeros(1, 4, 4, 3, dtype=torch.uint8), fps=1.0)).reason == "the clip has no audio"
    )


def test_a_value_that_is_not_finite_is_no_value(scratch):
    @metric("bad", unit="", direction="lower", needs=("video",), tolerance=1)
    def bad(evidence):
        """Always infinite."""
        return math.inf

    value = select_metrics(["bad"])[0]["bad"](Clip(video=torch.zeros(1, 4, 4, 3, dtype=torch.uint8), fps=1.0))
    assert value.status == "unmeasurable" and math.isnan(value.value)


def test_mistakes_are_named(scratch):
    with pytest.raises(MetricError, match=r"av_ofset.*choose from.*av_offset"):
        select_metrics(["av_ofset"])
    with pytest.raises(MetricError, match="twice"):
        metric("av_offset", unit="", direction="lower", needs=("video",), tolerance=1)(lambda e: 0.0)
    with pytest.raises(MetricError, match="smell"):
        metric("x", unit="", direction="lower", needs=("smell",), tolerance=1)


def test_reconstruction_is_best_at_identity_and_worse_with_noise(clips):
    metrics = all_metrics()
    clip = clips[0]
    names = ("video_psnr", "audio_si_sdr", "log_mel_distance", "onset_shift")
    same = {n: metrics[n](clip, reference=clip).value for n in names}
    assert same["video_psnr"] == 100 and same["audio_si_sdr"] > 100
    assert same["log_mel_distance"] == 0 and same["onset_shift"] == 0
    generator = torch.Generator().manual_seed(0)
    last = same
    for level in (0.001, 0.01, 0.1):
        pixels = clip.video.float() + 255 * level * torch.randn(clip.video.shape, generator=generator)
        worse = clip.replace(
            video=pixels.round().clamp(0, 255).to(torch.uint8),
            audio=clip.audio + level * torch.randn(clip.audio.shape, generator=generator),
        )
        now = {n: metrics[n](worse, reference=clip).value for n in names[:3]}
        assert now["video_psnr"] < last["video_psnr"] and now["audio_si_sdr"] < last["audio_si_sdr"]
        assert now["log_mel_distance"] > last["log_mel_distance"]
        last = now


def test_lost_sound_is_no_reconstruction(clips):
    cut = clips[0].replace(audio=clips[0].audio[:, :8000])
    value = all_metrics()["audio_si_sdr"](cut, reference=clips[0])
    assert not value.measured and "0.50 s long" in value.reason


def test_what_a_metric_read_of_the_truth_is_not_taken_for_a_clip_of_another(clips):
    """`continuity` needs no truth, but where there is one it says whether the clip is asked."""
    clip = clips[0]
    continuity = all_metrics()["continuity"]
    seen = Evidence(clip)
    assert continuity.evaluate(seen).status == "measured"
    without_balls = {**clip.meta["truth"], "balls": [], "scene": "weather"}
    assert continuity.evaluate(Evidence(clip, truth=without_balls).share(seen)) is None
    known = Evidence(clip, truth=seen.truth).share(seen)  # and is taken where the truth is the same
    assert continuity.measure in known._remembered
