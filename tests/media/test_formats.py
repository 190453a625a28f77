"""Files as phones, cameras, discs and screen recorders make them."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from sora2.media import probe, read_clip, write_clip
from sora2.media.picture import centre_crop_resize
from tests.media.files import clicks, grey_ramp, make_file, psnr, smooth_clip

RATE = 48000


def corner_picture(height: int = 64, width: int = 96) -> np.ndarray:
    """(2, H, W, 3): red top left, green top right, blue bottom left, white bottom right."""
    picture = np.zeros((2, height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    picture[:, :h, :w, 0] = picture[:, :h, w:, 1] = picture[:, h:, :w, 2] = 230
    picture[:, h:, w:] = 230
    return picture


def corners(video: torch.Tensor) -> list[str]:
    """Names of the colours at top left, top right, bottom left, bottom right."""
    _, height, width, _ = video.shape
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    places = [(h, w) for h in (height // 4, 3 * height // 4) for w in (width // 4, 3 * width // 4)]
    return [names[tuple(int(c > 115) for c in video[0, h, w])] for h, w in places]


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        (0, ["red", "green", "blue", "white"]),
        (90, ["green", "white", "red", "blue"]),  # turned counter-clockwise for showing
        (180, ["white", "blue", "green", "red"]),
        (-90, ["blue", "red", "white", "green"]),
    ],
)
def test_a_phone_held_sideways_is_shown_upright(rotation, expected):
    data = make_file(video=corner_picture(), rotation=rotation)
    clip, info = read_clip(data), probe(data)
    assert corners(clip.video) == expected
    assert (
        tuple(clip.video.shape[1:3])
        == ((96, 64) if rotation % 180 else (64, 96))
        == (info.height, info.width)
    )
    assert abs(info.rotation) == abs(rotation)
    assert corners(read_clip(data, size=(32, 32)).video) == expected


def test_the_rotation_is_that_of_the_mp4_matrix():
    """The track header of a phone's portrait video: (x, y) -> (-y, x), a quarter turn clockwise."""
    data = bytearray(make_file(video=corner_picture(), audio=clicks(RATE, 100)))
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one, zero, minus = (1 << 16).to_bytes(4, "big"), bytes(4), (0xFFFF0000).to_bytes(4, "big")
    data[matrix : matrix + 36] = b"".join(
        [
            zero,
            one,
            zero,
            minus,
            zero,
            zero,
            (64 << 16).to_bytes(4, "big"),
            zero,
            (1 << 30).to_bytes(4, "big"),
        ]
    )
    assert corners(read_clip(bytes(data)).video) == ["blue", "red", "white", "green"]


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("libx265", "yuv420p10le"), ("libx264", "yuv422p10le"), ("libx264", "yuv444p"), ("ffv1", "yuv420p16le")],
)
def test_deep_and_full_colour_becomes_eight_bit_rgb(codec, pixel_format):
    clip = smooth_clip(frames=9)
    container = "matroska" if codec == "ffv1" else "mp4"
    data = make_file(
        container=container, video=clip.video.numpy(), video_codec=codec, pixel_format=pixel_format
    )
    back = read_clip(data)
    assert back.video.dtype == torch.uint8 and psnr(back.video, clip.video) > 36
    assert probe(data).bits == {"yuv444p": 8, "yuv420p16le": 16}.get(pixel_format, 10)


