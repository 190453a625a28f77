"""Timestamps decide: variable frame rate, late streams, gaps, spans, frame-rate conversion."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from sora2.media import MediaError, clip_to_bytes, probe, read_clip
from tests.media.files import clicks, grey_ramp, levels, make_file, smooth_clip

RATE = 48000


def test_variable_frame_rate_shows_each_picture_when_it_was_shown():
    """A screen recording: quick changes, then a long hold."""
    stamps = [0, 40, 80, 120, 1120, 1160, 2000]  # ms
    data = make_file(video=grey_ramp(7, step=30), stamps=stamps, fps=25)
    assert probe(data).variable_frame_rate
    clip = read_clip(data, fps=25, seconds=2.0)
    shown = levels(clip.video, step=30)
    expected = [max(i for i, s in enumerate(stamps) if s <= 40 * k + 1) for k in range(50)]
    assert shown == expected


def test_irregular_stamps_at_a_foreign_rate():
    rng = np.random.default_rng(1)
    stamps = np.concatenate([[0], np.cumsum(rng.integers(15, 120, 30))])
    data = make_file(video=grey_ramp(31, step=8), stamps=stamps.tolist(), fps=15)
    clip = read_clip(data, fps=10, seconds=float(stamps[-1] / 1000))
    for k, shown in enumerate(levels(clip.video, step=8)):
        # At every instant the picture shown then, or one that is due within half the shortest interval.
        current = int((stamps <= 100 * k).sum()) - 1
        soon = int((stamps <= 100 * k + 8).sum()) - 1
        assert shown in (current, soon)


def test_constant_rate_is_kept_frame_by_frame_in_every_container():
    for container in ("mp4", "matroska", "mpegts", "mov"):
        data = make_file(container=container, video=grey_ramp(30), fps=30000 / 1001)
        clip = read_clip(data)
        assert levels(clip.video) == list(range(30)), container
        assert clip.fps == pytest.approx(30000 / 1001, rel=1e-5)
        assert not probe(data).variable_frame_rate


@pytest.mark.parametrize(("native", "wanted"), [(24, 16), (30, 16), (60, 24), (16, 24), (25, 8)])
def test_rate_conversion_takes_the_nearest_picture(native, wanted):
    count = 30
    clip = read_clip(make_file(video=grey_ramp(count), fps=native), fps=wanted)
    assert clip.fps == wanted
    assert clip.video.shape[0] == round(count / native * wanted)
    for k, shown in enumerate(levels(clip.video)):
        assert abs(shown / native - k / wanted) <= 0.5 / native + 1e-6 or shown == count - 1


def test_seconds_give_exact_lengths():
    clip = read_clip(clip_to_bytes(smooth_clip()), start=0.5, seconds=1.0, fps=12, sample_rate=22050)
    assert clip.video.shape[0] == 12 and clip.audio.shape == (2, 22050)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_span_is_a_cut_of_the_whole(container):
    """Seeking must not move anything: pictures and sound of a span equal those of the whole file."""
    rng = np.random.default_rng(0)
    sound = 0.3 * rng.standard_normal((2, 5 * RATE)).astype(np.float32)
    data = make_file(container=container, video=grey_ramp(80, step=3), audio=sound, sample_rate=RATE)
    whole = read_clip(data)
    # To the sample where the container stores sample times; else to the container's millisecond or 1/90 ms.
    loose = {"mp4": 0, "matroska": RATE // 1000, "mpegts": 2}[container]
    for start in (0.25, 1.5, 3.375):
        part = read_clip(data, start=start, seconds=1.0)
        frame, sample = round(start * 16), round(start * RATE)
        assert torch.equal(part.video, whole.video[frame : frame + 16])
        window = part.audio[:, 8000:12000]
        at = sample + 8000
        errors = [
            float((window - whole.audio[:, at + shift : at + shift + 4000]).abs().max())
            for shift in range(-loose, loose + 1)
        ]
        assert min(errors) < 1e-4


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_span_of_the_sound_alone(container):
    sound = clicks(5 * RATE, 190000)
    data = make_file(container=container, video=grey_ramp(80, step=3), audio=sound, sample_rate=RATE)
    whole = int(read_clip(data).audio[0].argmax())
    part = read_clip(data, video=False, start=3.0, seconds=1.5)
    assert abs(int(part.audio[0].argmax()) + 3 * RATE - whole) <= (
        RATE // 1000 if container == "matroska" else 2
    )


def test_sound_that_starts_late_is_preceded_by_silence():
    data = make_file(
        video=grey_ramp(32),
        audio=clicks(RATE, 20000),
        audio_delay_samples=RATE // 2,
        audio_codec="flac",
        sample_rate=RATE,
    )
    info = probe(data)
    assert info.audio_start_seconds == pytest.approx(0.5, abs=0.002) and info.video_start_seconds == 0
    clip = read_clip(data)
    assert abs(int(clip.audio[0].argmax()) - (RATE // 2 + 20000)) <= 1
    assert clip.audio[:, : RATE // 2 - RATE // 500].abs().max() == 0
    assert levels(clip.video) == list(range(32))


def test_pictures_that_start_late_are_preceded_by_the_first():
    data = make_file(
        video=grey_ramp(16),
        video_delay_seconds=Fraction(1, 2),
        ticks_per_second=16000,
        audio=clicks(2 * RATE, 20000),
        sample_rate=RATE,
    )
    clip = read_clip(data, seconds=1.5)
    assert levels(clip.video) == [0] * 8 + list(range(16))
    assert abs(int(clip.audio[0].argmax()) - 20000) <= 1
    # The clock is the file's, whichever streams are read.
    assert levels(read_clip(data, audio="ignore", seconds=1.5).video) == [0] * 8 + list(range(16))


def test_a_stream_that_ends_first_is_continued():
    data = make_file(video=grey_ramp(8), audio=clicks(RATE, 20000), audio_codec="flac", sample_rate=RATE)
    clip = read_clip(data, seconds=1.0)
    assert levels(clip.video) == list(range(8)) + [7] * 8
    short = make_file(
        video=grey_ramp(16), audio=clicks(RATE // 2, 20000), audio_codec="flac", sample_rate=RATE
    )
    clip = read_clip(short, seconds=1.0)
    assert clip.audio.shape == (2, RATE) and clip.audio[:, RATE // 2 :].abs().max() == 0
    # Without a length nothing is invented: each stream to its own end.
    assert read_clip(short).audio.shape[1] == RATE // 2


@pytest.mark.parametrize("container,codec", [("matroska", "aac"), ("webm", "libopus"), ("mp4", "libmp3lame")])
def test_codec_priming_moves_nothing(container, codec):
    pictures = {"webm": "libvpx-vp9"}.get(container, "libx264")
    data = make_file(
        container=container,
        video=grey_ramp(32),
        video_codec=pictures,
        audio=clicks(2 * RATE, 30000),
        audio_codec=codec,
        sample_rate=RATE,
    )
    clip = read_clip(data)
    assert abs(int(clip.audio[0].argmax()) - 30000) <= 1
    assert levels(clip.video) == list(range(32))


@pytest.mark.parametrize("to_rate", [8000, 11025, 16000, 22050, 44100])
def test_resampling_while_reading_keeps_the_moment(to_rate):
    data = make_file(audio=clicks(2 * RATE, 60000), audio_codec="flac", sample_rate=RATE)
    clip = read_clip(data, sample_rate=to_rate)
    assert clip.sample_rate == to_rate and clip.audio.shape[1] == 2 * to_rate
    assert abs(int(clip.audio[0].abs().argmax()) / to_rate - 60000 / RATE) <= 1 / to_rate
    part = read_clip(data, sample_rate=to_rate, start=0.8, seconds=1.0)
    assert abs(int(part.audio[0].abs().argmax()) / to_rate + 0.8 - 60000 / RATE) <= 1 / to_rate


def test_a_span_outside_the_file_is_an_error():
    data = clip_to_bytes(smooth_clip())
    with pytest.raises(MediaError, match=r"lasts 2\.06 s.*smaller start"):
        read_clip(data, start=3.0)
    with pytest.raises(MediaError, match=r"lasts 2\.06 s.*1\.00 s to 4\.00 s"):
        read_clip(data, start=1.0, seconds=3.0)
    with pytest.raises(MediaError, match="must not be negative"):
        read_clip(data, start=-1.0)
