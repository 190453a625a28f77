"""Speech, identity, mouths and cuts, on clips of the toybox whose truth is exact."""

import json

import numpy as np
import pytest
import torch

from sora2.cli import main
from sora2.media import write_clip
from sora2.metrics import Evidence, all_metrics
from sora2.metrics.calibration import calibrate, calibration_clips
from sora2.metrics.controls import real_items, shuffled_audio, wrong_enrolment
from sora2.metrics.corpus import Corpus
from sora2.metrics.corruptions import Subject, all_corruptions, select_corruptions
from sora2.metrics.faces import find_face, true_face
from sora2.metrics.identity import separation
from sora2.metrics.measuring import Task, measure
from sora2.metrics.registry import all_corpus_metrics
from sora2.metrics.shots import find_cuts
from sora2.metrics.sources import folder_items
from sora2.metrics.transcripts import match_words, spoken_words, word_accuracy
from sora2.metrics.values import Unmeasurable
from sora2.toybox import Toybox, ToyboxConfig

METRICS, CORPUS = all_metrics(), all_corpus_metrics()


@pytest.fixture(scope="module")
def talk():
    return calibration_clips(12, domain="talk")


@pytest.fixture(scope="module")
def cameo():
    return calibration_clips(6, domain="cameo")


@pytest.fixture(scope="module")
def stories():
    return calibration_clips(10, domain="story")


def values(name, clips):
    return np.array([METRICS[name](c).value for c in clips])


def shifted(clip, milliseconds):
    return all_corruptions()["audio shift"].apply(Subject.of(clip), milliseconds).clip


def test_words_are_matched_by_hand():
    assert match_words(["a", "b", "c"], ["a", "b", "c"]) == (0, [True] * 3)
    assert match_words(["a", "b", "c"], ["a", "x", "c"]) == (1, [True, False, True])
    assert match_words(["a", "b", "c"], ["c", "b", "a"]) == (2, [False, True, False])
    assert match_words([], ["a"]) == (1, []) and match_words(["a"], []) == (1, [False])
    # two errors either way; the word that was heard counts as heard
    assert match_words(["a", "b"], ["b", "x"]) == (2, [False, True])
    assert word_accuracy(["a", "b"], ["a", "b", "x", "y", "z"]) == 0  # never below
    assert word_accuracy(["a", "b"], ["a"]) == 0.5
    # a word that is cut off may be heard, half heard or missed
    for heard in (["a", "b"], ["a", "bo"], ["a"]):
        assert word_accuracy(["a", "b"], heard, [False, True]) == 1


def test_words_are_those_of_the_events():
    long = Toybox(ToyboxConfig(split="test", scenes=("talk",), frames=160)).clip(3).meta["truth"]
    assert spoken_words(long)[0] == [e["word"] for e in long["events"]]
    assert len(spoken_words(long)[0]) > len(long["words"])  # said again
    assert spoken_words({"words": ["tiger"]}) == (["tiger"], [False])
    assert spoken_words({"balls": []}) == ([], [])


def test_a_recogniser_hears_the_words_and_notices_others(talk):
    four = [c for c in talk if c.meta["truth"]["ambience"] == "silence"][:3]
    told = values("word_accuracy", four)
    assert told.mean() > 0.9
    wrong = [c.replace(audio=d.audio) for c, d in zip(four, four[1:] + four[:1], strict=True)]
    assert values("word_accuracy", wrong).mean() < 0.3
    value = METRICS["word_accuracy_untold"](four[0])
    assert value.measured and value.details["asked"] == four[0].meta["truth"]["words"]
    silent = four[0].replace(audio=torch.zeros_like(four[0].audio))
    assert METRICS["word_accuracy"](silent).reason == "the sound is silent"


def test_who_is_asked_for_no_speech_is_not_measured(clips):
    for name in ("word_accuracy", "speech_quality", "mouth_lag", "mouth_sync", "mouth_shown_lag", "cut_f1"):
        assert METRICS[name](clips[0]) is None, name


