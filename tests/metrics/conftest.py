"""Toybox clips of the test split, whose truth is exact; the metrics were calibrated on the train split."""

import pytest

from sora2.metrics import Evidence
from sora2.toybox import Toybox, ToyboxConfig


@pytest.fixture(scope="session")
def clips():
    return Toybox(ToyboxConfig(split="test")).clips(range(40))


@pytest.fixture(scope="session")
def evidences(clips):
    return [Evidence(clip) for clip in clips]
