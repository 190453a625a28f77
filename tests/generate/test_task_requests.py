"""Every task that can be evaluated takes its condition from a real clip, keeps it, and makes a clip of its length."""

import pytest
import torch
from tiny import film, save_checkpoint

from sora2.generate import Pipeline, Request
from sora2.metrics import MetricError
from sora2.metrics.task_requests import CONDITIONS


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return Pipeline.from_checkpoint(save_checkpoint(tmp_path_factory.mktemp("tasks")))


def kept(task, real, made):
    """Pairs of what the task knows of the real clip, and the same part of what was made."""
    half, samples = 9, 9000
    width = real.video.shape[2] // 2
    return {
        "text_to_av": [],
        "video_to_audio": [(real.video, made.video)],
        "audio_to_video": [(real.audio, made.audio)],
        "image_to_av": [(real.video[:1], made.video[:1])],
        "extend_forward": [
            (real.video[:half], made.video[:half]),
            (real.audio[:, :samples], made.audio[:, :samples]),
        ],
        "extend_backward": [
            (real.video[-half:], made.video[-half:]),
            (real.audio[:, -samples:], made.audio[:, -samples:]),
        ],
        "inbetween": [
            (real.video[:5], made.video[:5]),
            (real.video[-5:], made.video[-5:]),
            (real.audio[:, -5000:], made.audio[:, -5000:]),
        ],
        "loop": [
            (real.video[:half], made.video[:half]),
            (real.audio[:, :samples], made.audio[:, :samples]),
        ],
        "remix": [],
        "inpaint": [(real.video[:, :, :width], made.video[:, :, :width])],
    }[task]


@pytest.mark.parametrize("task", list(CONDITIONS))
def test_the_condition_is_kept_and_the_length_is_that_of_the_clip(pipeline, task):
    real = film()
    condition = CONDITIONS[task](real, pipeline.world.temporal_stride)
    made = pipeline.generate([Request(prompt="a tone", seed=3, **condition)])[0]
    assert made.meta["task"] == task
    assert made.video.shape == real.video.shape and made.audio.shape == real.audio.shape
    for known, same in kept(task, real, made):
        assert torch.equal(known, same)
    if task != "video_to_audio":
        assert not torch.equal(made.video, real.video)
    if task not in ("audio_to_video", "inpaint"):
        assert not torch.equal(made.audio, real.audio)


def test_a_clip_too_short_to_extend_is_refused():
    with pytest.raises(MetricError, match="film has 5 frames"):
        CONDITIONS["extend_forward"](film(5), 4)
