"""The gate of the speedrun, its record, and the energy counters."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sora2.metrics.values import MetricError
from sora2.studies.energy import EnergyMeter
from sora2.studies.gate import GATE, GateResult, check_gate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def speedrun():
    spec = importlib.util.spec_from_file_location("speedrun", ROOT / "scripts" / "speedrun.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def summary(**estimates):
    return {
        name: {"value": {"estimate": value}, "measured": measured, "clips": 512}
        for name, (value, measured) in estimates.items()
    }


REAL = summary(av_f1_45=(0.9, 512), prompt_accuracy=(0.8, 512))


def test_the_gate_is_a_share_of_real_clips():
    good = check_gate(summary(av_f1_45=(0.73, 512), prompt_accuracy=(0.73, 512)), REAL)
    assert {r.metric for r in good} == set(GATE) and all(r.passed for r in good)
    bad = check_gate(summary(av_f1_45=(0.71, 512), prompt_accuracy=(0.71, 512)), REAL)
    assert not any(r.passed for r in bad)


def test_clips_that_cannot_be_measured_do_not_help():
    half = check_gate(summary(av_f1_45=(0.9, 256), prompt_accuracy=(0.8, 512)), REAL)
    assert [r.share for r in half] == [pytest.approx(0.5), pytest.approx(1.0)]
    none = check_gate(summary(av_f1_45=(None, 0), prompt_accuracy=(0.8, 512)), REAL)
    assert none[0].value == 0 and not none[0].passed
    with pytest.raises(MetricError, match="generated clips have no prompt_accuracy"):
        check_gate(summary(av_f1_45=(0.9, 512)), REAL)


def test_a_record_is_one_more_line_of_the_table(speedrun):
    results = [GateResult("av_f1_45", 0.5, 0.9, 0.8), GateResult("prompt_accuracy", 0.8, 0.8, 0.9)]
    report = {"seconds": 3600.0, "samples": 1000, "flops": 2e15, "machine": "2 cores", "passed": False}
    line = speedrun.row(report, results, "Muon")
    table = speedrun.TABLE.read_text()
    columns = next(x for x in table.splitlines() if x.startswith("| date"))
    assert line.count("|") == columns.count("|")
    for part in ("| 60 |", "| 1,000 |", "| 2.00 |", "| 0.56 |", "| 1.00 |", "| no |", "| Muon |"):
        assert part in line
    assert speedrun.append_row(table, line).rstrip().endswith(line)


def test_energy_is_the_growth_of_the_counters_also_when_one_begins_anew(tmp_path):
    def set_counter(i, value):
        folder = tmp_path / f"intel-rapl:{i}"
        folder.mkdir(exist_ok=True)
        (folder / "energy_uj").write_text(f"{value}\n")
        (folder / "max_energy_range_uj").write_text("10000000\n")

    set_counter(0, 2_000_000)
    set_counter(1, 9_000_000)
    meter = EnergyMeter(tmp_path)
    set_counter(0, 5_000_000)
    set_counter(1, 1_000_000)
    assert meter.joules() == pytest.approx(3 + 2)
    assert EnergyMeter(tmp_path / "none").joules() is None
