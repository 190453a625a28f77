"""What the shipped checkpoint of talking faces is for: words in quotes are heard, and a person's voice is theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sora2.codecs.quotes import quoted
from sora2.generate import Pipeline, Request
from sora2.metrics.enrolment import cameo_clips
from sora2.metrics.evidence import Evidence
from sora2.metrics.identity import voice_of
from sora2.metrics.networks.sound import mono
from sora2.metrics.networks.whisper import words_heard
from sora2.metrics.transcripts import word_accuracy
from sora2.toybox import Toybox, ToyboxConfig
from sora2.toybox.speech import VOCABULARY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pipeline():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return Pipeline.from_checkpoint("checkpoints/toybox-talk")


def test_what_stands_in_quotes_is_said(pipeline):
    clips = Toybox(ToyboxConfig(split="test", scenes=("talk",))).clips(range(8))
    asked = [quoted(clip.caption) for clip in clips]
    made = pipeline.generate([Request(prompt=clip.caption, seed=k) for k, clip in enumerate(clips)])
    heard = [words_heard(mono(clip.audio.numpy(), clip.sample_rate), VOCABULARY) for clip in made]

    def accuracy(words: list[list[str]]) -> float:
        return float(
            np.mean([word_accuracy(a, h, [False] * len(a)) for a, h in zip(words, heard, strict=True)])
        )

    assert accuracy(asked) >= 0.6
    assert accuracy([*asked[1:], asked[0]]) <= 0.2  # of what was asked of another


def test_a_voice_is_that_of_the_person_who_is_shown(pipeline):
    clips = cameo_clips(ToyboxConfig(split="cameo", scenes=("talk",)), 6)
    people = [clip.meta["enrolment"][0] for clip in clips]
    made = pipeline.generate(
        [
            Request(prompt=clip.caption, cameo=person, consent="of the Toybox", seed=k)
            for k, (clip, person) in enumerate(zip(clips, people, strict=True))
        ]
    )
    own = np.stack([voice_of(Evidence(clip)) for clip in made])
    known = np.stack([voice_of(Evidence(clip)) for clip in people])
    likeness = own @ known.T
    others = likeness[~np.eye(len(clips), dtype=bool)]
    assert likeness.diagonal().mean() > others.mean() + 0.02
