"""Scene `talk`: a face says one to four words; the mouth follows the phonemes, and both are known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from sora2.toybox.backdrops import room
from sora2.toybox.config import ToyboxConfig
from sora2.toybox.layers import Picture
from sora2.toybox.scene import EVERYDAY_SPLITS, Phrases, met_combinations, register_scene
from sora2.toybox.scenes import talk_captions, talk_motion
from sora2.toybox.scenes.talk_face import HEAD_SCALE, MOUTH_Y, face_layers, head_sizes
from sora2.toybox.scenes.talk_motion import TalkWorld, eyes_open, head_place, mouth_size
from sora2.toybox.scenes.talk_parameters import HELD_OUT, TalkParameters, sample_parameters
from sora2.toybox.sound import pan_gains, pan_position
from sora2.toybox.speech import speech_backend

#: Where wall and floor meet behind the shoulders, world units.
FLOOR = 0.9


@register_scene("talk")
class Talk:
    """Words are placed on samples; mouth, nods, sound and truth share those times.

    Truth, beside what all scenes have:

    - identity: the fields of `Identity`, held_out, number; in `cameo` also take and role (enrolment or target);
    - voice: backend, number (0 to 7, the speaker), pitch (0 low, 1 middle, 2 high), words_per_minute;
    - words: what is said, in order; complete: False when the clip is too short for its only word and cuts it off;
    - expression, gaze, background, shirt (names);
    - head: per frame x, y of its middle and turn (how far its features move sideways), half_width, half_height;
      mouth: per frame x, y of its middle, opening (its height) and half_width; all in world units;
    - eyes_open: per frame, 0 shut to 1 open;
    - phonemes: phoneme (IPA), start_seconds, end_seconds; they tile each word;
    - events: kind "word", word, onset_seconds (exactly a sample), end_seconds, level (peak amplitude before
      panning), pan. A clip long enough says its words again after a pause;
    - held_out: the held-out combinations that the clip has (none in train, validation and test).
    """

    name: str
    splits = (*EVERYDAY_SPLITS, "cameo")
    held_out = HELD_OUT

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> TalkParameters:
        return sample_parameters(config, self.name, index, overrides)

    def simulate(self, config: ToyboxConfig, parameters: TalkParameters) -> TalkWorld:
        return talk_motion.simulate(config, parameters)

    def picture(
        self, config: ToyboxConfig, parameters: TalkParameters, world: TalkWorld, seconds: np.ndarray
    ) -> Picture:
        layers = face_layers(
            parameters.identity,
            parameters.expression,
            parameters.gaze,
            parameters.shirt,
            world.x,
            head_place(parameters, world, seconds),
            eyes_open(parameters, seconds),
            mouth_size(parameters, world, seconds),
        )
        return Picture(room(parameters.background, FLOOR), layers)

    def sound(
        self, config: ToyboxConfig, parameters: TalkParameters, world: TalkWorld, rng: np.random.Generator
    ) -> np.ndarray:
        audio = np.zeros((config.channels, config.samples), np.float32)
        gains = pan_gains(pan_position(world.x, config.world_size[0]), config.channels).astype(np.float32)
        for word in world.words:
            length = min(word.wave.size, config.samples - word.first)
            audio[:, word.first : word.first + length] += gains[:, None] * word.wave[:length]
        return audio

    def truth(self, config: ToyboxConfig, parameters: TalkParameters, world: TalkWorld) -> dict[str, Any]:
        seconds = config.frame_seconds
        x, y, turn = head_place(parameters, world, seconds)
        opening, half = mouth_size(parameters, world, seconds)
        wide, tall = head_sizes(parameters.identity)
        voice = parameters.voice
        pan = pan_position(world.x, config.world_size[0])
        return {
            "identity": dict(parameters.who),
            "voice": {
                "backend": speech_backend().name,
                "number": voice.number,
                "pitch": voice.pitch,
                "words_per_minute": voice.words_per_minute,
            },
            "words": list(parameters.words),
            "complete": parameters.complete,
            "expression": parameters.expression,
            "gaze": parameters.gaze,
            "background": parameters.background,
            "shirt": parameters.shirt,
            "head": _rounded(x=x, y=y, turn=turn)
            | {
                "half_width": HEAD_SCALE * wide,
                "half_height": HEAD_SCALE * tall,
            },
            "eyes_open": eyes_open(parameters, seconds).round(7).tolist(),
            "mouth": _rounded(
                x=x + HEAD_SCALE * turn,
                y=y + HEAD_SCALE * MOUTH_Y,
                opening=opening,
                half_width=half,
            ),
            "phonemes": [
                {"phoneme": p.name, "start_seconds": round(p.start, 7), "end_seconds": round(p.end, 7)}
                for word in world.words
                for p in word.phonemes()
            ],
            "events": [
                {
                    "onset_seconds": word.onset_seconds,
                    "end_seconds": word.end_seconds,
                    "kind": "word",
                    "word": word.word,
                    "level": float(np.abs(word.wave).max()),
                    "pan": pan,
                }
                for word in world.words
            ],
            "held_out": met_combinations(parameters.carriers(), HELD_OUT),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        return talk_captions.attributes(truth)

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        return talk_captions.phrases(truth, rng)


def _rounded(**values: np.ndarray) -> dict[str, list[float]]:
    """Per-frame values of world units as plain lists."""
    return {name: np.asarray(value).round(7).tolist() for name, value in values.items()}