def test_faces_are_found_where_they_are(talk, clips):
    for clip in talk:
        found = find_face(clip.video.numpy())
        truth = [true_face(clip.meta["truth"], k) for k in (4, 16, 28)]
        x, y, height = (np.mean([getattr(f, n) for f in truth]) for n in ("x", "y", "height"))
        assert abs(found.x - x) < 4 and abs(found.y - y) < 4 and 0.75 < found.height / height < 1.3
    seen = 0
    for clip in clips[:12]:
        try:
            find_face(clip.video.numpy())
            seen += 1
        except Unmeasurable as error:
            assert str(error) == "no face is seen"
    assert seen <= 1


def test_mouth_opening_is_that_of_the_truth(talk):
    agreement = []
    for clip in talk:
        opening = Evidence(clip).mouth
        agreement.append(np.corrcoef(opening, clip.meta["truth"]["mouth"]["opening"])[0, 1])
    assert np.mean(agreement) > 0.97 and min(agreement) > 0.93


def test_mouth_lag_has_slope_one_and_no_bias(talk):
    shifts = np.array([-200, -100, 0, 100, 200])
    measured = np.array([values("mouth_lag", [shifted(c, s) for c in talk]) for s in shifts])
    slope, bias = np.polyfit(shifts, np.nanmedian(measured, axis=1), 1)
    assert slope == pytest.approx(1, abs=0.1) and abs(bias) < 15


def test_mouths_move_with_their_own_voice(talk):
    own = values("mouth_sync", talk)
    other = values("mouth_sync", [i.clip for i in shuffled_audio(real_items(talk))])
    assert own.mean() > 0.6 and np.nanmean(other) < 0.4
    task = Task((), ("mouth",))
    above = CORPUS["mouth_sync_above_chance"](Corpus([measure(i, task) for i in real_items(talk)]))
    assert above.value > 0.5 and above.details["chance"] < 0.4
    nothing = CORPUS["mouth_sync_above_chance"](
        Corpus([measure(i, task) for i in shuffled_audio(real_items(talk))])
    )
    assert nothing.value < 0.25


def test_persons_are_told_apart(cameo):
    task = Task(("voice_similarity", "face_similarity"), ("face", "voice"))
    real = [measure(i, task) for i in real_items(cameo)]
    for name in ("face", "voice"):
        value = CORPUS[f"{name}_identity_auc"](Corpus(real))
        assert value.value > 0.75, (name, value)
        assert value.details["same"] > value.details["different"]
        mean = np.mean([o.values[f"{name}_similarity"].value for o in real])
        assert mean == pytest.approx(value.details["same"])
    strangers = [i.clip for i in wrong_enrolment(real_items(cameo))]
    for name in ("face", "voice"):
        assert (
            values(f"{name}_similarity", strangers).mean() < values(f"{name}_similarity", cameo).mean() - 0.05
        )


def test_without_enrolment_nobody_is_compared(talk):
    outcome = measure(real_items(talk)[0], Task(("face_similarity", "voice_similarity"), ("face",)))
    assert outcome.values == {} and outcome.features == {"face": None}


def test_separation_by_hand():
    known = np.eye(3)
    assert separation(known, known) == (1.0, 1.0, 0.0)
    assert (
        separation(np.roll(known, 1, axis=0), known)[0] == 0.25
    )  # same: 0 thrice; different: 1 thrice, 0 thrice
    with pytest.raises(Unmeasurable, match="one person"):
        separation(known, np.ones((3, 3)))


def test_another_voice_has_time_for_the_words():
    """Three long words: most voices say them in the clip, the one that is drawn first would not."""
    clip = Toybox(ToyboxConfig(seed=0, split="cameo", scenes=("talk",))).clip(51)
    made = all_corruptions()["wrong voice"].apply(Subject.of(clip), 1).clip
    assert made.audio.shape == clip.audio.shape and not torch.equal(made.audio, clip.audio)


