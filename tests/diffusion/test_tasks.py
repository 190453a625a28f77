"""The map of each task, token by token, as the design's table says."""

import pytest
import torch
from gaussian_world import AUDIO, VIDEO

from sora2.diffusion.layout import Layout, token_spans
from sora2.diffusion.tasks import TASKS, TaskError, get_task
from sora2.types import VideoShape

LAYOUT = Layout.of(VIDEO, AUDIO)
CELLS = 4


def seconds(*values):
    return torch.tensor(values, dtype=torch.float32)


def frames(noise_map, row=0):
    """Start level of each latent frame; all cells of a frame must agree."""
    levels = noise_map.start["video"][row].view(-1, CELLS)
    assert (levels == levels[:, :1]).all()
    return levels[:, 0].tolist()


def test_spans_tile_time_and_centre_on_token_seconds():
    for shape in (VIDEO, AUDIO):
        spans = token_spans(shape)
        assert torch.equal(spans[1:, 0], spans[:-1, 1]) and spans[0, 0] == 0
        assert torch.allclose(spans.mean(dim=1), shape.token_seconds())


@pytest.mark.parametrize("shape", [VIDEO, AUDIO])
@pytest.mark.parametrize("prefix", [0.0, 0.1, 0.125, 0.3, 0.625, 1.0, 1.125, 2.0, 9.0])
def test_known_prefix_is_the_shapes_own_count(shape, prefix):
    layout = Layout.of(shape, None) if isinstance(shape, VideoShape) else Layout.of(None, shape)
    per_frame = CELLS if isinstance(shape, VideoShape) else 1
    known = layout.before(layout.names[0], seconds(prefix))
    assert known.sum() == shape.latent_index(prefix) * per_frame


def test_text_to_av_knows_nothing():
    m = TASKS["text_to_av"](LAYOUT, 2, {})
    assert all((level == 1).all() for level in m.start.values())
    assert all(p.all() for p in m.present.values()) and all((d == 0).all() for d in m.delay.values())


@pytest.mark.parametrize(("name", "known"), [("video_to_audio", "video"), ("audio_to_video", "audio")])
def test_one_stream_known(name, known):
    made = "audio" if known == "video" else "video"
    m = TASKS[name](LAYOUT, 2, {"prefix_seconds": seconds(0.0, 1.125)})
    assert (m.start[known] == 0).all()
    assert (m.start[made][0] == 1).all()
    assert torch.equal(m.start[made][1] == 0, LAYOUT.spans[made][:, 1] <= 1.125 + 1e-5)


def test_image_to_av_knows_the_first_frame():
    m = TASKS["image_to_av"](LAYOUT, 1, {})
    assert frames(m) == [0, 1, 1, 1, 1] and (m.start["audio"] == 1).all()


def test_extend_both_ways_knows_the_same_times_of_both_streams():
    forward = TASKS["extend_forward"](LAYOUT, 2, {"prefix_seconds": seconds(5 / 8, 9 / 8)})
    assert frames(forward, 0) == [0, 0, 1, 1, 1] and frames(forward, 1) == [0, 0, 0, 1, 1]
    assert (forward.start["audio"] == 0).sum(dim=1).tolist() == [15, 28]  # 25 Hz: 0.625 s and 1.125 s
    backward = TASKS["extend_backward"](LAYOUT, 1, {"suffix_seconds": seconds(9 / 8)})
    assert frames(backward) == [1, 1, 1, 0, 0]
    assert (backward.start["audio"] == 0).sum().item() == 54 - 29


@pytest.mark.parametrize("name", ["loop", "inbetween"])
def test_both_ends_known(name):
    m = TASKS[name](LAYOUT, 1, {"prefix_seconds": seconds(5 / 8), "suffix_seconds": seconds(13 / 8)})
    assert frames(m) == [0, 0, 1, 1, 0]


def test_inpaint_region_and_span():
    region = torch.tensor([[[True, False], [False, False]]])
    arguments = {
        "region": region,
        "video_span": seconds(0.7, 1.0)[None],
        "audio_span": seconds(0.0, 0.0)[None],
    }
    m = TASKS["inpaint"](LAYOUT, 1, arguments)
    expected = torch.zeros(5, 4)
    expected[2, 0] = 1  # the one latent frame that the span touches, the one cell
    assert torch.equal(m.start["video"].view(5, 4), expected)
    assert (m.start["audio"] == 0).all()
    m = TASKS["inpaint"](LAYOUT, 1, {**arguments, "audio_span": seconds(0.4, 0.8)[None]})
    assert m.start["audio"][0].nonzero().flatten().tolist() == list(range(10, 20))


def test_remix_starts_at_its_strength():
    m = TASKS["remix"](LAYOUT, 2, {"strength": seconds(0.4, 0.7)})
    assert all(
        torch.equal(level[:, 0], seconds(0.4, 0.7)) and (level == level[:, :1]).all()
        for level in m.start.values()
    )


def test_single_streams():
    image = TASKS["image_only"](LAYOUT, 1, {})
    assert image.present["video"].view(5, 4).all(dim=1).tolist() == [True] + [False] * 4
    assert not image.present["audio"].any()
    sound = TASKS["audio_only"](LAYOUT, 1, {})
    assert not sound.present["video"].any() and sound.present["audio"].all()


def test_staircase_rises_along_one_clock():
    m = TASKS["staircase"](LAYOUT, 1, {"slope": seconds(1.0)})
    for name in ("video", "audio"):
        assert torch.allclose(m.delay[name][0], LAYOUT.centres(name) / LAYOUT.seconds)


def test_diffusion_forcing_shares_the_delay_of_a_moment():
    delay = torch.tensor([[0.0, 2.0]])
    m = TASKS["diffusion_forcing"](LAYOUT, 1, {"block_delay": delay})
    for name in ("video", "audio"):
        late = LAYOUT.centres(name) >= LAYOUT.seconds / 2
        assert torch.equal(m.delay[name][0] == 2.0, late)


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        (name, (video, audio))
        for video, audio in ((VIDEO, AUDIO), (VIDEO, None), (None, AUDIO))
        for name, task in TASKS.items()
        if (video or "video" not in task.needs) and (audio or "audio" not in task.needs)
    ],
)
def test_training_draws_fill_every_layout_they_can(name, streams):
    task = TASKS[name]
    layout = Layout.of(*streams)
    m = task(layout, 64, task.draw(layout, 64, torch.Generator().manual_seed(0)))
    for stream in layout.names:
        assert m.start[stream].shape == (64, layout.tokens(stream)) == m.delay[stream].shape
        assert m.start[stream].min() >= 0 and m.start[stream].max() <= 1
    made = sum(((m.start[s] > 0) & m.present[s]).sum(dim=1) for s in layout.names)
    if not (name == "inpaint" and streams[0] is None):  # a box in the picture leaves the sound as it is
        assert (made > 0).all()


def test_random_regions_differ_between_clips():
    arguments = TASKS["inpaint"].draw(LAYOUT, 64, torch.Generator().manual_seed(0))
    assert len({tuple(r.flatten().tolist()) for r in arguments["region"]}) > 3
    assert len(arguments["video_span"].unique(dim=0)) > 30


def test_wrong_names_and_arguments_are_explained():
    with pytest.raises(TaskError, match="text_to_av"):
        get_task("text_to_film")
    with pytest.raises(TaskError, match="prefix_seconds"):
        TASKS["extend_forward"](LAYOUT, 1, {})
