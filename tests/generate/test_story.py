"""A clip told in cards: every frame is made by the card of its time, and nothing is seen across a cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import save_checkpoint, save_film

from sora2.cli import main
from sora2.codecs.quotes import spoken
from sora2.config import from_mapping
from sora2.generate import Pipeline, Request, RequestError
from sora2.generate.grid import Grid, World
from sora2.generate.plan import plan
from sora2.generate.request import Card, SamplingConfig
from sora2.generate.story import parse_cards
from sora2.generate.streaming import chunk_seed
from sora2.generate.window import Window
from sora2.media import read_clip
from sora2.model.config import AttentionConfig
from sora2.types import Clip

GRID = Grid(16, 16, 8.0, 800, 1)
WORLD = World(GRID, frames=17, temporal_stride=4, cell=8, sampling=SamplingConfig(), reads_times=True)
SCENES = ("0: one", "1.5: two", "3.25 cut: three", "5 cut: four")


def made_by(request: Request, world: World = WORLD) -> tuple[list[Window], Clip]:
    """The windows of a request, and its clip, where window k makes pictures of value k + 1."""
    steps, found = plan(request, world), []
    try:
        windows = next(steps)
        while True:
            made = []
            for window in windows:
                found.append(window)
                pictures = torch.full((window.frames, 16, 16, 3), len(found), dtype=torch.uint8)
                made.append(Clip(pictures, torch.zeros(1, GRID.samples(window.frames)), 8.0, 800))
            windows = steps.send(made)
    except StopIteration as done:
        return found, done.value


def test_every_frame_is_made_by_the_card_of_its_time():
    windows, clip = made_by(Request(prompt="flat", story=parse_cards(SCENES)))
    assert clip.video.shape[0] == 40 + 17  # the last card lasts as long as a trained clip
    assert clip.audio.shape[1] == GRID.samples(57)
    told = [windows[k - 1].prompt for k in clip.video[:, 0, 0, 0].tolist()]
    firsts = {prompt: told.index(prompt) for prompt in told}
    assert firsts == {"flat, one": 0, "flat, two": 12, "flat, three": 26, "flat, four": 40}
    assert told == sorted(told, key=list(firsts).index)
    assert clip.caption == "flat [0 s] one [1.5 s] two [3.25 s, cut] three [5 s, cut] four"
    assert len({w.seed for w in windows}) == len(windows)


def test_shots_are_made_side_by_side_and_are_what_they_are_one_by_one(streaming):
    """Shots that wait for nothing share a batch; a clip does not depend on how many fit into one."""
    story = Request(story=parse_cards(("0: rain", "2 cut: snow", "4.5 cut: hail", "6: rain")), seconds=7.0)
    sizes = []
    together = streaming.generate([story], on_step=lambda _, windows: sizes.append(len(windows)))[0]
    assert max(sizes) > 1
    alone = Pipeline(streaming.model, streaming.codecs, streaming.world, batch_size=1)
    one_by_one = alone.generate([story], on_step=lambda _, windows: sizes.append(-len(windows)))[0]
    assert min(sizes) == -1
    assert (together.video.int() - one_by_one.video.int()).abs().max() <= 1
    torch.testing.assert_close(together.audio, one_by_one.audio, atol=1e-4, rtol=1e-4)


def test_a_card_goes_on_from_what_was_and_a_cut_does_not():
    windows, _ = made_by(Request(story=parse_cards(("0: one", "1.5: two", "3 cut: three", "4: four"))))
    tasks = [(w.prompt, w.task) for w in windows]
    assert list(dict.fromkeys(tasks)) == [
        ("one", "text_to_av"),
        ("three", "text_to_av"),  # waits for nothing
        ("two", "extend_forward"),
        ("four", "extend_forward"),
    ]
    four = next(w for w in windows if w.prompt == "four")
    known = round(float(four.arguments["prefix_seconds"]) * 8)
    shown = set(four.source.video[:known, 0, 0, 0].tolist())
    assert shown == {1 + tasks.index(("three", "text_to_av"))}  # of its own shot alone, from which it goes on
    assert all(w.frames <= WORLD.frames and w.frames % 4 == 1 for w in windows)


@pytest.mark.parametrize(
    ("first", "cut"),
    [("image_to_av", "text_to_av")]
    + [(task, task) for task in ("audio_to_video", "video_to_audio", "audio_only")],
)
def test_after_a_cut_only_what_is_given_throughout_is_known(first, cut):
    film = Clip(
        torch.zeros(32, 16, 16, 3, dtype=torch.uint8), torch.zeros(1, GRID.samples(32)), 8.0, 800, key="film"
    )
    given = {
        "image_to_av": {"image": Clip(film.video[:1], fps=8.0)},
        "audio_to_video": {"audio": film},
        "video_to_audio": {"video": film},
        "audio_only": {"task": "audio_only"},
    }[first]
    windows, clip = made_by(Request(story=parse_cards(("0: one", "2 cut: two")), **given))
    assert (windows[0].prompt, windows[0].task) == ("one", first)
    at_cut = next(w for w in windows if w.prompt == "two")
    assert at_cut.task == cut
    if "prefix_seconds" in at_cut.arguments:
        assert float(at_cut.arguments["prefix_seconds"]) == 0.0
    if first == "audio_to_video":
        assert clip.audio.shape[1] == GRID.samples(32) and at_cut.source.audio is not None
    if first == "video_to_audio":
        assert torch.equal(clip.video, film.video)


def test_a_clip_is_continued_by_cards_on_the_clock_of_all_of_it():
    film = make_small(24)
    windows, clip = made_by(
        Request(story=parse_cards(("0: one", "4 cut: two")), video=film, extend="forward", seconds=2.0)
    )
    assert torch.equal(clip.video[:24], film.video) and clip.video.shape[0] == 40
    assert [(w.prompt, w.task) for w in windows] == [("one", "extend_forward"), ("two", "text_to_av")]
    assert (clip.video[32:] == 2).all() and (clip.video[24:32] == 1).all()


def test_a_cut_where_a_film_ends_begins_a_shot():
    request = Request(
        story=parse_cards(("0: one", "3 cut: two")), video=make_small(24), extend="forward", seconds=2.0
    )
    windows, clip = made_by(request)
    assert [(w.prompt, w.task, w.arguments) for w in windows] == [("two", "text_to_av", {})]
    assert clip.video.shape[0] == 40 and windows[0].seed != request.seed


def test_a_film_is_continued_until_its_last_card_has_been_shown():
    _, clip = made_by(
        Request(story=parse_cards(("0: one", "6: two")), video=make_small(24), extend="forward")
    )
    assert clip.video.shape[0] == 48 + 17


def make_small(frames: int) -> Clip:
    return Clip(
        torch.full((frames, 16, 16, 3), 9, dtype=torch.uint8),
        torch.zeros(1, GRID.samples(frames)),
        8.0,
        800,
        key="film",
    )


def test_words_of_a_card_are_timed_from_its_beginning():
    story = ('0: says "river"', '2 cut: says "<0.5>music<1>"', "4: rain")
    windows, _ = made_by(Request(story=parse_cards(story)))
    said = [[(w.letters, w.span) for w in spoken(window.prompt)] for window in windows]
    assert said[0][0][0] == "river" and said[0][0][1][1] < 2.0  # as one speaks, within its card
    assert [("music", (0.5, 1.0))] in said and sum(bool(words) for words in said) == 2


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        (("1: one",), "first card begins at 1 s, where it must be 0"),
        (("0: one", "2: two", "2: three"), "a card at 2 s comes after one at 2 s; their seconds must rise"),
        (("0: one", "2: two", "2.01: three"), "begin with the same frame at 8 fps"),
        (("0: one", "9: two"), "the card at 9 s begins after the end of a clip of 3 s; give more --seconds"),
        (("0: one", "then two"), "'then two' is not a card; write"),
        (("nowhere.txt",), "nowhere.txt does not exist"),
    ],
)
def test_what_is_no_story_is_refused(cards, message):
    with pytest.raises(RequestError, match=message):
        made_by(Request(story=parse_cards(cards), seconds=3.0))


def test_a_task_that_makes_no_whole_clip_cannot_be_told_in_cards():
    with pytest.raises(
        RequestError, match="--story cannot be used with --task remix; it goes with text_to_av"
    ):
        made_by(Request(story=(Card(0.0, "one"),), video=make_small(17), strength=0.5))


def test_one_card_is_a_prompt():
    windows, clip = made_by(Request(story=(Card(0.0, "rain"),), seconds=4.0))
    plain, same = made_by(Request(prompt="rain", seconds=4.0))
    assert torch.equal(clip.video, same.video)
    assert [(w.script, w.task, w.seed) for w in windows] == [(w.script, w.task, w.seed) for w in plain]


CHUNK = 0.5


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    config = from_mapping(AttentionConfig, {"chunk_seconds": CHUNK, "tile": (1, 1, 2), "flat_tile": 8})
    return Pipeline.from_checkpoint(save_checkpoint(tmp_path_factory.mktemp("told"), attention=config))


def test_a_streamed_film_is_told_card_after_card(streaming):
    """What is made before a card does not depend on it; what is made after it does."""

    def film(*cards: str) -> Clip:
        return streaming.generate([Request(story=parse_cards(cards), seconds=5.0, seed=3)])[0]

    rain, changed, other = film("0: rain"), film("0: rain", "2: a red ball"), film("0: rain", "2: snow")
    plain = streaming.generate([Request(prompt="rain", seconds=5.0, seed=3)])[0]
    assert torch.equal(rain.video, plain.video) and torch.equal(rain.audio, plain.audio)
    for one in (changed, other):
        assert (one.video[:12].int() - rain.video[:12].int()).abs().max() <= 1
        assert (one.video[20:].int() - rain.video[20:].int()).abs().max() > 1
    assert (changed.video[20:].int() - other.video[20:].int()).abs().max() > 1


def test_cards_in_a_batch_are_those_of_each_clip_alone(streaming):
    stories = [parse_cards(("0: rain", "2: a red ball")), parse_cards(("0: snow", "3: rain"))]
    requests = [Request(story=story, seconds=4.0, seed=k) for k, story in enumerate(stories)]
    together = streaming.generate(requests)
    for request, clip in zip(requests, together, strict=True):
        alone = streaming.generate([request])[0]
        assert (alone.video.int() - clip.video.int()).abs().max() <= 1
        torch.testing.assert_close(alone.audio, clip.audio, atol=1e-4, rtol=1e-4)


def test_a_cut_begins_a_stream_of_its_own(streaming):
    seen: list[Window] = []
    requests = [Request(story=parse_cards(("0: rain", "3 cut: a red ball")), seconds=6.0)]
    clip = streaming.generate(requests, on_step=lambda _, windows: seen.extend(windows))[0]
    assert clip.video.shape[0] == 48
    assert dict.fromkeys((w.prompt, w.task, w.streamed) for w in seen) == {
        ("rain", "text_to_av", True): None,
        ("a red ball", "text_to_av", True): None,
    }


def test_two_cards_of_one_streamed_chunk_are_refused_before_anything_is_sampled(streaming):
    told = []
    with pytest.raises(
        RequestError, match=r"the card 2\.12\d s after its shot begins falls into the same chunk"
    ):
        streaming.generate(
            [Request(story=parse_cards(("0: rain", "2: snow", "2.125: hail")), seconds=5.0)],
            on_step=lambda *step: told.append(step),
        )
    assert not told


def test_a_card_that_no_streamed_chunk_would_be_told_is_refused(streaming):
    with pytest.raises(RequestError, match=r"the card 1\.875 s after its shot begins comes too late in 2 s"):
        streaming.generate([Request(story=parse_cards(("0: rain", "1.875: snow")), seconds=2.0)])


def test_shots_and_chunks_have_noise_of_their_own():
    windows, _ = made_by(Request(story=tuple(Card(3.0 * k, "rain", cut=True) for k in range(4)), seed=3))
    seeds = [chunk_seed(w.seed, chunk) for w in windows for chunk in range(8)]
    assert len(set(seeds)) == len(seeds)


def test_words_are_told_on_the_clock_of_a_streamed_chunk(streaming):
    """A film of 5 s by a model of 2.125 s: what is said at 4 s is told with the chunks that are made then."""
    world = replace(streaming.world, reads_times=True)
    requests = [Request(prompt='says "<0.5>river<1> <4>music<4.25>"', seconds=5.0)]
    told = []

    class Listening(Pipeline):
        def _text(self, prompts, windows):
            told.extend(some[0] for some in prompts)
            return super()._text(prompts, windows)

    Listening(streaming.model, streaming.codecs, world).generate(requests)
    spans = [[(w.letters, w.span) for w in spoken(text)] for text in told]
    assert spans[0] == [("river", (0.5, 1.0))]
    late = [dict(words)["music"] for words in spans if "music" in dict(words)]
    assert len(late) >= 3 and late == sorted(late, reverse=True)  # ever earlier on a clock that is set back
    begins = [
        at * CHUNK - 4.0 + span[0]
        for at, span in zip(range(len(told) - len(late), len(told)), late, strict=True)
    ]
    assert all(
        0 <= begin + 1e-6 < 2.125 for begin in begins
    )  # before its chunk, by no more than a trained clip


def test_stories_from_the_command_line(streaming, tmp_path):
    checkpoint = str(save_checkpoint(tmp_path / "run"))
    cards = tmp_path / "cards.txt"
    cards.write_text("0: rain\n\n1.5 cut: a red ball\n")
    assert (
        main(["sample", "--checkpoint", checkpoint, "--story", str(cards), "--out", str(tmp_path / "a.mp4")])
        == 0
    )
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.video.shape[0] == 12 + 17
    source = save_film(tmp_path / "film.mp4", frames=17)
    lines = tmp_path / "lines.jsonl"
    lines.write_text(
        '{"name": "told", "story": ["0: rain", "1 cut: snow"]}\n'
        f'{{"name": "foley", "video": "{source}", "story": ["0: rain", "1 cut: snow"]}}\n'
    )
    arguments = ["--checkpoint", checkpoint, "--prompts-file", str(lines), "--out", str(tmp_path / "many")]
    assert main(["sample", *arguments]) == 0
    assert read_clip(tmp_path / "many/foley-seed0.mp4").video.shape[0] == 17
    assert '"caption": "[0 s] rain [1 s, cut] snow"' in (tmp_path / "many/told-seed0.json").read_text()
