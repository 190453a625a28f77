"""What is written comes back: pictures closely, sound at the same samples, and files whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sora2.media import MediaError, clip_to_bytes, probe, read_clip, write_clip
from sora2.types import Clip
from tests.media.files import click_at, psnr, smooth_clip


@pytest.mark.parametrize("lossless", [True, False], ids=["flac", "aac"])
@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_clip_survives_an_mp4(sample_rate, lossless):
    clip = smooth_clip(sample_rate=sample_rate)
    back = read_clip(clip_to_bytes(clip, lossless_audio=lossless), key="k", caption="c")
    assert back.video.shape == clip.video.shape and back.fps == clip.fps
    assert psnr(back.video, clip.video) > 40
    assert back.sample_rate == sample_rate and back.audio.shape == clip.audio.shape
    assert back.key == "k" and back.caption == "c"
    if lossless:
        assert (back.audio - clip.audio).abs().max() <= 1 / 65536
    for channel in range(2):  # not delayed by encoder priming, and left stays left
        assert abs(int(back.audio[channel].abs().argmax()) - click_at(channel, sample_rate)) <= (
            0 if lossless else 1
        )


@pytest.mark.parametrize("fps", [8.0, 12.5, 23.976, 24000 / 1001, 30.0, 60.0])
def test_frame_rates_come_back_frame_by_frame(fps):
    clip = smooth_clip(frames=21).replace(fps=fps)
    back = read_clip(clip_to_bytes(clip))
    assert back.fps == pytest.approx(fps, rel=1e-6)
    assert back.video.shape == clip.video.shape
    assert min(psnr(a, b) for a, b in zip(back.video, clip.video, strict=True)) > 38


def test_crf_0_keeps_every_pixel():
    noise = torch.randint(
        0, 256, (5, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    back = read_clip(clip_to_bytes(Clip(noise, None, 16.0), crf=0))
    assert (back.video == noise).all()


def test_colours_are_not_shifted():
    """Every primary comes back as itself: one colour matrix for writing and reading."""
    primaries = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    for colour in primaries:
        picture = torch.tensor(colour, dtype=torch.uint8).expand(3, 32, 32, 3).contiguous()
        back = read_clip(clip_to_bytes(Clip(picture, None, 8.0), crf=4))
        assert (back.video.float() - picture.float()).abs().max() <= 4, colour


def test_missing_streams_stay_missing():
    clip = smooth_clip()
    silent = read_clip(clip_to_bytes(clip.replace(audio=None, sample_rate=0)))
    assert silent.audio is None and silent.sample_rate == 0 and silent.video is not None
    blind = read_clip(clip_to_bytes(clip.replace(video=None, fps=0.0), lossless_audio=True))
    assert blind.video is None and blind.fps == 0 and blind.audio.shape == clip.audio.shape
    mono = read_clip(clip_to_bytes(smooth_clip(channels=1)), channels=1)
    assert mono.audio.shape[0] == 1


def test_one_frame_is_an_image():
    image = smooth_clip(frames=1).replace(audio=None, sample_rate=0)
    assert read_clip(clip_to_bytes(image)).video.shape == (1, 64, 64, 3)


def test_bytes_stream_and_path_are_the_same(tmp_path):
    clip = smooth_clip()
    path = write_clip(clip, tmp_path / "new" / "folder" / "clip.mp4", lossless_audio=True)
    from_path = read_clip(path)
    from_bytes = read_clip(path.read_bytes())
    with open(path, "rb") as file:
        from_stream = read_clip(file)
    for other in (from_bytes, from_stream):
        assert torch.equal(other.video, from_path.video) and torch.equal(other.audio, from_path.audio)


def test_probe_describes_what_was_written(tmp_path):
    path = write_clip(smooth_clip(sample_rate=44100), tmp_path / "clip.mp4")
    info = probe(path)
    assert (info.width, info.height, info.frames, info.fps) == (64, 64, 33, 16.0)
    assert (info.sample_rate, info.channels, info.bits, info.rotation) == (44100, 2, 8, 0)
    assert info.has_video and info.has_audio and not info.variable_frame_rate
    assert info.video_start_seconds == 0 and info.audio_start_seconds == 0
    assert info.seconds == pytest.approx(33 / 16, abs=1e-4)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_clip(smooth_clip(), tmp_path / "clip.mp4")
    before = path.read_bytes()

    def full_disk(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sora2.atomic.os.replace", full_disk)
    with pytest.raises(MediaError, match=r"clip\.mp4.*No space left"):
        write_clip(smooth_clip(frames=5), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_interrupt_while_encoding_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(clip, lossless):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("sora2.media.write._video_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_clip(smooth_clip(), tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (Clip(), "neither video nor audio"),
        (Clip(torch.zeros(2, 33, 32, 3, dtype=torch.uint8), None, 8.0), "33 x 32.*crop or pad"),
        (Clip(None, torch.zeros(6, 100), 0.0, 16000), "6 channels.*to_channels"),
        (Clip(None, torch.zeros(2, 100), 0.0, 12345), "12345 Hz.*resample_audio"),
        (Clip(None, torch.full((2, 100), np.nan), 0.0, 16000), "not finite"),
    ],
)
def test_what_cannot_be_written_says_why(clip, words, tmp_path):
    with pytest.raises(MediaError, match=f"x.mp4.*{words}"):
        write_clip(clip, tmp_path / "x.mp4")
    assert list(tmp_path.iterdir()) == []


def test_only_mp4_names(tmp_path):
    with pytest.raises(MediaError, match=r"clip\.avi.*mp4"):
        write_clip(smooth_clip(), tmp_path / "clip.avi")
