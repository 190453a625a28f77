"""Two checkpoints in a row: whose pictures, whose sound, and what is refused."""

from dataclasses import replace

import pytest
import torch
from tiny import film, save_checkpoint

from sora2.generate import CheckpointError, Pipeline, Request, RequestError
from sora2.generate.cascade import Cascade


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    root = tmp_path_factory.mktemp("cascade")
    return [Pipeline.from_checkpoint(save_checkpoint(root / name)) for name in ("pictures", "sound")]


@pytest.mark.parametrize("task", ["video_to_audio", "audio_only"])
def test_pictures_are_those_of_the_first_and_sound_that_of_the_second(pipelines, task):
    pictures, sound = pipelines
    requests = [Request(prompt=f"a tone {i}", seed=i) for i in range(3)]
    made = Cascade(pictures, sound, task).generate(requests)
    silent = pictures.generate([r.replace(silent=True) for r in requests])
    for request, clip, seen in zip(requests, made, silent, strict=True):
        assert torch.equal(clip.video, seen.video)
        alone = (
            request.replace(video=seen) if task == "video_to_audio" else request.replace(task="audio_only")
        )
        assert torch.allclose(clip.audio, sound.generate([alone])[0].audio, atol=1e-5)
        assert clip.sample_rate and clip.caption == request.prompt


def test_what_two_checkpoints_cannot_do_is_refused(pipelines):
    with pytest.raises(RequestError, match="words alone"):
        Cascade(*pipelines).generate([Request(video=film(), extend="forward")])
    with pytest.raises(RequestError, match="sound_task='foley'"):
        Cascade(*pipelines, "foley")
    other = Pipeline(pipelines[1].model, pipelines[1].codecs, replace(pipelines[1].world, frames=9))
    with pytest.raises(CheckpointError, match="same clips"):
        Cascade(pipelines[0], other)
