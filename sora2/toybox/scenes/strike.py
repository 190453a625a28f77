"""Scene `strike`: a mallet plays a melody on a row of tuned bars; every note is seen and heard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sora2.toybox.backdrops import room
from sora2.toybox.captions import WORDS, Phrases
from sora2.toybox.config import ToyboxConfig, ToyboxError, check_choice, check_range
from sora2.toybox.controls import Controls, command, draw_controls
from sora2.toybox.layers import Picture
from sora2.toybox.music import BAR_SEMITONES, INSTRUMENTS, Note, add_notes, midi_to_hz, note_level
from sora2.toybox.randomness import pick, stream
from sora2.toybox.scene import (
    EVERYDAY_SPLITS,
    draw_for_split,
    met_combinations,
    register_scene,
    reject_unknown,
)
from sora2.toybox.scenes.strike_melody import BARS, DYNAMICS, MELODIES, RHYTHMS, TEMPOS, score
from sora2.toybox.scenes.strike_motion import Hit, mallet_path
from sora2.toybox.scenes.strike_picture import BAR_COLORS, HEAD_RADIUS, Row, layers
from sora2.toybox.sound import pan_position
from sora2.toybox.vocabulary import BACKGROUNDS

#: What can be commanded besides the controls; see `StrikeParameters`.
COMMANDS = (
    "instrument",
    "melody",
    "rhythm",
    "dynamics",
    "background",
    "tempo_bpm",
    "start_bar",
    "first_onset_seconds",
    "notes",
)
_CHOICES = {
    "instrument": tuple(INSTRUMENTS),
    "melody": tuple(MELODIES),
    "rhythm": tuple(RHYTHMS),
    "dynamics": tuple(DYNAMICS),
    "background": BACKGROUNDS,
}


@dataclass(frozen=True)
class StrikeParameters:
    controls: Controls
    instrument: str
    melody: str
    rhythm: str
    dynamics: str
    background: str
    tempo_bpm: float
    start_bar: int  # where the melody begins; melodies use of it what they can
    touch: float  # 0 to 1: how velocities vary
    first_onset_seconds: float
    #: (onset_seconds, bar, velocity) of each note instead of melody, rhythm, tempo and dynamics.
    notes: tuple[tuple[float, int, float], ...] | None = None


@dataclass(frozen=True)
class Performance:
    """The notes of the clip; the mallet's hits go one note further, for it is on its way there at the end."""

    row: Row
    notes: tuple[Note, ...]
    hits: tuple[Hit, ...]
    bars_hit: tuple[int, ...]  # of each hit