def hdr_file(signals: list[float], transfer: int) -> bytes:
    """Grey bars of these signal levels as 10-bit BT.2020 video with the given transfer curve (ITU-T H.273)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=16, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 32 * len(signals), 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
            9,
            transfer,
            9,
            1,
        )
        for _ in range(2):
            frame = av.VideoFrame(stream.width, stream.height, "yuv420p10le")
            luma = np.repeat([round(64 + 876 * s) for s in signals], 32)
            for plane, row in zip(frame.planes, (luma, 512, 512), strict=True):
                values = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                values[:, : plane.width] = row
                plane.update(values.tobytes())
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = 9, transfer, 9, 1
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("transfer", "white", "peak"), [(16, 0.581, 0.752), (18, 0.75, 1.0)], ids=["pq", "hlg"]
)
def test_high_dynamic_range_is_tone_mapped(transfer, white, peak):
    """Black stays black, diffuse white (203 cd/m2) is bright but not clipped, the peak is full white, grey is grey."""
    data = hdr_file([0.0, 0.3, white, 0.5 * (white + peak), peak], transfer)
    info = probe(data)
    assert info.high_dynamic_range and info.bits == 10
    picture = read_clip(data).video[0, 32].float()
    bars = [picture[32 * k + 16] for k in range(5)]
    assert all(bar.max() - bar.min() <= 3 for bar in bars)
    level = [float(bar.mean()) for bar in bars]
    assert level == sorted(level)
    assert level[0] <= 3 and level[2] == pytest.approx(217, abs=4) and level[4] >= 252
    assert not probe(make_file(video=grey_ramp(2))).high_dynamic_range


def test_surround_sound_is_mixed_to_stereo():
    sound = np.zeros((6, 2 * RATE), np.float32)  # FL FR FC LFE BL BR
    for channel in range(6):
        sound[channel, 10000 + 10000 * channel] = 0.8
    data = make_file(audio=sound, audio_codec="flac", layout="5.1", sample_rate=RATE)
    assert probe(data).channels == 6
    stereo = read_clip(data).audio
    assert stereo.shape[0] == 2
    left, right = ([float(side[10000 + 10000 * c]) for c in range(6)] for side in stereo)
    full, half = 0.8 / (1 + 2 * 0.5**0.5), 0.8 * 0.5**0.5 / (1 + 2 * 0.5**0.5)
    assert left == pytest.approx([full, 0, half, 0, half, 0], abs=1e-3)
    assert right == pytest.approx([0, full, half, 0, 0, half], abs=1e-3)
    assert read_clip(data, channels=1).audio.shape[0] == 1


def test_surround_sound_in_aac_keeps_its_moment():
    sound = clicks(2 * RATE, 30000, channels=6)
    clip = read_clip(make_file(video=grey_ramp(32), audio=sound, layout="5.1", sample_rate=RATE))
    assert clip.audio.shape[0] == 2
    assert abs(int(clip.audio[0].abs().argmax()) - 30000) <= 1


def test_mono_is_heard_on_both_sides():
    data = make_file(audio=clicks(RATE, 500, channels=1), layout="mono", audio_codec="flac", sample_rate=RATE)
    audio = read_clip(data).audio
    assert audio.shape[0] == 2 and torch.equal(audio[0], audio[1]) and audio[0, 500] > 0.8
    assert read_clip(data, channels=1).audio.shape[0] == 1


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_every_sample_format_has_the_same_scale(codec):
    wave = 0.5 * np.sin(np.arange(RATE) / 20)[None].repeat(2, 0).astype(np.float32)
    wave[1] *= -0.5
    audio = read_clip(make_file(container="wav", audio=wave, audio_codec=codec, sample_rate=RATE)).audio
    assert np.abs(audio.numpy() - wave).max() < (0.01 if codec == "pcm_u8" else 1e-4)


def test_sound_files_and_cover_art():
    clip = read_clip(make_file(container="wav", audio=clicks(RATE, 70), audio_codec="pcm_s16le"))
    assert clip.video is None and clip.audio.shape == (2, RATE)


def test_a_silent_video_and_a_blind_clip():
    data = make_file(video=grey_ramp(8), audio=clicks(RATE // 2, 70))
    assert read_clip(data, video=False).video is None
    assert read_clip(data, audio="ignore").audio is None


def test_size_crops_the_centre_to_the_aspect():
    picture = np.zeros((2, 64, 128, 3), np.uint8)
    picture[:, :, 32:96] = 200  # exactly what a square crop keeps
    clip = read_clip(make_file(video=picture), size=(32, 32))
    assert clip.video.shape == (2, 32, 32, 3) and clip.video.float()[:, 2:-2, 2:-2].sub(200).abs().max() <= 3


def test_resizing_averages_instead_of_skipping():
    stripes = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    small = centre_crop_resize(stripes, (16, 16)).float()
    assert (small[:, 2:-2, 2:-2] - 127.5).abs().max() < 12


def test_pixels_that_are_not_square(tmp_path):
    """Anamorphic video (DVD, DV) is shown at its display width."""
    path = tmp_path / "wide.mp4"
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for picture in grey_ramp(4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    assert read_clip(path).video.shape == (4, 64, 96, 3) and probe(path).width == 96


def plain_files(tmp_path):
    """Files that both readers can read: name -> path."""
    files = {"clip": write_clip(smooth_clip(), tmp_path / "clip.mp4", lossless_audio=True)}
    for name, fps in (("ntsc", 30000 / 1001), ("film", 24), ("slow", 5)):
        files[name] = tmp_path / f"{name}.mp4"
        make_file(files[name], video=grey_ramp(36), fps=fps, audio=clicks(RATE, 4000), sample_rate=RATE)
    return files


def test_decord_and_pyav_read_the_same(tmp_path):
    spans = [{}, {"fps": 16}, {"start": 0.5, "seconds": 0.5, "fps": 12}, {"size": (32, 48)}]
    for name, path in plain_files(tmp_path).items():
        for span in spans:
            fast, sure = (read_clip(path, reader=reader, **span) for reader in ("decord", "pyav"))
            assert torch.equal(fast.video, sure.video), (name, span)
            assert fast.fps == sure.fps and torch.equal(fast.audio, sure.audio), (name, span)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ({"rotation": 90}, "rotated"),
        ({"stamps": [0, 40, 80, 900, 1000, 1040, 1100, 2000], "fps": 25}, "varies"),
        ({"pixel_format": "yuv444p"}, "yuv444p"),
        ({"container": "matroska"}, "count the frames"),
        ({"audio": clicks(2 * RATE, 100), "video_delay_seconds": Fraction(1, 2)}, "second 0"),
    ],
)
def test_decord_is_not_used_where_it_would_be_wrong(file, reason, tmp_path):
    from sora2.media import MediaError

    path = tmp_path / "file.mp4"
    make_file(path, video=grey_ramp(8, step=30), **file)
    with pytest.raises(MediaError, match=rf"file\.mp4: decord.*{reason}"):
        read_clip(path, reader="decord")
    assert read_clip(path).video is not None


def test_the_film_excerpt():
    """Real material: its cuts are where the sidecar says, its crash is heard in the third shot."""
    clip = read_clip("data/bbb_excerpt.mp4", audio="required", sample_rate=16000)
    assert clip.video.shape == (96, 180, 320, 3) and clip.audio.shape == (2, 64000)
    change = (clip.video[1:].float() - clip.video[:-1].float()).abs().mean((1, 2, 3))
    cuts = (change.topk(3).indices.sort().values + 1) / clip.fps
    sidecar = json.loads(Path("data/bbb_excerpt.json").read_text())
    assert cuts.tolist() == pytest.approx([shot["start"] for shot in sidecar["shots"][1:]], abs=0.01)
    energy = clip.audio.square().mean(0).unfold(0, 1600, 1600).mean(1)  # per 0.1 s
    assert int(energy[30:].argmax()) + 30 in (32, 33) and energy[33] > 10 * energy[5]
    small = read_clip("data/bbb_excerpt.mp4", size=(64, 64), fps=16, start=1.0, seconds=33 / 16)
    assert small.video.shape == (33, 64, 64, 3)