def test_cuts_are_seen_and_motion_is_none(stories, clips, talk):
    seen = values("cut_f1", stories)
    assert seen.mean() > 0.85
    assert np.nanmedian(values("cut_lag", stories)) == 0
    assert sum(len(find_cuts(c.video.numpy())) for c in [*clips[:12], *talk]) <= 1
    still = clips[0].video[:1].expand(9, -1, -1, -1).clone()
    still[4:6] += 100  # a flash
    assert len(find_cuts(still.numpy())) == 0


CLAIMS = {
    "talk": (
        (
            "word_accuracy",
            "word_accuracy_untold",
            "speech_quality",
            "mouth_lag",
            "mouth_sync",
            "mouth_shown_lag",
        ),
        3,
    ),
    "cameo": (("face_similarity", "voice_similarity"), 5),
    "story": (("cut_f1", "cut_lag"), 4),
}


def test_every_claim_about_people_is_tested():
    claimed = {n for n, m in METRICS.items() if m.headline and m.domain in CLAIMS}
    assert claimed == {n for names, _ in CLAIMS.values() for n in names}


#: Damage that the metrics of a domain are told about beside what they declare: they must ignore it.
FOREIGN = {
    "talk": ("muffled speech", "sound noise", "wrong face"),
    "cameo": ("mouth shift",),
    "story": ("audio shift",),
}


@pytest.mark.parametrize("domain", list(CLAIMS))
def test_own_damage_is_noticed_in_proportion_and_that_of_others_is_not(domain):
    names, count = CLAIMS[domain]
    metrics = {n: METRICS[n] for n in names}
    damage = set(FOREIGN[domain]).union(*(m.answers_to for m in metrics.values()))
    clips = calibration_clips(count, domain=domain)
    result = calibrate(clips, metrics, select_corruptions(sorted(damage)), severities=2, progress=False)
    for name in names:
        for response in result.of_metric(name):
            kind = response.corruption.name
            if kind in METRICS[name].answers_to:
                assert response.answers, (name, kind, response.change()[0])
                assert response.monotone, (name, kind, response.change()[0])
            elif not response.expected:
                assert response.indifferent or response.improves, (name, kind, response.change()[0])


def test_the_command_compares_targets_with_their_enrolment_and_with_strangers(tmp_path):
    out = tmp_path / "out"
    arguments = ["--real", "--split", "cameo", "--scenes", "talk", "--clips", "2", "--metrics",
                 "voice_similarity,face_similarity", "--show", "1", "--quiet", "--out", str(out)]  # fmt: skip
    assert main(["evaluate", *arguments]) == 0
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    for name in ("voice_similarity", "face_similarity"):
        real, strangers = (rows[r]["summary"][name]["value"]["estimate"] for r in ("real", "wrong enrolment"))
        assert real > strangers


def test_enrolment_of_a_folder_is_named_in_the_json(tmp_path, cameo):
    target, take = cameo[0], cameo[0].meta["enrolment"][0]
    write_clip(target, tmp_path / "target.mp4")
    (tmp_path / "people").mkdir()
    write_clip(take, tmp_path / "people" / "take.mp4")
    side = {"caption": target.caption, "enrolment": ["people/take.mp4"]}
    (tmp_path / "target.json").write_text(json.dumps(side))
    (item,) = folder_items([tmp_path / "target.mp4"], tmp_path, seconds=12.0, shorter_side=128)
    (enrolled,) = item.clip.meta["enrolment"]
    assert enrolled.video.shape == take.video.shape
    (tmp_path / "target.json").write_text(json.dumps({**side, "enrolment": ["nobody.mp4"]}))
    (item,) = folder_items([tmp_path / "target.mp4"], tmp_path, seconds=12.0, shorter_side=128)
    assert item.clip is None and "nobody.mp4" in item.failure
