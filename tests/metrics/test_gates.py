"""What a clip must be before it is measured; and that failing a gate fails everything."""

import numpy as np
import pytest
import torch

from sora2.metrics import Evidence, select_metrics
from sora2.metrics.controls import Item
from sora2.metrics.gates import Expected, failed_gates
from sora2.metrics.measuring import Task, measure


def gates(clip, expected=None, truth=None):
    return set(failed_gates(Evidence(clip, truth={} if truth is None else truth), expected))


def test_real_clips_pass(clips):
    for clip in clips:
        assert failed_gates(Evidence(clip), Expected(audio=True)) == {}


def half(tensor, dim):
    return tensor.narrow(dim, 0, tensor.shape[dim] // 2).contiguous()


@pytest.mark.parametrize(
    ("gate", "damage"),
    {
        "not black": lambda c: c.replace(video=torch.zeros_like(c.video)),
        "not frozen": lambda c: c.replace(video=c.video[:1].expand_as(c.video).contiguous()),
        "not silent": lambda c: c.replace(audio=c.audio * 0),
        "not clipped": lambda c: c.replace(audio=(c.audio * 1000).clamp(-1, 1)),
        "finite": lambda c: c.replace(audio=torch.where(c.audio > 0.01, torch.nan, c.audio)),
        "equal lengths": lambda c: c.replace(audio=half(c.audio, 1)),
    }.items(),
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_each_gate_stops_its_own_defect(clips, gate, damage):
    worse = damage(clips[0])
    assert gate in gates(worse)
    outcome = measure(Item("k", "p", worse, clips[0].meta["truth"]), Task(tuple(select_metrics()[0])))
    assert gate in outcome.gates and outcome.values
    assert not any(v.measured for v in outcome.values.values())


def test_shape_is_what_was_expected(clips):
    clip = clips[0]
    assert gates(clip.replace(fps=24.0), Expected(fps=16.0)) >= {"frame rate"}
    assert gates(clip, Expected(fps=16.0, seconds=clip.video_seconds)) == set()
    assert "duration" in gates(clip, Expected(seconds=5.0))
    assert "sound" in gates(clip.replace(audio=None), Expected(audio=True))
    assert "frame rate" in gates(clip.replace(fps=24.0), truth=clip.meta["truth"])


def test_a_soundtrack_may_miss_the_end_by_a_frame_only(clips):
    clip = clips[0]
    frame = clip.sample_rate // 16
    for missing, passes in ((frame // 2, True), (frame, True), (2 * frame, False)):
        cut = clip.replace(audio=clip.audio[:, : clip.audio.shape[1] - missing])
        assert ("equal lengths" not in gates(cut)) == passes


def test_silence_is_right_where_nothing_sounds(clips):
    silent = clips[0].replace(audio=clips[0].audio * 0)
    assert "not silent" not in gates(silent, truth={"ambience": "silence", "events": []})
    assert "not silent" in gates(silent, truth={"ambience": "rain", "events": []})


def test_a_picture_that_rests_for_half_its_length_is_no_still(clips):
    video = clips[0].video.clone()
    video[17:] = video[16]
    assert gates(clips[0].replace(video=video)) == set()


def test_pictures_and_sounds_alone_are_measured(clips):
    sound_only = clips[0].replace(video=None, fps=0.0)
    picture_only = clips[0].replace(audio=None, sample_rate=0)
    names = ("clipping", "flicker", "av_offset")
    heard = measure(Item("a", "a", sound_only), Task(names)).values
    seen = measure(Item("b", "b", picture_only), Task(names)).values
    assert heard["clipping"].measured and heard["flicker"].reason == "the clip has no video"
    assert seen["flicker"].measured and seen["av_offset"].reason == "the clip has no audio"
    assert np.isnan(seen["av_offset"].value)