@register_scene("strike")
class Strike:
    """A melody, the flight of a mallet through its onsets, and the sound of its notes.

    Truth: instrument, melody, rhythm, dynamics, background (names), rhythm_beats, tempo_bpm (all five of the melody
    are None when `notes` is commanded); bars (midi, hz, color, x of the middle, top, width, length); mallet (radius
    and, per frame, x, y of its head, which touches the top of a bar at each onset); events of kind note: bar, midi,
    hz, velocity (0 to 1), level, pan, x, y.
    """

    name: str
    splits = EVERYDAY_SPLITS
    held_out = (
        {"instrument": "bells", "melody": "falling"},
        {"instrument": "marimba", "rhythm": "gallop"},
        {"melody": "trill", "dynamics": "loud"},
        {"instrument": "xylophone", "background": "striped"},
    )

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> StrikeParameters:
        rng = stream(config.seed, config.split, self.name, index, "parameters")

        def draw() -> StrikeParameters:
            controls = draw_controls(config, rng)
            named = {name: pick(rng, choices) for name, choices in _CHOICES.items()}
            return StrikeParameters(
                controls,
                **named,
                tempo_bpm=float(rng.uniform(*TEMPOS[controls.pacing])),
                start_bar=int(rng.integers(BARS)),
                touch=float(rng.random()),
                first_onset_seconds=float(rng.uniform(0.12, 0.32)),
            )

        drawn = draw_for_split(config, draw, _carriers, self.held_out)
        controls, changes = command(drawn.controls, overrides)
        reject_unknown(changes, COMMANDS)
        if controls.pacing != drawn.controls.pacing and "tempo_bpm" not in changes:
            changes["tempo_bpm"] = _same_place(
                drawn.tempo_bpm, TEMPOS[drawn.controls.pacing], TEMPOS[controls.pacing]
            )
        for name, choices in _CHOICES.items():
            check_choice(name, changes.get(name, getattr(drawn, name)), choices)
        if changes.get("notes") is not None:
            changes["notes"] = _checked_notes(changes["notes"])
        result = replace(drawn, controls=controls, **changes)
        check_range("tempo_bpm", result.tempo_bpm, 20.0, 600.0)
        check_range("start_bar", result.start_bar, 0, BARS - 1)
        check_range("first_onset_seconds", result.first_onset_seconds, 0.0, 60.0)
        return result

    def simulate(self, config: ToyboxConfig, parameters: StrikeParameters) -> Performance:
        row = Row(parameters.instrument, *config.world_size)
        lowest = INSTRUMENTS[parameters.instrument].lowest_midi
        plan = _plan(parameters, config.seconds)
        hits = tuple(Hit(onset, row.x(bar), velocity) for onset, bar, velocity in plan)
        notes = tuple(
            Note(
                onset,
                lowest + BAR_SEMITONES[bar],
                velocity,
                bar,
                pan_position(row.x(bar), config.world_size[0]),
            )
            for onset, bar, velocity in plan
            if onset < config.seconds
        )
        return Performance(row, notes, hits, tuple(bar for _, bar, _ in plan))

    def picture(
        self, config: ToyboxConfig, parameters: StrikeParameters, world: Performance, seconds: np.ndarray
    ) -> Picture:
        floor = world.row.floor
        return Picture(
            room(parameters.background, floor), layers(world.row, world.hits, world.bars_hit, seconds)
        )

    def sound(
        self,
        config: ToyboxConfig,
        parameters: StrikeParameters,
        world: Performance,
        rng: np.random.Generator,
    ) -> np.ndarray:
        audio = np.zeros((config.channels, config.samples), np.float32)
        add_notes(audio, list(world.notes), parameters.instrument, config.sample_rate)
        return audio

    def truth(self, config: ToyboxConfig, parameters: StrikeParameters, world: Performance) -> dict[str, Any]:
        row = world.row
        lowest = INSTRUMENTS[parameters.instrument].lowest_midi
        x, height = mallet_path(list(world.hits), config.frame_seconds)
        y = row.top - HEAD_RADIUS - height
        return {
            "instrument": parameters.instrument,
            "melody": parameters.melody if parameters.notes is None else None,
            "rhythm": parameters.rhythm if parameters.notes is None else None,
            "rhythm_beats": list(RHYTHMS[parameters.rhythm]) if parameters.notes is None else None,
            "dynamics": parameters.dynamics if parameters.notes is None else None,
            "tempo_bpm": parameters.tempo_bpm if parameters.notes is None else None,
            "background": parameters.background,
            "bars": [
                {
                    "midi": lowest + semitones,
                    "hz": midi_to_hz(lowest + semitones),
                    "color": list(BAR_COLORS[bar]),
                    "x": row.x(bar),
                    "top": row.top,
                    "width": row.bar_width,
                    "length": row.length(bar),
                }
                for bar, semitones in enumerate(BAR_SEMITONES)
            ],
            "mallet": {"radius": HEAD_RADIUS, "x": x.round(7).tolist(), "y": y.round(7).tolist()},
            "events": [
                {
                    "onset_seconds": note.onset_seconds,
                    "kind": "note",
                    "bar": note.bar,
                    "midi": note.midi,
                    "hz": midi_to_hz(note.midi),
                    "velocity": note.velocity,
                    "level": note_level(note.velocity),
                    "pan": note.pan,
                    "x": row.x(note.bar),
                    "y": row.top,
                }
                for note in world.notes
            ],
            "held_out": met_combinations(_carriers(parameters), self.held_out),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        names = ("instrument", "melody", "rhythm", "dynamics", "background")
        return {name: truth[name] for name in names if truth[name] is not None}

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        said = {name: pick(rng, WORDS[name][value]) for name, value in self.attributes(truth).items()}
        instrument, wall = said["instrument"], said["background"]
        if "melody" not in said:  # commanded note by note
            tune, how = "notes", ""
            label = ["notes"]
        else:
            tune, how = f"a {said['melody']}", f" {said['dynamics']} in {_article(said['rhythm'])}"
            label = [said["melody"], said["rhythm"], said["dynamics"]]
        verb = pick(rng, ("plays", "taps out"))
        article = "" if truth["instrument"] == "bells" else f"{_article(instrument)[: -len(instrument)]}"
        return Phrases(
            label=(instrument, *label, wall),
            subject=str(pick(rng, ("a mallet", "a pink mallet"))),
            action=f"{verb} {tune} on {article}{instrument}{how} in front of {wall}",
            sound=_SOUNDS[truth["instrument"]],
            details=("The bars are coloured by pitch, low on the left, and the struck one lights up.",),
        )


WORDS["instrument"] = {
    "xylophone": ("xylophone",),
    "marimba": ("marimba",),
    "bells": ("bells", "steel bells"),
}
WORDS["melody"] = {
    "rising": ("rising scale", "scale upwards"),
    "falling": ("falling scale", "scale downwards"),
    "chord": ("broken chord", "arpeggio"),
    "trill": ("trill",),
    "repeated": ("repeated note",),
    "zigzag": ("zigzag melody",),
}
WORDS["rhythm"] = {
    "even": ("even rhythm",),
    "dotted": ("dotted rhythm",),
    "gallop": ("galloping rhythm",),
}
WORDS["dynamics"] = {"soft": ("softly", "gently"), "loud": ("loudly", "forcefully")}
_SOUNDS = {
    "xylophone": "Short, dry, bright notes, each at the touch of the mallet.",
    "marimba": "Warm, round, low notes, each at the touch of the mallet.",
    "bells": "Clear high notes that ring on, each at the touch of the mallet.",
}


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _carriers(parameters: StrikeParameters) -> list[dict[str, str]]:
    return [parameters.controls.names() | {name: getattr(parameters, name) for name in _CHOICES}]


def _same_place(value: float, old: tuple[float, float], new: tuple[float, float]) -> float:
    """The value as far up the range `new` as it is up `old`."""
    return new[0] + (value - old[0]) / (old[1] - old[0]) * (new[1] - new[0])


def _plan(parameters: StrikeParameters, seconds: float) -> list[tuple[float, int, float]]:
    """(onset_seconds, bar, velocity) of all notes, and the one after the end of the clip."""
    if parameters.notes is not None:
        return list(parameters.notes)
    beat = 60 / parameters.tempo_bpm
    first = parameters.first_onset_seconds
    written = score(
        parameters.melody,
        parameters.rhythm,
        parameters.dynamics,
        parameters.start_bar,
        parameters.touch,
        max(0.0, (seconds - first) / beat),
    )
    return [(first + note.beat * beat, note.bar, note.velocity) for note in written]


def _checked_notes(notes: Any) -> tuple[tuple[float, int, float], ...]:
    result = []
    last = -1.0
    for onset, bar, velocity in notes:
        check_range("onset_seconds of a note", onset, 0.0)
        check_range("bar of a note", bar, 0, BARS - 1)
        check_range("velocity of a note", velocity, 0.01, 1.0)
        if onset < last + 0.05:
            raise ToyboxError(f"notes: onset {onset} must be at least 0.05 s after the one before, {last}")
        last = float(onset)
        result.append((last, int(bar), float(velocity)))
    if not result:
        raise ToyboxError("notes is empty: give at least one (onset_seconds, bar, velocity)")
    return tuple(result)
