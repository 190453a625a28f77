"""`sora2 compare`: paired tests that find what is there and nothing else."""

import json
import math

import numpy as np
import pytest

from sora2.cli import main
from sora2.metrics import MetricError
from sora2.metrics.comparison import compare, holm, read_side, sign_flip_p


def side(folder, values, *, seeds=2, prompts=12, metric="gravity_error", drop=(), name="m"):
    """A metrics.json whose clips have `values(prompt, seed)`; None is unmeasurable."""
    clips = []
    for p in range(prompts):
        for s in range(seeds):
            if (p, s) in drop:
                continue
            value = values(p, s)
            clips.append(
                {
                    "key": f"{p:02d}-{s}", "prompt": f"prompt {p}", "seed": s,
                    "metrics": {metric: {"value": value, "status": "unmeasurable" if value is None else "measured",
                                         "reason": "no ball" if value is None else "", "unit": "%", "details": {}}},
                }
            )  # fmt: skip
    folder.mkdir()
    entry = {"order": [name], "rows": {name: {"clips": clips}}}
    (folder / "metrics.json").write_text(json.dumps(entry))
    return read_side(folder)


def test_a_real_difference_is_found_and_noise_is_not(tmp_path):
    rng = np.random.default_rng(0)
    base = {(p, s): float(rng.uniform(5, 30)) for p in range(12) for s in range(2)}
    noise = {k: v + float(rng.normal(0, 1)) for k, v in base.items()}
    a = side(tmp_path / "a", lambda p, s: base[p, s])
    better = side(tmp_path / "b", lambda p, s: 0.6 * base[p, s])
    same = side(tmp_path / "c", lambda p, s: noise[p, s])
    (found,) = compare(a, better).differences
    assert found.verdict == "B is better" and found.adjusted_p < 0.01
    assert found.value.high < 0 and found.cost.high < 0
    (back,) = compare(better, a).differences
    assert back.verdict == "A is better" and back.p == pytest.approx(found.p)
    (nothing,) = compare(a, same).differences
    assert nothing.verdict == "no difference shown"
    (itself,) = compare(a, a).differences
    assert itself.value.estimate == 0 and itself.p == 1


def test_hiding_bad_clips_does_not_win(tmp_path):
    a = side(tmp_path / "a", lambda p, s: 12.0)
    hides = side(tmp_path / "b", lambda p, s: 4.0 if p < 2 else None)
    (found,) = compare(a, hides).differences
    assert found.value.estimate < 0  # where both are measured B looks better
    assert found.verdict == "A is better" and found.success.estimate > 0.1


def test_seeds_pair_with_their_own(tmp_path):
    a = side(tmp_path / "a", lambda p, s: 10.0 * s + p)
    b = side(tmp_path / "b", lambda p, s: 10.0 * s + p + 1)
    (found,) = compare(a, b).differences
    assert found.value.low == found.value.high == 1.0


def test_prompts_that_do_not_match_are_counted(tmp_path):
    a = side(tmp_path / "a", lambda p, s: 1.0, prompts=12)
    b = side(tmp_path / "b", lambda p, s: 1.0, prompts=10, drop={(3, 1)})
    result = compare(a, b)
    assert result.prompts == 10 and any("2 prompts are in A only" in n for n in result.notes)
    assert any("1 prompts have more clips on one side" in n for n in result.notes)
    other = json.loads((tmp_path / "b" / "metrics.json").read_text().replace("prompt ", "other "))
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(other))
    with pytest.raises(MetricError, match=r"no prompt of .* is in"):
        compare(a, read_side(tmp_path / "b"))


def test_one_prompt_has_no_test(tmp_path):
    a = side(tmp_path / "a", lambda p, s: 1.0 + s, prompts=1)
    b = side(tmp_path / "b", lambda p, s: 2.0 + s, prompts=1)
    (found,) = compare(a, b).differences
    assert math.isnan(found.adjusted_p) and found.verdict == "one prompt: no test"


def test_the_sign_flip_test_has_its_level():
    rng = np.random.default_rng(0)
    p = [sign_flip_p(rng.normal(0, 1, 9)) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09
    assert sign_flip_p(np.ones(10)) == pytest.approx(2 / 2**10)


def test_holm_by_hand():
    assert holm([0.01, 0.04, float("nan"), 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_command(tmp_path, capsys):
    side(tmp_path / "a", lambda p, s: 10.0 + p)
    side(tmp_path / "b", lambda p, s: 5.0 + p)
    out = tmp_path / "out"
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]) == 0
    assert "B is better" in capsys.readouterr().out
    stored = json.loads((out / "comparison.json").read_text())
    assert stored["metrics"]["gravity_error"]["verdict"] == "B is better" and stored["pairs"] == 24
    assert "B is better" in (out / "index.html").read_text()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "none")]) == 2
    assert "there is no metrics.json" in capsys.readouterr().err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metrics.json").write_text("{}")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "bad")]) == 2
    assert "is no evaluation" in capsys.readouterr().err
