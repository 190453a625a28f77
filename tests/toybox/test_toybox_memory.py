"""A generator of any number of clips stays as large as it was after the first few hundred."""

import gc
import importlib.util

import numpy as np
import psutil
import pytest

from sora2.toybox import Toybox, whole_world
from sora2.toybox.scenes import talk, talk_parameters
from sora2.toybox.speech import CachedBackend, Span, Utterance


class Synthesiser:
    """Half a second of noise for every word, without the cost of a voice."""

    name = "noise"

    def fingerprint(self):
        return "noise"

    def speak(self, words, voice):
        seed = [*words[0].encode(), voice.number, voice.pitch, voice.words_per_minute]
        audio = np.random.default_rng(seed).uniform(-0.5, 0.5, 11025).astype(np.float32)
        return Utterance(audio, 22050, (Span("ə", 0.0, 0.5),), (Span(words[0], 0.0, 0.5),))


def resident_mebibytes():
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def test_memory_does_not_grow_with_words_that_were_said(monkeypatch):
    backend = CachedBackend(Synthesiser(), folder=None)
    for module in (talk, talk_parameters):
        monkeypatch.setattr(module, "speech_backend", lambda: backend)
    world = Toybox(whole_world(scenes=("talk",), height=16, width=16))
    for index in range(100):
        world.clip(index)
    before = resident_mebibytes()
    for index in range(100, 300):
        world.clip(index)
    assert resident_mebibytes() - before < 8  # 30 if every word of 200 clips were kept


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="needs sora2[toybox]")
def test_memory_is_flat_over_ten_thousand_clips_of_the_whole_world():
    world = Toybox(whole_world())
    resident = []
    for index in range(10_001):
        if index in (2500, 5000, 7500, 10_000):
            resident.append(resident_mebibytes())
        world.clip(index)
    assert max(resident) - min(resident) < 10, resident
