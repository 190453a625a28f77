"""Contact sheets: what is drawn stands at its time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sora2.media import MediaError, contact_sheet
from sora2.media.sheet import DOTS_PER_INCH, LEFT, RIGHT, WIDTH
from sora2.types import Clip
from tests.media.files import smooth_clip

PINK = (214, 47, 107)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def time_of(column: float, seconds: float) -> float:
    left, right = LEFT * DOTS_PER_INCH, (WIDTH - RIGHT) * DOTS_PER_INCH
    return (column - left) / (right - left) * seconds


def columns_like(image: np.ndarray, colour: tuple[int, int, int], tolerance: int, least: int) -> list[int]:
    near = (np.abs(image - np.array(colour)).max(-1) <= tolerance).sum(0)
    return np.flatnonzero(near >= least).tolist()


def test_events_stand_where_they_are_heard(tmp_path):
    """An event of the truth is drawn unasked, as a line through the sound at its onset."""
    clip = Clip(None, torch.zeros(2, 32000), 0.0, 16000)
    clip = clip.replace(meta={"truth": {"events": [{"onset_seconds": 1.1, "kind": "floor"}]}})
    image = pixels(contact_sheet(clip, tmp_path / "a.png"))
    marked = columns_like(image, PINK, 60, least=60)
    assert marked and all(abs(time_of(c + 0.5, clip.seconds) - 1.1) < 0.01 for c in marked)
    bare = pixels(contact_sheet(clip, tmp_path / "b.png", events=[]))
    assert not columns_like(bare, PINK, 60, least=60)


def test_pictures_stand_over_their_time(tmp_path):
    """A picture that turns from black to white halfway does so in the middle of the sheet."""
    video = torch.zeros(32, 32, 32, 3, dtype=torch.uint8)
    video[16:] = 255
    image = pixels(contact_sheet(Clip(video, None, 16.0), tmp_path / "a.png", columns=8))
    black = (image.max(-1) < 10).sum(0) > 60
    times = [time_of(c, 2.0) for c in np.flatnonzero(black)]
    assert min(times) < 0.02 and 0.95 < max(times) < 1.0


def test_what_is_missing_takes_no_room(tmp_path):
    clip = smooth_clip()
    both = pixels(contact_sheet(clip, tmp_path / "a.png")).shape[0]
    mono = clip.replace(video=None, fps=0.0, audio=clip.audio[:1])
    sound = pixels(contact_sheet(mono, tmp_path / "b.png")).shape[0]
    pictures = pixels(contact_sheet(clip.replace(audio=None, sample_rate=0), tmp_path / "c.png")).shape[0]
    assert both > sound > pictures


def test_long_titles_and_short_clips_fit(tmp_path):
    short = Clip(torch.zeros(1, 16, 64, 3, dtype=torch.uint8), torch.zeros(2, 100), 16.0, 16000)
    assert contact_sheet(short, tmp_path / "new" / "a.png", title="word " * 80).exists()


def test_a_title_is_text_whatever_is_in_it(tmp_path):
    clip = Clip(torch.zeros(2, 16, 64, 3, dtype=torch.uint8), fps=16.0)
    assert contact_sheet(clip, tmp_path / "a.png", title="win $$ now, 100% $a_$ \\frac").exists()


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(MediaError, match="neither pictures nor sound"):
        contact_sheet(Clip(key="nothing"), tmp_path / "a.png")
    with pytest.raises(MediaError, match="onset_seconds"):
        contact_sheet(smooth_clip(), tmp_path / "a.png", events=[{"kind": "floor"}])
    with pytest.raises(MediaError, match="columns=0"):
        contact_sheet(smooth_clip(), tmp_path / "a.png", columns=0)
    assert list(tmp_path.iterdir()) == []
