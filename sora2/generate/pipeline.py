"""Requests -> clips: plans are cut into windows, windows of one shape are batched, sampled and decoded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from sora2.codecs import Codecs
from sora2.codecs.quotes import said_between
from sora2.codecs.text import text_modality
from sora2.diffusion.guidance import guided_velocity
from sora2.diffusion.layout import Layout, NoiseMap
from sora2.diffusion.noise_levels import Trajectory
from sora2.diffusion.samplers import SeededNoise, Step, get_sampler, start_state
from sora2.diffusion.tasks import get_task
from sora2.generate.checkpoint import load_model, make_world, open_codecs, read_checkpoint
from sora2.generate.grid import World
from sora2.generate.plan import plan
from sora2.generate.request import Request
from sora2.generate.streaming import StreamedSampler
from sora2.generate.window import Plan, Window
from sora2.kernels import PRODUCTS
from sora2.model import Transformer
from sora2.model.cache import KVCache
from sora2.model.streaming import Film
from sora2.types import AudioShape, Batch, Clip, Modality, VideoShape, clean_modality

OnStep = Callable[[Step, list[Window]], None]


class Pipeline:
    """A model with its codecs, ready to meet requests.

    Noise is drawn per request from its seed, so a request gives the same clip alone and among others, up to
    the rounding of the matrix products of another batch size.
    """

    def __init__(
        self,
        model: Transformer,
        codecs: Codecs,
        world: World,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
        info: dict[str, Any] | None = None,
    ) -> None:
        """`dtype` is the precision of the network's matrix products (autocast); sampling itself is float32.
        `batch_size` windows at most are sampled at once. `info` describes the checkpoint, for records."""
        self.model, self.codecs, self.world = model, codecs, world
        self.device, self.dtype, self.batch_size = torch.device(device), dtype, batch_size
        self.info = {} if info is None else info

    @classmethod
    def from_checkpoint(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        device_map: str | dict[str, Any] | None = None,
        max_memory: dict[Any, Any] | None = None,
        offload_folder: str | None = None,
        video_codec: str | None = None,
        audio_codec: str | None = None,
        batch_size: int = 8,
    ) -> Pipeline:
        """Raises CheckpointError, CodecError or ConfigError when parts are missing or do not fit each other."""
        checkpoint = read_checkpoint(folder)
        codecs = open_codecs(checkpoint, video_codec, audio_codec).to(device)
        world = make_world(checkpoint, codecs)
        weights_dtype = dtype if device_map is not None else torch.float32
        model = load_model(checkpoint, device, weights_dtype, device_map, max_memory, offload_folder)
        info = {
            "checkpoint": str(checkpoint.folder),
            "checkpoint_sha256": checkpoint.sha256(),
            "samples_seen": checkpoint.config.get("samples_seen"),
            "codec_fingerprints": codecs.fingerprints(),
            "dtype": next((name for name, d in PRODUCTS.items() if d == dtype), str(dtype)),
        }
        return cls(model, codecs, world, device=device, dtype=dtype, batch_size=batch_size, info=info)

    def generate(
        self, requests: list[Request], *, progress: bool = False, on_step: OnStep | None = None
    ) -> list[Clip]:
        """One clip per request, in order. `on_step` is called after every sampling step of every group of
        windows.

        Raises:
            RequestError, MediaError: a request cannot be met; all are checked before anything is sampled.
        """
        plans: list[Plan] = [plan(request, self.world) for request in requests]
        finished: dict[int, Clip] = {}
        waiting = {i: next(p) for i, p in enumerate(plans)}
        while waiting:
            asked = {(i, k): window for i, windows in waiting.items() for k, window in enumerate(windows)}
            made: dict[tuple[int, int], Clip] = {}
            for group in self._groups(asked):
                windows = [asked[place] for place in group]
                made.update(zip(group, self._sample(windows, progress, on_step), strict=True))
            going_on: dict[int, list[Window]] = {}
            for i, windows in waiting.items():
                try:
                    going_on[i] = plans[i].send([made[i, k] for k in range(len(windows))])
                except StopIteration as done:
                    finished[i] = done.value
            waiting = going_on
        return [finished[i] for i in range(len(plans))]

    def _groups(self, asked: dict[tuple[int, int], Window]) -> list[list[tuple[int, int]]]:
        """Windows that fit into one batch, at most `batch_size` each."""

        def alike(w: Window) -> tuple[Any, ...]:
            return w.frames, w.video, w.audio, w.grid, w.sampling, w.streamed, w.person is None

        groups: list[list[tuple[int, int]]] = []
        for i, w in asked.items():
            for group in groups:
                same = alike(asked[group[0]]) == alike(w)
                if same and len(group) < self.batch_size:
                    group.append(i)
                    break
            else:
                groups.append([i])
        return groups

    @torch.inference_mode()
    def _sample(self, windows: list[Window], progress: bool, on_step: OnStep | None) -> list[Clip]:
        first = windows[0]
        shapes = self.shapes(first)
        maps = [self._noise_map(w, shapes) for w in windows]
        noise_map = NoiseMap(
            *(
                {n: torch.cat([getattr(m, part)[n] for m in maps]) for n in shapes}
                for part in ("start", "delay", "present")
            )
        )
        sampling = first.sampling
        trajectory = Trajectory(noise_map, sampling.steps, sampling.shift, sampling.delay)
        clean = self._encode(windows, shapes)  # per stream (B, N, C), zeros where nothing is known
        sizes = {n: (shape.tokens, shape.token_width) for n, shape in shapes.items()}
        noise = SeededNoise([w.seed for w in windows], sizes, self.device)
        state = start_state(clean, noise(), trajectory)

        batch = Batch(
            **{
                n: clean_modality(clean[n], shapes[n].positions(), noise_map.present[n].to(self.device))
                for n in shapes
            },
            **{f"{n}_shape": shape for n, shape in shapes.items()},
            **self._references(windows, shapes),
        )
        prompts = [[w.prompt for w in windows]]
        if first.streamed:
            prompts = self._told(windows, Film.of(batch, self.model.config.attention))
        texts, negative = self._text(prompts, windows)
        batch = batch.replace(text=texts[0])
        film = Film.of(batch, self.model.config.attention) if first.streamed else None
        with tqdm(
            total=trajectory.steps * (1 if film is None else len(film.chunks)),
            desc=_title(windows),
            unit="step",
            disable=not progress,
            leave=False,
        ) as bar:

            def report(step: Step) -> None:
                bar.update()
                if on_step is not None:
                    on_step(step, windows)

            if film is None:
                velocity = guided_velocity(self._network, batch, sampling.guidance, negative)
                state = get_sampler(sampling.sampler)(velocity, state, trajectory, noise, report)
            else:
                streamed = StreamedSampler(
                    self._network,
                    self.model.config,
                    film,
                    batch,
                    texts,
                    negative,
                    sampling,
                    self.world.seconds,
                )
                state = streamed(clean, noise_map, [w.seed for w in windows], report)
        return [self._decode({n: x[i] for n, x in state.items()}, shapes) for i in range(len(windows))]

    def _network(
        self, batch: Batch, cache: KVCache | None = None, skip: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(batch, cache, skip)

    def shapes(self, window: Window) -> dict[str, VideoShape | AudioShape]:
        """Of the streams that a window has."""
        grid = window.grid
        patch_size = self.world.cell // self.codecs.video.spatial_stride
        video = self.codecs.video_shape(
            window.frames, grid.height, grid.width, grid.fps, patch_size=patch_size
        )
        found: dict[str, VideoShape | AudioShape] = {}
        if window.video:
            found["video"] = video
        if window.audio:
            found["audio"] = self.codecs.audio_shape(video.seconds)
        return found

    def _noise_map(self, window: Window, shapes: dict[str, Any]) -> NoiseMap:
        layout = Layout.of(shapes.get("video"), shapes.get("audio"))
        return get_task(window.task)(
            layout, 1, {n: value.unsqueeze(0) for n, value in window.arguments.items()}
        )

    def _encode(self, windows: list[Window], shapes: dict[str, Any]) -> dict[str, Tensor]:
        clean = {
            n: torch.zeros(len(windows), shape.tokens, shape.token_width, device=self.device)
            for n, shape in shapes.items()
        }
        for row, window in enumerate(windows):
            if window.source.video is None and window.source.audio is None:
                continue
            for n, latent in self.codecs.encode_clip(window.source).items():
                if n in shapes:
                    clean[n][row] = shapes[n].tokenize(latent.float().to(self.device))
        return clean

    def _references(self, windows: list[Window], shapes: dict[str, Any]) -> dict[str, Modality]:
        """Faces and voices, padded where a window has none, or a shorter one; nothing where none has any."""
        latents = [{} if w.person is None else self.codecs.encode_clip(w.person) for w in windows]
        found = {}
        for n in shapes:
            rows: list[Tensor | None] = []
            places: list[Tensor] = []
            for w, latent in zip(windows, latents, strict=True):
                if n not in latent:
                    rows.append(None)
                    continue
                assert w.person is not None
                shape = shapes[n].still if n == "video" else self.codecs.audio_shape(w.person.audio_seconds)
                rows.append(shape.tokenize(latent[n].float()))  # (n, C)
                places.append(shape.positions())
            if places:
                longest = max(places, key=len)
                tokens = torch.zeros(len(rows), len(longest), shapes[n].token_width)
                mask = torch.zeros(len(rows), len(longest), dtype=torch.bool)
                for row, given in enumerate(rows):
                    if given is not None:
                        tokens[row, : len(given)], mask[row, : len(given)] = given, True
                found[f"reference_{n}"] = clean_modality(
                    tokens.to(self.device), longest, mask.to(self.device)
                )
        return found

    def _told(self, windows: list[Window], film: Film) -> list[list[str]]:
        """Of each chunk of a film what the windows are told, on the clock of the chunk."""
        prompts, world = [], self.world
        assert world.chunk_seconds is not None
        for at, chunk in enumerate(film.chunks):
            told = [w.told(chunk.index, world.chunk_seconds) for w in windows]
            if world.reads_times:
                begin = film.clock(at, world.seconds)
                told = [said_between(prompt, begin, begin + world.seconds) for prompt in told]
            prompts.append(told)
        return prompts

    def _text(
        self, prompts: list[list[str]], windows: list[Window]
    ) -> tuple[list[Modality], Modality | None]:
        """Text of each list of prompts, one for a window, the same object for the same list; and the negative prompts
        if there is one. All have as many tokens. An empty text is none: its tokens are hidden."""
        negatives = [w.negative_prompt for w in windows]
        assert self.codecs.text is not None
        away = tuple("" if n is None else n for n in negatives)
        lists = dict.fromkeys([*map(tuple, prompts), away])
        texts = [text for some in lists for text in some]
        for text in dict.fromkeys(texts):
            if left := self.codecs.text.unread(text):
                warnings.warn(
                    f"the text encoder reads {self.codecs.text.max_tokens} tokens, "
                    f"and not {left!r} of {text!r}; say less",
                    stacklevel=2,
                )
        everything = text_modality(self.codecs.text, texts, self.device)  # (lists * B, L, D)
        given = torch.tensor([bool(t.strip()) for t in texts], device=self.device)
        everything = everything.replace(mask=everything.mask & given[:, None])
        parts = (everything.latent, everything.positions, everything.noise_level, everything.mask)
        found = {
            some: Modality(*rows)
            for some, *rows in zip(lists, *(part.split(len(windows)) for part in parts), strict=True)
        }
        negative = found[away] if any(n is not None for n in negatives) else None
        return [found[tuple(some)] for some in prompts], negative

    def _decode(self, tokens: dict[str, Tensor], shapes: dict[str, Any]) -> Clip:
        latents = {n: shapes[n].untokenize(x) for n, x in tokens.items()}
        return self.codecs.decode_clip(
            latents.get("video"), latents.get("audio"), shapes.get("video"), shapes.get("audio")
        )


def _title(windows: list[Window]) -> str:
    return f"{windows[0].task}, {len(windows)} clip{'s' if len(windows) > 1 else ''}"
