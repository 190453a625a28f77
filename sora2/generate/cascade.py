"""Pictures by one checkpoint and sound by another: the cascade and the pair of strangers that a joint model is compared
with."""

from __future__ import annotations

from sora2.codecs import Codecs
from sora2.generate.checkpoint import CheckpointError
from sora2.generate.grid import World
from sora2.generate.pipeline import Pipeline
from sora2.generate.request import Request, RequestError, resolve_task
from sora2.types import Clip

#: How the second checkpoint makes the sound: for the pictures of the first, or from the words alone.
SOUND_TASKS = ("video_to_audio", "audio_only")


class Cascade:
    """Two pipelines that meet text-to-audio-video requests as one does."""

    def __init__(self, pictures: Pipeline, sound: Pipeline, sound_task: str = SOUND_TASKS[0]) -> None:
        """Raises CheckpointError when the two were trained on clips of another size or rate."""
        if sound_task not in SOUND_TASKS:
            raise RequestError(f"sound_task={sound_task!r}: choose from {', '.join(SOUND_TASKS)}")
        if (pictures.world.grid, pictures.world.frames) != (sound.world.grid, sound.world.frames):
            raise CheckpointError(
                f"the checkpoint of the pictures makes {pictures.world.frames} frames of {pictures.world.grid}, that "
                f"of the sound {sound.world.frames} of {sound.world.grid}: train both on the same clips"
            )
        self.pictures, self.sound, self.sound_task = pictures, sound, sound_task
        self.batch_size = pictures.batch_size
        self.info = {
            **pictures.info,
            "checkpoint_sha256": "+".join(str(p.info.get("checkpoint_sha256")) for p in (pictures, sound)),
            "sound_checkpoint": sound.info.get("checkpoint"),
            "sound_task": sound_task,
        }

    @property
    def codecs(self) -> Codecs:
        return self.pictures.codecs

    @property
    def world(self) -> World:
        return self.pictures.world

    def generate(self, requests: list[Request]) -> list[Clip]:
        """One clip per request, in order.

        Raises:
            RequestError: a request for anything but text to video with sound.
        """
        for request in requests:
            if resolve_task(request) != "text_to_av":
                raise RequestError("two checkpoints in a row make clips from words alone")
        seen = self.pictures.generate([request.replace(silent=True) for request in requests])
        heard = self.sound.generate(
            [
                request.replace(video=clip)
                if self.sound_task == "video_to_audio"
                else request.replace(task="audio_only")
                for request, clip in zip(requests, seen, strict=True)
            ]
        )
        return [
            clip.replace(audio=other.audio, sample_rate=other.sample_rate)
            for clip, other in zip(seen, heard, strict=True)
        ]
