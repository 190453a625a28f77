"""Bad files: the message names the file and what to do; nothing is read half."""

from __future__ import annotations

import os

import pytest

from sora2.errors import UserError
from sora2.media import MediaError, clip_to_bytes, probe, read_clip, write_clip
from tests.media.files import grey_ramp, make_file, smooth_clip


def bad_files(folder):
    """Name -> words that the error must hold."""
    good = clip_to_bytes(smooth_clip())
    contents = {
        "empty.mp4": (b"", r"empty \(0 bytes\).*copy or download"),
        "text.mp4": (b"this is not a video\n" * 500, "not a media file.*copy or download"),
        "cut.mp4": (good[: len(good) // 2], "truncated.*copy or download"),
        "head.mp4": (good[:40], "truncated.*copy or download"),
        "random.mkv": (os.urandom(5000), "not a media file"),
        "missing.mp4": (None, "No such file.*check the path"),
    }
    for name, (data, words) in contents.items():
        if data is not None:
            (folder / name).write_bytes(data)
        yield folder / name, words


@pytest.mark.parametrize("read", [read_clip, probe])
def test_unreadable_files_are_named(read, tmp_path):
    for path, words in bad_files(tmp_path):
        with pytest.raises(MediaError, match=f"{path.name}.*{words}"):
            read(path)


@pytest.mark.parametrize("reader", ["decord", "pyav"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_download_that_broke_off_is_not_read_as_a_shorter_film(share, reader, tmp_path):
    """With its index at the front, a truncated mp4 opens and plays: until it stops."""
    path = write_clip(smooth_clip(frames=129).replace(audio=None, sample_rate=0), tmp_path / "long.mp4")
    cut = tmp_path / "cut.mp4"
    data = path.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match=r"cut\.mp4.*(truncated|damaged).*copy"):
        read_clip(cut, reader=reader)


def test_a_damaged_middle_is_not_passed_over(tmp_path):
    path = write_clip(smooth_clip(frames=65), tmp_path / "clip.mp4")
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[middle : middle + 3000] = os.urandom(3000)
    (tmp_path / "damaged.mp4").write_bytes(data)
    with pytest.raises(MediaError, match=r"damaged\.mp4.*damaged"):
        read_clip(tmp_path / "damaged.mp4", reader="pyav")


def test_sound_that_is_required_and_missing():
    data = make_file(video=grey_ramp(8))
    with pytest.raises(MediaError, match=r"no soundtrack.*audio=\"optional\""):
        read_clip(data, audio="required")
    assert read_clip(data).audio is None


def test_nothing_left_to_read():
    with pytest.raises(MediaError, match="neither pictures nor sound"):
        read_clip(make_file(video=grey_ramp(8)), video=False)


def test_wrong_arguments_name_the_choices():
    data = make_file(video=grey_ramp(8))
    with pytest.raises(MediaError, match='"optional", "required", "ignore"'):
        read_clip(data, audio="maybe")
    with pytest.raises(MediaError, match='"pyav", "decord"'):
        read_clip(data, reader="fast")
    with pytest.raises(MediaError, match=r"size=.*\(height, width\)"):
        read_clip(data, size=(0, 4))
    with pytest.raises(MediaError, match="channels=6"):
        read_clip(clip_to_bytes(smooth_clip()), channels=6)


def test_folders_and_forbidden_files(tmp_path):
    with pytest.raises(MediaError, match="is a folder"):
        read_clip(tmp_path)
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    with pytest.raises(MediaError, match="is a folder"):
        write_clip(smooth_clip(), folder)
    assert issubclass(MediaError, UserError)


def test_writing_below_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MediaError, match=r"cannot write.*check the folder"):
        write_clip(smooth_clip(), tmp_path / "file" / "clip.mp4")
