"""The same clip through another frame rate, size or codec gives the same numbers, within what is stated here."""

import numpy as np
import pytest

from sora2.media import clip_to_bytes, read_clip, write_clip
from sora2.metrics import Evidence, all_metrics
from sora2.toybox import Toybox, ToyboxConfig

METRICS = all_metrics()
#: Metric -> largest change of the median over clips, in its unit.
TOLERANCE = {"gravity_error": 1.5, "av_offset": 3.0, "permanence": 0.01, "tracked_color": 0.02, "av_f1_45": 0.08,
             "restitution_error": 0.02, "continuity": 0.01, "energy_gain": 2.0, "loudness": 0.5}  # fmt: skip
COUNT = 12


def medians(clips):
    evidences = [Evidence(c) for c in clips]
    found = {}
    for name in TOLERANCE:
        values = [METRICS[name].evaluate(e) for e in evidences]
        found[name] = np.median([v.value for v in values if v is not None and v.measured])
    return found


@pytest.fixture(scope="module")
def plain():
    return medians(Toybox(ToyboxConfig(split="test")).clips(range(COUNT)))


@pytest.mark.parametrize("crf", [12, 23])
def test_mp4_quality(plain, crf):
    clips = Toybox(ToyboxConfig(split="test")).clips(range(COUNT))
    coded = [read_clip(clip_to_bytes(c, crf=crf)).replace(meta=c.meta) for c in clips]
    found = medians(coded)
    for name, tolerance in TOLERANCE.items():
        assert abs(found[name] - plain[name]) <= tolerance, name


def test_decoder(tmp_path):
    clips = Toybox(ToyboxConfig(split="test")).clips(range(3))
    for c in clips:
        path = write_clip(c, tmp_path / f"{c.key}.mp4")
        one, two = (read_clip(path, reader=r).replace(meta=c.meta) for r in ("pyav", "decord"))
        for name in TOLERANCE:
            a, b = METRICS[name](one), METRICS[name](two)
            assert a.measured == b.measured and (
                not a.measured or a.value == pytest.approx(b.value, abs=1e-6)
            ), name


@pytest.mark.parametrize(
    "shape",
    [{"fps": 24.0, "frames": 49}, {"height": 128, "width": 128}, {"sample_rate": 48000}],
    ids=["24 fps", "128 x 128", "48 kHz"],
)
def test_frame_rate_size_and_sample_rate(plain, shape):
    found = medians(Toybox(ToyboxConfig(split="test", **shape)).clips(range(COUNT)))
    for name, tolerance in TOLERANCE.items():
        assert abs(found[name] - plain[name]) <= tolerance, name
