"""Damage to people who speak, and to the cuts of stories: the clip is made again with one thing wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.signal import butter, sosfiltfilt

from sora2.metrics.corruptions.registry import Subject, corruption
from sora2.metrics.corruptions.world import Made, render
from sora2.toybox import Toybox, ToyboxError
from sora2.toybox.identity import APPEARANCE, VOICES
from sora2.toybox.speech import VOCABULARY, Mouth
from sora2.types import Clip


def _again(subject: Subject, stream: str, changes: Mapping[str, Any]) -> Clip:
    """The clip with one stream, or "both", as they would be with commanded `changes`."""
    truth = subject.truth
    commanded = {"words": truth["words"]} if truth["complete"] else {}
    made = Toybox(subject.config).clip(truth["index"], **{**commanded, **changes})
    if stream == "both":
        return subject.clip.replace(video=made.video, audio=made.audio)
    return subject.clip.replace(**{stream: getattr(made, stream)})


def _first_that_fits(subject: Subject, stream: str, attempts: Iterable[Mapping[str, Any]]) -> Clip:
    """`_again` with the first changes whose words end before the clip does: words are long, and some voices drawl.

    Raises:
        ToyboxError: of the last attempt, when none fits.
    """
    *others, last = attempts
    for changes in others:
        try:
            return _again(subject, stream, changes)
        except ToyboxError:
            continue
    return _again(subject, stream, last)


@corruption(
    "wrong words",
    unit="of the words",
    severities=(0, 0.5, 1),
    neutral=0,
    streams=("video", "audio"),
    scenes=("talk",),
)
def wrong_words(subject: Subject, share: float) -> Clip:
    """Other words of the vocabulary are said, seen and heard alike."""
    words = list(subject.truth["words"])
    rng = subject.rng("wrong words")
    wrong = rng.permutation(len(words))[: max(1, round(share * len(words)))]
    order = [w for w in rng.permutation(VOCABULARY).tolist() if w not in words]
    attempts = []
    for candidates in (
        order,
        sorted(order, key=len),
    ):  # as drawn, then the shortest: the clip must have time for them
        changed = list(words)
        for k, word in zip(wrong, candidates, strict=False):
            changed[k] = word
        attempts.append({"words": tuple(changed)})
    attempts.append({"words": (min(order, key=len),)})
    return _first_that_fits(subject, "both", attempts)


@corruption(
    "muffled speech",
    unit="octaves",
    severities=(0, 2, 3, 4, 5),
    neutral=0,
    streams=("audio",),
    scenes=("talk",),
)
def muffled_speech(subject: Subject, octaves: float) -> Clip:
    """Everything so many octaves below the highest frequency and above is filtered out."""
    clip = subject.clip
    low = butter(8, 0.5 * clip.sample_rate / 2**octaves, fs=clip.sample_rate, output="sos")
    sound = sosfiltfilt(low, clip.audio.numpy().astype(np.float64), axis=1)
    return clip.replace(audio=torch.from_numpy(sound.astype(np.float32)))


@corruption(
    "wrong face", unit="features", severities=(0, 1, 2, 4, 6), neutral=0, streams=("video",), scenes=("talk",)
)
def wrong_face(subject: Subject, count: float) -> Clip:
    """So many features of the face, of skin, hair, its colour, glasses, hat and shape, are another person's."""
    rng = subject.rng("wrong face")
    changes = {}
    for k in rng.permutation(len(APPEARANCE))[: round(count)]:
        name = tuple(APPEARANCE)[k]
        others = [v for v in APPEARANCE[name] if v != subject.truth["identity"][name]]
        changes[name] = others[int(rng.integers(len(others)))]
    return _again(subject, "video", changes)


@corruption("wrong voice", unit="", severities=(0, 1), neutral=0, streams=("audio",), scenes=("talk",))
def wrong_voice(subject: Subject, share: float) -> Clip:
    """Another person says the words, at another pitch, as fast; one who is done before the clip ends."""
    rng = subject.rng("wrong voice")
    who = subject.truth["identity"]
    pitch = who["pitch"] + (1.0 if who["pitch"] < 0 else -1.0)
    first = int(rng.integers(VOICES - 1))
    voices = ((who["voice"] + 1 + (first + k) % (VOICES - 1)) % VOICES for k in range(VOICES - 1))
    return _first_that_fits(subject, "audio", ({"voice": voice, "pitch": pitch} for voice in voices))


@dataclasses.dataclass(frozen=True)
class LateMouth:
    """A mouth on a clock that is behind; it has what a scene reads of `Mouth`."""

    mouth: Mouth
    seconds: float

    def opening(self, seconds: np.ndarray) -> np.ndarray:
        return self.mouth.opening(seconds - self.seconds)

    def width(self, seconds: np.ndarray) -> np.ndarray:
        return self.mouth.width(seconds - self.seconds)


@corruption(
    "mouth shift",
    unit="ms",
    severities=(-300, -200, -100, 0, 100, 200, 300),
    neutral=0,
    streams=("video",),
    scenes=("talk",),
)
def mouth_shift(subject: Subject, milliseconds: float) -> Clip:
    """The mouth late (positive) or early; the rest of the picture, and the sound, stay."""
    config, scene = subject.config, subject.scene
    parameters = scene.sample(config, subject.truth["index"], {})
    world = scene.simulate(config, parameters)
    late = dataclasses.replace(world, mouth=LateMouth(world.mouth, milliseconds / 1000))
    return render(subject, Made(parameters, late), ("video",))


@corruption(
    "cut shift", unit="frames", severities=(0, 1, 2, 3), neutral=0, streams=("video",), scenes=("story",)
)
def cut_shift(subject: Subject, frames: float) -> Clip:
    """Every cut of the picture comes late: the frame before it stays so much longer. The sound stays."""
    video = subject.clip.video.clone()
    for seconds in subject.truth["cut_seconds"]:
        cut = round(seconds * subject.clip.fps)
        video[cut : cut + round(frames)] = subject.clip.video[cut - 1]
    return subject.clip.replace(video=video)
