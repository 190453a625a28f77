"""Stories: shots of other scenes, the same persons and worlds in them, exact cuts."""

import itertools

import numpy as np
import pytest
import torch

from sora2.toybox import Toybox, ToyboxConfig, ToyboxError, clip_from_spec, get_scene, whole_world
from sora2.toybox.scenes.story import PLACES, PLOTS, SHORTEST_SHOT_FRAMES, strand_config


def world(**changes):
    return whole_world(scenes=("story",), frames=49, **changes)


def story(index=0, config=None, **spec):
    return clip_from_spec(world() if config is None else config, index=index, **spec)


@pytest.mark.parametrize("plot", PLOTS)
def test_shots_tile_the_clip_and_strands_go_on_where_they_were_left(plot):
    for index in range(3):
        truth = story(index, plot=plot).meta["truth"]
        shots, frame, shown = truth["shots"], 0, {}
        assert 2 <= len(shots) <= 4
        for shot in shots:
            assert shot["first_frame"] == frame and shot["frames"] >= SHORTEST_SHOT_FRAMES
            assert shot["strand_first_frame"] == shown.get(shot["strand"], 0)
            shown[shot["strand"]] = shown.get(shot["strand"], 0) + shot["frames"]
            frame += shot["frames"]
        assert frame == truth["frames"]
        assert truth["cut_seconds"] == [shot["first_frame"] / 16 for shot in shots[1:]]
        assert [strand["frames"] for strand in truth["strands"]] == [shown[k] for k in sorted(shown)]
        for a, b in itertools.pairwise(shots):
            assert (a["strand"], a["framing"]) != (b["strand"], b["framing"])  # every cut is seen
        for shot in shots:
            assert set(shot["captions"]) == {"label", "sentence", "paragraph"}


def test_the_cut_is_a_jump_of_the_picture():
    clip = story(2, plot="report", place="strike", style="cartoon", light="day", camera="static")
    change = (clip.video[1:].float() - clip.video[:-1].float()).abs().mean(dim=(1, 2, 3)).numpy()
    cuts = [round(t * 16) - 1 for t in clip.meta["truth"]["cut_seconds"]]
    assert min(change[cuts]) > 2 * np.delete(change, cuts).max()


def test_a_strand_in_a_story_is_the_scene_itself():
    """Sound and pictures of a wide first shot are those of its scene under the same parameters."""
    config = world(styles=("cartoon",), cameras=("static",), lights=("day",))
    box = Toybox(config)
    scene = get_scene("story")
    for index in range(12):
        parameters = scene.sample(config, index, {})
        shot = parameters.shots[0]
        if shot.framing == "wide":
            break
    own = strand_config(config, parameters.shots, 0)
    strand = get_scene(parameters.scenes[0])
    state = strand.simulate(own, parameters.strands[0])
    clip = box.clip(index)
    sub = strand.truth(own, parameters.strands[0], state)
    assert clip.meta["truth"]["strands"][0]["events"] == sub["events"]
    rng = np.random.default_rng(0)
    sound = strand.sound(own, parameters.strands[0], state, rng)
    last = round(shot.last / 16 * 16000) - 100
    if parameters.controls.ambience == "silence" and parameters.scenes[0] == "talk":
        np.testing.assert_allclose(clip.audio.numpy()[:, :last], sound[:, :last], atol=1e-6)


@pytest.mark.parametrize("place", PLACES)
def test_events_lie_in_shots_of_their_strand(place):
    truth = story(1, plot="report", place=place).meta["truth"]
    onsets = [event["onset_seconds"] for event in truth["events"]]
    assert onsets == sorted(onsets)
    for event in truth["events"]:
        shot = truth["shots"][event["shot"]]
        assert shot["start_seconds"] <= event["onset_seconds"] < shot["stop_seconds"]
        assert shot["strand"] == event["strand"]


def test_cuts_fall_between_words():
    whole = cut = 0
    for index in range(8):
        for event in story(index, plot="dialogue").meta["truth"]["events"]:
            whole += not event["cut_off"]
            cut += event["cut_off"]
    assert whole > 12 and cut <= 0.2 * whole


def test_impacts_are_heard_at_their_sample_in_every_shot():
    clip = story(4, plot="angles", place="cradle", ambience="silence", camera="static", shots=3)
    truth = clip.meta["truth"]
    sound = np.abs(clip.audio.numpy()).max(0)
    first = truth["events"][0]["onset_seconds"] * 16000
    assert abs(int(np.flatnonzero(sound > 1e-5)[0]) - first) <= 1


def test_the_same_person_comes_back():
    truth = story(3, plot="report", place="bounce", shots=3).meta["truth"]
    assert [shot["scene"] for shot in truth["shots"]] == ["talk", "bounce", "talk"]
    assert truth["identity"] == truth["strands"][0]["identity"]
    two = story(3, plot="dialogue").meta["truth"]["strands"]
    assert two[0]["identity"] != two[1]["identity"]
    assert {s["style"] for s in two} == {story(3, plot="dialogue").meta["truth"]["style"]}


def test_cameos_keep_their_identity_over_the_takes():
    cameo = Toybox(whole_world(scenes=("story",), split="cameo"))
    takes = [clip.meta["truth"] for clip in cameo.clips(range(5))]
    names = ("skin", "hair", "hair_color", "glasses", "hat", "face", "number")
    who = [tuple(truth["identity"][name] for name in names) for truth in takes]
    assert len(set(who[:4])) == 1 and who[4] != who[0]
    assert all(truth["identity"]["held_out"] for truth in takes)
    assert [truth["identity"]["role"] for truth in takes[:4]] == ["enrolment"] * 3 + ["target"]


def test_held_out_combinations_stay_out_of_training_stories():
    for split in ("train", "test"):
        for index in range(12):
            assert (
                not Toybox(whole_world(scenes=("story",), split=split)).clip(index).meta["truth"]["held_out"]
            )


def test_stories_are_reproducible():
    a, b = story(6), story(6)
    assert torch.equal(a.video, b.video) and torch.equal(a.audio, b.audio) and a.meta == b.meta


def test_errors_name_the_parameter():
    with pytest.raises(ToyboxError, match=r"frames=9 must be at least 12"):
        Toybox(ToyboxConfig(scenes=("story",), frames=9)).clip(0)
    with pytest.raises(ToyboxError, match=r"shots=7 must be in \[2, 4\]"):
        story(shots=7)
    with pytest.raises(ToyboxError, match="place='moon' is unknown: choose from bounce"):
        story(place="moon")
