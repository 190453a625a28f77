"""Summing up an evaluation: groups, intervals over clips, pooled events, and bars that tell what is reached."""

import math

import numpy as np
import pytest

from sora2.codecs.bars import format_bars, whole_world_bars
from sora2.codecs.cost import bytes_on_disk
from sora2.codecs.evaluate import Row, has_noise
from sora2.codecs.summary import format_table, summarise


def rows():
    rng = np.random.default_rng(0)
    return [
        Row(
            f"clip-{i}",
            ("all", f"style {'pencil' if i % 2 else 'cartoon'}", f"scene {'talk' if i % 3 else 'rain'}"),
            {
                "psnr_db": 30.0 + 4 * (i % 2) + rng.normal(0, 0.1),
                "mouth_correlation": 0.97 if i else math.nan,
            },
            {"onset_shift_ms": [-1.0, 1.0, 3.0], "words_lost_points": [0.0, 100.0 if i == 3 else 0.0]},
        )
        for i in range(12)
    ]


def test_a_clip_counts_in_all_of_its_groups():
    table = summarise(rows())
    assert table["all"]["psnr_db"]["n"] == 12
    assert table["style pencil"]["psnr_db"]["n"] == table["style cartoon"]["psnr_db"]["n"] == 6
    assert table["scene rain"]["psnr_db"]["n"] == 4
    assert table["style pencil"]["psnr_db"]["mean"] == pytest.approx(34, abs=0.2)
    assert table["style cartoon"]["psnr_db"]["mean"] == pytest.approx(30, abs=0.2)


def test_intervals_hold_the_mean_and_are_wider_for_fewer_clips():
    table = summarise(rows())
    for group in ("all", "scene rain"):
        psnr = table[group]["psnr_db"]
        assert psnr["low"] < psnr["mean"] < psnr["high"]
    width = {group: table[group]["psnr_db"]["high"] - table[group]["psnr_db"]["low"] for group in table}
    assert width["scene rain"] > width["all"]


def test_clips_without_a_value_are_counted_apart():
    mouth = summarise(rows())["all"]["mouth_correlation"]
    assert (mouth["n"], mouth["unmeasurable"]) == (11, 1)
    assert mouth["mean"] == pytest.approx(0.97)


def test_errors_are_pooled_by_size_and_shares_by_mean():
    table = summarise(rows())["all"]
    assert table["onset_shift_ms"]["median"] == 1.0  # of sizes: +1 and -1 do not cancel
    assert table["onset_shift_ms"]["p90"] == 3.0
    assert (table["onset_shift_ms"]["n"], table["onset_shift_ms"]["clips"]) == (36, 12)
    assert table["words_lost_points"]["mean"] == pytest.approx(100 / 24)
    assert "p90" not in table["words_lost_points"]


def test_the_table_has_a_line_per_group_and_a_column_per_metric():
    lines = format_table(summarise(rows())).splitlines()
    assert lines[0].startswith("| clips | psnr_db | mouth_correlation | onset_shift_ms | words_lost_points |")
    assert len(lines) == 2 + 5
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_bars_say_what_is_reached_and_what_is_not():
    bars = {bar.what: bar for bar in whole_world_bars(summarise(rows()), seconds=0.4, megabytes=25.0)}
    text = format_bars(list(bars.values()))
    assert not bars["video PSNR, all clips"].reached  # 32 dB
    assert bars["video PSNR, worst scene or style (style cartoon)"].reached  # 30 dB
    assert bars["mouth opening against the truth"].reached
    assert bars["words lost by the round trip"].reached  # 4.2 points
    assert bars["encode and decode of the default clip, CPU time of one thread"].reached
    assert not bars["both codecs on disk"].reached
    assert "| both codecs on disk | 25 MB | at most 24 MB | no |" in text


def test_what_was_not_measured_is_not_reached():
    bars = {bar.what: bar for bar in whole_world_bars(summarise(rows()), 0.4, 10.0)}
    missing = bars["pitch of notes, 90th percentile"]
    assert not missing.reached
    assert missing.record()["value"] is None  # JSON has no NaN
    assert "not measured" in format_bars([missing])


def test_noise_is_found_where_it_sounds():
    silent = {"ambience": "silence"}
    assert not has_noise(silent)
    assert has_noise({"ambience": "rain"})
    assert has_noise(silent | {"own_ambience": "city hum"})
    assert has_noise(silent | {"rolls": [{"ball": 0}]})
    assert has_noise(silent | {"strands": [silent, {"ambience": "wind"}]})
    assert not has_noise(silent | {"rolls": [], "strands": [silent]})


def test_bytes_of_folders(tmp_path):
    for name, size in (("a", 10), ("b", 32)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * size)
    assert bytes_on_disk([tmp_path / "a", tmp_path / "b"]) == 42
