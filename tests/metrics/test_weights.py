"""Metrics that need published weights say so, and what to do; their arithmetic is tested without them."""

import numpy as np
import pytest
import torch

from sora2.cli import main
from sora2.metrics import Evidence, MetricError, all_metrics, select_metrics
from sora2.metrics.measures import frames
from sora2.metrics.networks import published
from sora2.metrics.weights import find_weights, missing_weights, set_weights


def test_without_weights_a_metric_is_left_out_or_an_error():
    assert "vbench_subject_consistency" in all_metrics()
    assert "vbench_subject_consistency" not in select_metrics()[0]
    with pytest.raises(MetricError, match=r"DINO ViT-B/16.*--weights dino-b16=PATH"):
        select_metrics(["vbench_subject_consistency"])
    with pytest.raises(MetricError, match="--weights dino-b16"):
        find_weights("dino-b16")


def test_weights_are_found_where_they_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("SORA2_WEIGHTS_DINO_B16", "")  # is put back after the test
    monkeypatch.delenv("SORA2_WEIGHTS_DINO_B16")
    with pytest.raises(MetricError, match="no such file or folder"):
        set_weights("dino-b16", tmp_path / "none")
    with pytest.raises(MetricError, match="unknown weights; choose from"):
        set_weights("dinosaur", tmp_path)
    monkeypatch.setenv("SORA2_WEIGHTS_DINO_B16", str(tmp_path))
    assert find_weights("dino-b16") == tmp_path and missing_weights(["dino-b16"]) == []
    assert "vbench_subject_consistency" in select_metrics()[0]
    monkeypatch.setenv("SORA2_WEIGHTS_DINO_B16", str(tmp_path / "gone"))
    assert "does not exist" in missing_weights(["dino-b16"])[0]


def test_the_command_names_bad_weights(tmp_path, capsys):
    assert main(["evaluate", "--real", "--weights", "dino-b16", "--out", str(tmp_path)]) == 2
    assert "write NAME=PATH" in capsys.readouterr().err
    assert main(["evaluate", "--list"]) == 0
    assert "not available: DINO ViT-B/16" in capsys.readouterr().out


def test_consistency_by_hand():
    assert frames.consistency(np.ones((5, 3))) == pytest.approx(1)
    assert frames.consistency(np.eye(3)) == 0
    # frame 2 opposite to frame 1, frame 3 as frame 1: previous 0 and 0, first 0 and 1
    assert frames.consistency(np.array([[1.0, 0], [-1, 0], [1, 0]])) == pytest.approx(0.25)


def test_the_loader_hands_frames_to_the_network(clips, monkeypatch):
    class Stub:
        def __call__(self, **inputs):
            mean = torch.stack([torch.as_tensor(i).float().mean(dim=(0, 1)) for i in inputs["frames"]])
            return type("Output", (), {"last_hidden_state": mean[:, None]})

    monkeypatch.setattr(published, "find_weights", lambda name: name)
    loaded = (lambda images, return_tensors: {"frames": images}, Stub())
    monkeypatch.setattr(published, "from_transformers", lambda path, *parts: loaded)
    still = clips[0].replace(video=clips[0].video[:1].expand_as(clips[0].video).contiguous())
    measure = all_metrics()["vbench_subject_consistency"].measure
    assert measure(Evidence(still)) == pytest.approx(1)
    assert 0.9 < measure(Evidence(clips[0])) < 1
