"""Scene `story`: two to four shots of other scenes, cut together; persons and worlds stay who and what they are.

A story has one or two strands, each a scene with its own world. A shot shows the next stretch of a strand; while
the film is elsewhere, a strand's clock stands still, so that a ball goes on where it was left and no word is
lost. Style, light and pacing are the story's; framings change from shot to shot.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sora2.toybox.camera import Camera, CameraMove
from sora2.toybox.captions import Phrases, compose
from sora2.toybox.config import ToyboxConfig, ToyboxError, check_choice
from sora2.toybox.controls import Controls, command, draw_controls
from sora2.toybox.layers import Picture
from sora2.toybox.randomness import pick, stream
from sora2.toybox.render import film
from sora2.toybox.scene import EVERYDAY_SPLITS, MOST_DRAWS, get_scene, register_scene, reject_unknown
from sora2.toybox.styles import Look

#: What a strand can be. `talk` comes first: it carries the identity.
PEOPLE = "talk"
PLACES = ("bounce", "occlude", "cradle", "strike", "street", "weather")
#: angles: one world from several framings; report: a person and a world in turn; dialogue: two persons in turn.
PLOTS = ("angles", "report", "dialogue")
#: Scenes that bring their own background sound.
OWN_AMBIENCE = ("street", "weather")
SHORTEST_SHOT_FRAMES = 6
MOST_SHOTS = 4
#: framing -> (offset of the middle in picture sizes, closeness).
FRAMINGS = {
    "wide": ((0.0, 0.0), 1.0),
    "close": ((0.0, 0.08), 1.35),
    "left": ((-0.12, 0.06), 1.25),
    "right": ((0.12, 0.06), 1.25),
}
FADE_SECONDS = 0.004


@dataclass(frozen=True)
class Shot:
    """Frames first ... last - 1 of the clip show a strand from its own frame `strand_first` on."""

    strand: int
    first: int
    last: int
    strand_first: int
    framing: str


@dataclass(frozen=True)
class StoryParameters:
    controls: Controls
    plot: str
    scenes: tuple[str, ...]  # of the strands
    shots: tuple[Shot, ...]
    strands: tuple[Any, ...]  # parameters of each strand's scene
    indices: tuple[int, ...]  # of each strand's draw


@register_scene("story")
class Story:
    """Worlds are the strands' worlds; pictures, sound and truth are cut from theirs."""

    name: str
    splits = (*EVERYDAY_SPLITS, "cameo")
    held_out: tuple[dict[str, str], ...] = ()  # the strands' scenes hold out theirs

    def sample(self, config: ToyboxConfig, index: int, overrides: dict[str, Any]) -> StoryParameters:
        if config.frames < 2 * SHORTEST_SHOT_FRAMES:
            raise ToyboxError(
                f"frames={config.frames} must be at least {2 * SHORTEST_SHOT_FRAMES} for a story of two shots"
            )
        rng = stream(config.seed, config.split, "story", index, "parameters")
        controls = draw_controls(config, rng)
        plot = pick(rng, PLOTS)
        place, alone = pick(rng, PLACES), bool(rng.random() < 0.3)
        plan = rng.random(MOST_SHOTS + 1)
        framings = [pick(rng, tuple(FRAMINGS)) for _ in range(MOST_SHOTS)]
        controls, rest = command(controls, overrides)
        reject_unknown(rest, ("plot", "place", "shots"))
        plot, place = rest.get("plot", plot), rest.get("place", place)
        check_choice("plot", plot, PLOTS)
        check_choice("place", place, PLACES)
        most = min(MOST_SHOTS, config.frames // SHORTEST_SHOT_FRAMES)
        count = rest.get("shots", 2 + int(plan[0] * (most - 1)))
        if not 2 <= count <= most:
            raise ToyboxError(f"shots={count} must be in [2, {most}] for frames={config.frames}")
        person = config.split == "cameo" or alone
        scenes: tuple[str, ...] = {
            "angles": (PEOPLE,) if person else (place,),
            "report": (PEOPLE, place),
            "dialogue": (PEOPLE, PEOPLE),
        }[plot]
        if any(name in OWN_AMBIENCE for name in scenes):
            controls = replace(controls, ambience="silence")
        shots = _cut(config.frames, count, len(scenes), plan[1:], framings)
        strands, indices, truths = self._strands(config, index, controls, scenes, shots)
        shots = _between_words(shots, truths, config.fps)
        return StoryParameters(controls, plot, scenes, shots, strands, indices)

    def _strands(
        self,
        config: ToyboxConfig,
        index: int,
        controls: Controls,
        scenes: tuple[str, ...],
        shots: tuple[Shot, ...],
    ) -> tuple[tuple[Any, ...], tuple[int, ...], list[dict[str, Any]]]:
        """Draw the strands until the split accepts them under the story's controls."""
        commands = {name: value for name, value in controls.names().items() if name != "camera"}
        for attempt in range(MOST_DRAWS):
            drawn, indices, truths = [], [], []
            for k, name in enumerate(scenes):
                # strands of one scene show different things; people stay the same over the attempts
                turn = 4_000_004 * k + (0 if name == PEOPLE else attempt * 1_000_003)
                scene, own = get_scene(name), strand_config(config, shots, k)
                parameters = scene.sample(own, index + turn, commands)
                truths.append(scene.truth(own, parameters, scene.simulate(own, parameters)))
                drawn.append(parameters)
                indices.append(index + turn)
            met = any(truth["held_out"] for truth in truths)
            if config.split == "cameo" or met == (config.split == "test_compositional"):
                return tuple(drawn), tuple(indices), truths
            if all(name == PEOPLE for name in scenes):
                return tuple(drawn), tuple(indices), truths
        raise ToyboxError(f"split {config.split!r} has no story of {' and '.join(scenes)} under {controls}")

    def simulate(self, config: ToyboxConfig, parameters: StoryParameters) -> tuple[Any, ...]:
        return tuple(
            get_scene(name).simulate(strand_config(config, parameters.shots, k), strand)
            for k, (name, strand) in enumerate(zip(parameters.scenes, parameters.strands, strict=True))
        )

    def picture(
        self, config: ToyboxConfig, parameters: StoryParameters, world: Any, seconds: np.ndarray
    ) -> Picture:
        raise ToyboxError("a story has a picture for each shot: it films itself")

    def film(
        self, config: ToyboxConfig, parameters: StoryParameters, world: Any, look: Look, move: CameraMove
    ) -> tuple[np.ndarray, Camera]:
        frames = np.empty((config.frames, config.height, config.width, 3), np.uint8)
        paths = np.empty((3, config.frames))
        for shot in parameters.shots:
            own = strand_config(config, parameters.shots, shot.strand)
            seconds = np.arange(shot.strand_first, shot.strand_first + shot.last - shot.first) / config.fps
            offset, closeness = FRAMINGS[shot.framing]
            framed = replace(move, offset=offset, closeness=closeness)
            scene = get_scene(parameters.scenes[shot.strand])
            picture_at = functools.partial(
                scene.picture, own, parameters.strands[shot.strand], world[shot.strand]
            )
            frames[shot.first : shot.last] = film(own, look, framed, picture_at, seconds)
            camera = framed.at(config, seconds)
            paths[:, shot.first : shot.last] = [
                np.broadcast_to(path, seconds.size) for path in (camera.x, camera.y, camera.zoom)
            ]
        return frames, Camera(*paths)

    def sound(
        self, config: ToyboxConfig, parameters: StoryParameters, world: Any, rng: np.random.Generator
    ) -> np.ndarray:
        audio = np.zeros((config.channels, config.samples), np.float32)
        tracks = [
            get_scene(name).sound(
                strand_config(config, parameters.shots, k), parameters.strands[k], world[k], rng
            )
            for k, name in enumerate(parameters.scenes)
        ]
        fade = max(1, round(FADE_SECONDS * config.sample_rate))
        for shot in parameters.shots:
            first, last = _sample(config, shot.first), _sample(config, shot.last)
            start = _sample(config, shot.strand_first)
            piece = tracks[shot.strand][:, start : start + last - first].copy()
            if last < config.samples and piece.shape[1] > fade:  # no click at the cut
                piece[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
            audio[:, first : first + piece.shape[1]] = piece
        return audio

    def truth(self, config: ToyboxConfig, parameters: StoryParameters, world: Any) -> dict[str, Any]:
        strands: list[dict[str, Any]] = []
        for k, name in enumerate(parameters.scenes):
            own = strand_config(config, parameters.shots, k)
            truth = get_scene(name).truth(own, parameters.strands[k], world[k])
            controls: Controls = parameters.strands[k].controls
            strands.append(
                {"scene": name, "frames": own.frames, "fps": own.fps, "seconds": own.seconds}
                | controls.names()
                | truth
            )
        shots: list[dict[str, Any]] = []
        events: list[dict[str, Any]] = []
        for number, shot in enumerate(parameters.shots):
            shift = (shot.first - shot.strand_first) / config.fps
            begin, end = shot.first / config.fps, shot.last / config.fps
            shots.append(self._shot_truth(config, parameters, shot, strands[shot.strand], number))
            for event in strands[shot.strand]["events"]:
                onset = event["onset_seconds"] + shift
                if begin <= onset < end:
                    placed = event | {"onset_seconds": onset, "shot": number, "strand": shot.strand}
                    if "end_seconds" in event:
                        placed["end_seconds"] = event["end_seconds"] + shift
                        placed["cut_off"] = placed["end_seconds"] > end + 1e-9
                    events.append(placed)
        identity = next((strand["identity"] for strand in strands if "identity" in strand), None)
        return {
            "plot": parameters.plot,
            "shots": shots,
            "cut_seconds": [shot.first / config.fps for shot in parameters.shots[1:]],
            "strands": strands,
            "events": events,
            "held_out": [met for strand in strands for met in strand["held_out"]],
        } | ({} if identity is None else {"identity": identity})

    def _shot_truth(
        self,
        config: ToyboxConfig,
        parameters: StoryParameters,
        shot: Shot,
        strand: dict[str, Any],
        number: int,
    ) -> dict[str, Any]:
        name = parameters.scenes[shot.strand]
        rng = stream(config.seed, config.split, "story", parameters.indices[0], f"caption of shot {number}")
        controls: Controls = replace(
            parameters.strands[shot.strand].controls, camera=parameters.controls.camera
        )
        return {
            "scene": name,
            "strand": shot.strand,
            "start_seconds": shot.first / config.fps,
            "stop_seconds": shot.last / config.fps,
            "first_frame": shot.first,
            "frames": shot.last - shot.first,
            "strand_first_frame": shot.strand_first,
            "framing": shot.framing,
            "captions": compose(get_scene(name).phrases(strand, rng), controls, rng),
        }

    def attributes(self, truth: dict[str, Any]) -> dict[str, str]:
        return {}

    def phrases(self, truth: dict[str, Any], rng: np.random.Generator) -> Phrases:
        told: list[Phrases] = [get_scene(strand["scene"]).phrases(strand, rng) for strand in truth["strands"]]
        count = {2: "two", 3: "three", 4: "four"}[len(truth["shots"])]
        name = str(pick(rng, (f"a story in {count} shots", f"a sequence of {count} shots")))
        briefs = [f"{phrase.subject} {phrase.action}" for phrase in told]
        details = []
        seen: set[int] = set()
        for number, shot in enumerate(truth["shots"], 1):
            k = shot["strand"]
            again = "back to " if k in seen and len(told) > 1 else ""
            what = told[k].subject if k in seen else briefs[k]
            details.append(f"Shot {number}, {shot['framing']}: {again}{what}.")
            seen.add(k)
        return Phrases(
            label=(f"{count} shots", *(word for phrase in told for word in phrase.label[:2])),
            subject=name,
            action="cuts between " + " and ".join(phrase.subject for phrase in told)
            if len(told) > 1
            else f"shows {told[0].subject} from several sides",
            sound=" ".join(dict.fromkeys(phrase.sound for phrase in told if phrase.sound)),
            details=tuple(details),
        )


def strand_config(config: ToyboxConfig, shots: tuple[Shot, ...], strand: int) -> ToyboxConfig:
    """The clip's config with as many frames as the strand is shown."""
    frames = sum(shot.last - shot.first for shot in shots if shot.strand == strand)
    return replace(config, frames=frames)


def _cut(frames: int, count: int, strands: int, plan: np.ndarray, framings: list[str]) -> tuple[Shot, ...]:
    """`count` shots, strands in turn, each at least `SHORTEST_SHOT_FRAMES` long; no framing twice in a row."""
    spare = frames - count * SHORTEST_SHOT_FRAMES
    share = 0.4 + plan[:count]
    lengths = SHORTEST_SHOT_FRAMES + np.floor(spare * share / share.sum()).astype(int)
    lengths[-1] += frames - lengths.sum()
    shots: list[Shot] = []
    shown = [0] * strands
    names = tuple(FRAMINGS)
    first, before = 0, ""
    for k, length in enumerate(lengths.tolist()):
        strand = k % strands
        framing = framings[k]
        if strands == 1 and framing == before:
            framing = names[(names.index(framing) + 1) % len(names)]
        shots.append(Shot(strand, first, first + length, shown[strand], framing))
        shown[strand] += length
        first, before = first + length, framing
    return tuple(shots)


def _between_words(shots: tuple[Shot, ...], truths: list[dict[str, Any]], fps: float) -> tuple[Shot, ...]:
    """The same shots with cuts moved, within what each strand shows, to where none of its words is being said."""
    lengths = [shot.last - shot.first for shot in shots]
    for strand, truth in enumerate(truths):
        words = [(e["onset_seconds"], e["end_seconds"]) for e in truth["events"] if "end_seconds" in e]
        own = [k for k, shot in enumerate(shots) if shot.strand == strand]
        begin = 0
        for k, following in itertools.pairwise(own):
            stop = begin + lengths[k] + lengths[following]
            free = [
                frame
                for frame in range(begin + SHORTEST_SHOT_FRAMES, stop - SHORTEST_SHOT_FRAMES + 1)
                if not any(start < frame / fps < end for start, end in words)
            ]
            if free:
                wanted = begin + lengths[k]
                frame = min(free, key=functools.partial(_distance, wanted))
                lengths[k], lengths[following] = frame - begin, stop - frame
            begin += lengths[k]
    moved, first, shown = [], 0, [0] * len(truths)
    for shot, length in zip(shots, lengths, strict=True):
        moved.append(replace(shot, first=first, last=first + length, strand_first=shown[shot.strand]))
        first += length
        shown[shot.strand] += length
    return tuple(moved)


def _sample(config: ToyboxConfig, frame: int) -> int:
    return min(config.samples, round(frame / config.fps * config.sample_rate))


def _distance(a: int, b: int) -> int:
    return abs(a - b)
