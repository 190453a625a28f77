"""Windows cut where things move, and mirrored clips: in step with the order, the same for any rank or worker."""

import numpy as np
import pytest
import torch

from sora2.data import DataError, DatasetConfig, LoaderConfig, ShardWriter, build_loader
from sora2.data.raw import pack_clip
from sora2.data.windows import WindowConfig, cut_windows, mirror, window_weights
from sora2.toybox import Toybox, ToyboxConfig
from sora2.types import Clip

WINDOW = WindowConfig(frames=3, height=16, width=16, share=0.5)


def moving_clip(number: int, top: int = 24, left: int = 8) -> Clip:
    """9 frames of 48 x 48; only the 8 x 8 cell at (top, left) changes."""
    video = torch.full((9, 48, 48, 3), number % 256, dtype=torch.uint8)
    video[:, top : top + 8, left : left + 8] = torch.arange(9, dtype=torch.uint8)[:, None, None, None] * 25
    audio = torch.stack([torch.full((9000,), 0.25), torch.full((9000,), -0.5)])
    meta = {"licence": "CC0-1.0", "source": "test"}
    return Clip(video=video, audio=audio, fps=16.0, sample_rate=16000, key=f"k{number:03d}", meta=meta)


@pytest.fixture
def raw(tmp_path):
    with ShardWriter(tmp_path / "raw", 4) as writer:
        for number in range(8):
            clip = moving_clip(number)
            writer.write(clip.key, pack_clip(clip, crf=0))
    return tmp_path / "raw"


def config(folder, **changes) -> LoaderConfig:
    settings = {"batch_size": 2, "seed": 3, "kind": "raw", "workers": 0, "window": WINDOW} | changes
    return LoaderConfig((DatasetConfig(str(folder)),), **settings)


def batches(loader, count: int) -> list[dict]:
    with loader:
        return [next(loader) for _ in range(count)]


def test_windows_are_cut_from_their_clip_where_it_moves():
    clips = [moving_clip(i) for i in range(200)]
    windows = cut_windows(clips, WINDOW, seed=0, start=0)
    moving = 0
    for clip, window in zip(clips, windows, strict=True):
        assert window.video.shape == (3, 16, 16, 3)
        assert window.audio is None and window.key == clip.key and window.fps == clip.fps
        moving += bool((window.video[0] != window.video[1]).any())
    # 4 of 25 places see the moving cell: drawn uniformly 16 % would
    assert moving > 150


def test_the_weight_of_a_window_is_what_moves_in_it():
    weights = window_weights(moving_clip(1).video, 16, 16)
    assert weights.shape == (5, 5)
    seen = np.zeros((5, 5), bool)
    seen[2:4, 0:2] = True  # windows of two cells a side over the cell in row 3, column 1
    assert weights[seen].min() > 5 * weights[~seen].max() > 0
    still = torch.zeros(4, 48, 48, 3, dtype=torch.uint8)
    assert (window_weights(still, 16, 16) == window_weights(still, 16, 16)[0, 0]).all()


def test_whole_clips_and_windows_mix_in_the_asked_share(raw):
    shapes = [tuple(b["video"].shape) for b in batches(build_loader(config(raw)), 60)]
    assert set(shapes) == {(2, 3, 3, 16, 16), (2, 3, 9, 48, 48)}
    assert 18 <= shapes.count((2, 3, 3, 16, 16)) <= 42


def test_ranks_workers_and_resume_see_the_same_windows(raw):
    whole = batches(build_loader(config(raw, mirror=0.5)), 12)
    threaded = batches(build_loader(config(raw, mirror=0.5, workers=2)), 12)
    ranks = [
        batches(build_loader(config(raw, mirror=0.5, batch_size=1), rank=r, world_size=2), 12) for r in (0, 1)
    ]
    resumed = build_loader(config(raw, mirror=0.5))
    state = build_loader(config(raw, mirror=0.5))
    for _ in range(5):
        next(state)
    resumed.load_state_dict(state.state_dict())
    for i, batch in enumerate(whole):
        assert batch["keys"] == threaded[i]["keys"]
        assert (batch["video"] == threaded[i]["video"]).all()
        assert (batch["video"] == torch.cat([r[i]["video"] for r in ranks])).all()
    for batch, again in zip(whole[5:], batches(resumed, 7), strict=True):
        assert (batch["video"] == again["video"]).all()


def test_a_mirror_exchanges_left_and_right_in_picture_and_sound():
    clip = moving_clip(1)
    other = mirror(clip)
    assert (other.video[:, 24:32, 32:40] == clip.video[:, 24:32, 8:16]).all()
    assert (other.audio[0] == clip.audio[1]).all()
    assert (mirror(other).video == clip.video).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "latents"}, "data.kind=raw"),
        ({"mirror": 1.5}, "data.mirror=1.5"),
        ({"streams": ("foreground",)}, "data.streams"),
        ({"streams": ("video", "foreground")}, "foreground needs audio"),
        ({"window": WindowConfig(17, 16, 16, share=1.0)}, "17 of 16 x 16"),
    ],
)
def test_impossible_settings_are_named(raw, changes, said):
    with pytest.raises(DataError, match=said), build_loader(config(raw, **changes)) as loader:
        next(loader)


@pytest.mark.parametrize("sizes", [{"height": 12}, {"width": 4}, {"frames": 0}, {"share": 2.0}])
def test_impossible_windows_are_named(sizes):
    with pytest.raises(DataError, match=f"data.window.{next(iter(sizes))}"):
        WindowConfig(**{"frames": 3, "height": 16, "width": 16} | sizes)


def test_a_mirrored_foreground_belongs_to_its_mirrored_sound(tmp_path):
    world = Toybox(ToyboxConfig(frames=9, height=16, width=16))
    clips = [world.clip(i, ambience="rain") for i in range(3)] + [moving_clip(1).replace(key="stranger")]
    clips[3] = clips[3].replace(audio=clips[0].audio, video=clips[0].video)
    with ShardWriter(tmp_path / "raw", 4) as writer:
        for clip in clips:
            writer.write(clip.key, pack_clip(clip, crf=0))
    quiet = {f"bounce-train-{i:09d}": world.clip(i, ambience="silence").audio for i in range(3)}
    quiet["stranger"] = clips[3].audio
    settings = {"window": None, "mirror": 0.5, "streams": ("audio", "foreground"), "require_video": False}
    turned = set()
    for batch in batches(build_loader(config(tmp_path / "raw", **settings)), 12):
        for key, sound, alone in zip(batch["keys"], batch["audio"], batch["foreground"], strict=True):
            own = next(c for c in clips if c.key == key)
            mirrored = torch.allclose(own.audio.flip(0), sound, atol=1e-4)
            assert mirrored or torch.allclose(own.audio, sound, atol=1e-4), key
            assert torch.allclose(alone, quiet[key].flip(0) if mirrored else quiet[key], atol=1e-4), key
            turned.add(mirrored)
    assert turned == {True, False}
