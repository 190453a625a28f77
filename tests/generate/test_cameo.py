"""A person's face and voice in a clip: asked for with consent, of checkpoints that have learned it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image
from tiny import film, save_checkpoint, save_film

from sora2.cli import main
from sora2.generate import Pipeline, Request, RequestError
from sora2.types import Clip

ANNA, BEN = film(17, seed=1), film(9, seed=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = save_checkpoint(tmp_path_factory.mktemp("cameo"))
    described = yaml.safe_load((folder / "config.yaml").read_text()) | {"references": True}
    (folder / "config.yaml").write_text(yaml.safe_dump(described))
    return folder


@pytest.fixture(scope="module")
def pipeline(checkpoint):
    return Pipeline.from_checkpoint(checkpoint)


def cameo(person, **changes) -> Request:
    return Request(prompt="a face", cameo=person, consent="she, in a letter", **changes)


def differ(one: Clip, other: Clip) -> tuple[bool, bool]:
    pictures = (one.video.int() - other.video.int()).abs().max() > 1
    return bool(pictures), not torch.allclose(one.audio, other.audio, atol=1e-3)


def test_who_is_shown_changes_the_clip(pipeline):
    none, anna, ben = pipeline.generate([Request(prompt="a face"), cameo(ANNA), cameo(BEN)])
    assert any(differ(anna, none)) and any(differ(anna, ben))
    assert anna.video.shape == none.video.shape


def test_people_in_a_batch_are_those_of_each_clip_alone(pipeline):
    """Voices of different lengths, a face without a voice and a voice without a face are padded, and masked."""
    face = Clip(video=ANNA.video[:1], fps=8.0)
    voice = Clip(audio=BEN.audio[:, :3000], sample_rate=8000)
    requests = [cameo(person, seed=k) for k, person in enumerate((ANNA, BEN, face, voice))]
    for request, clip in zip(requests, pipeline.generate(requests), strict=True):
        alone = pipeline.generate([request])[0]
        assert (alone.video.int() - clip.video.int()).abs().max() <= 1
        torch.testing.assert_close(alone.audio, clip.audio, atol=1e-4, rtol=1e-4)


def test_what_is_taken_is_the_first_picture_and_the_sound_of_a_trained_length(pipeline):
    """As `collate_latents` takes it in training."""
    longer = film(33, seed=1)
    same = longer.replace(video=longer.video.clone())
    same.video[1:] = 0
    same.audio[:, 17 * 1000 :] = 0.0
    one, other = pipeline.generate([cameo(longer), cameo(same)])
    assert differ(one, other) == (False, False)
    face = pipeline.codecs.encode_clip(Clip(video=longer.video[:1], fps=8.0))["video"]
    torch.testing.assert_close(
        face, pipeline.codecs.encode_clip(longer.replace(audio=None, sample_rate=0))["video"][:, :1]
    )


@pytest.mark.parametrize("task", ["video_to_audio", "audio_to_video", "extend_forward"])
def test_a_person_goes_with_other_tasks(pipeline, task):
    given = {
        "video_to_audio": {"video": film(17)},
        "audio_to_video": {"audio": film(17)},
        "extend_forward": {"video": film(17), "extend": "forward", "seconds": 3.0},
    }[task]
    one, other, again = pipeline.generate([cameo(person, **given) for person in (ANNA, BEN, ANNA)])
    made = "audio" if task == "video_to_audio" else "video"  # by a random network, which hears little of it
    assert not torch.equal(getattr(one, made), getattr(other, made))
    assert (one.video.int() - again.video.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("part", "request_"), [("a voice", {"silent": True}), ("a face", {"task": "audio_only"})]
)
def test_a_person_of_whom_nothing_could_be_used_is_refused(pipeline, part, request_):
    person = (
        ANNA.replace(audio=None, sample_rate=0) if part == "a face" else ANNA.replace(video=None, fps=0.0)
    )
    with pytest.raises(
        RequestError, match=f"--cameo gives {part} alone, and the clip is to have no such stream"
    ):
        pipeline.generate([cameo(person, **request_)])


def test_a_person_is_not_put_in_without_consent():
    with pytest.raises(RequestError, match=r"--cameo puts a person's face and voice .* --consent who agreed"):
        Request(prompt="a face", cameo=ANNA)
    with pytest.raises(RequestError, match="--consent who agreed"):
        Request(prompt="a face", cameo=ANNA, consent=" ")
    with pytest.raises(RequestError, match="--consent is about a person"):
        Request(prompt="a face", consent="Anna")


def test_a_checkpoint_that_has_not_learned_it_says_so(pipeline):
    plain = Pipeline(pipeline.model, pipeline.codecs, replace(pipeline.world, references=False))
    with pytest.raises(
        RequestError, match=r"--cameo: this checkpoint has learned nothing of references; train with"
    ):
        plain.generate([cameo(ANNA)])


def test_people_from_the_command_line(checkpoint, tmp_path, capsys):
    common = ["sample", "--checkpoint", str(checkpoint), "--prompt", "a face"]
    anna = save_film(tmp_path / "anna.mp4", frames=17)
    Image.fromarray(ANNA.video[0].numpy()).save(tmp_path / "anna.png")
    assert main([*common, "--cameo", str(anna), "--out", str(tmp_path / "no.mp4")]) == 2
    assert "--consent" in capsys.readouterr().err and not (tmp_path / "no.mp4").exists()
    for source in (anna, tmp_path / "anna.png"):
        out = tmp_path / f"{source.suffix[1:]}.mp4"
        assert main([*common, "--cameo", str(source), "--consent", "Anna, 3 May", "--out", str(out)]) == 0
        request = json.loads(out.with_suffix(".json").read_text())["request"]
        assert (request["cameo"], request["consent"]) == (str(source), "Anna, 3 May")
    missing = [
        *common,
        "--cameo",
        str(tmp_path / "no.mp4"),
        "--consent",
        "Anna",
        "--out",
        str(tmp_path / "b.mp4"),
    ]
    assert main(missing) == 2 and "no.mp4" in capsys.readouterr().err
