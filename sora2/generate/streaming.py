"""Sampling a long clip from a causal model: chunk after chunk, each seeing what is finished through a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from sora2.diffusion.guidance import FEWER_LAYERS, branches, guide, without
from sora2.diffusion.layout import STREAMS, NoiseMap
from sora2.diffusion.noise_levels import Trajectory
from sora2.diffusion.samplers import OnStep, SeededNoise, State, Step, get_sampler, start_state
from sora2.generate.request import SamplingConfig
from sora2.model.config import TransformerConfig
from sora2.model.streaming import Chunk, Film, Stream
from sora2.types import Batch, Modality


class StreamedSampler:
    """One film of one batch of requests. Every version of the batch that guidance compares (without the text, without
    the other stream, with fewer layers) has a cache of its own, whose past is of the same version."""

    def __init__(
        self,
        network: Callable[..., dict[str, Tensor]],
        config: TransformerConfig,
        film: Film,
        batch: Batch,
        texts: Sequence[Modality],
        negative: Modality | None,
        sampling: SamplingConfig,
        history_seconds: float,
    ) -> None:
        """`network` takes a batch, a cache and layers to skip. `batch` is of the whole film, its conditions included;
        `texts` what each chunk is told, the same object where that is the same; `negative` the text that guidance
        pushes away from.
        `history_seconds` is the longest stretch of film that the model attends over: that of its training."""
        self.film, self.batch, self.negative, self.sampling = film, batch, negative, sampling
        acts = {n: True for n in STREAMS if getattr(batch, n) is not None}
        told = {
            id(text): branches(batch.replace(text=text), sampling.guidance, negative, acts) for text in texts
        }
        weaker = partial(network, skip=sampling.guidance.skip_layers)
        self.streams = {
            name: Stream(
                weaker if name == FEWER_LAYERS else network,
                config,
                film,
                [told[id(text)][name] for text in texts],
                history_seconds,
            )
            for name in told[id(texts[0])]
        }

    def __call__(
        self, clean: State, noise_map: NoiseMap, seeds: list[int], on_step: OnStep | None = None
    ) -> State:
        """Fill in every token whose start level is above 0; `clean` (B, N, C) per stream holds the others.

        A step is reported with the state of the whole film so far.
        """
        film = {n: x.float().clone() for n, x in clean.items()}
        for at, chunk in enumerate(self.film.chunks):
            made = self._sample(at, chunk, film, noise_map, seeds, on_step)
            film = place(film, chunk, made)
            finished = _with_latents(chunk.take(self.batch), made)
            for name, stream in self.streams.items():
                stream.advance(_hide(name, finished))
        return film

    def _sample(
        self,
        at: int,
        chunk: Chunk,
        film: State,
        noise_map: NoiseMap,
        seeds: list[int],
        on_step: OnStep | None,
    ) -> State:
        """The chunk's tokens, denoised."""
        known = chunk.of(film)
        parts = NoiseMap(chunk.of(noise_map.start), chunk.of(noise_map.delay), chunk.of(noise_map.present))
        if not any(bool((start > 0).any()) for start in parts.start.values()):
            return known
        sampling = self.sampling
        trajectory = Trajectory(parts, sampling.steps, sampling.shift, sampling.delay)
        own = [chunk_seed(seed, at) for seed in seeds]
        shapes = {n: (x.shape[1], x.shape[2]) for n, x in known.items()}
        noise = SeededNoise(own, shapes, next(iter(known.values())).device)

        def report(step: Step) -> None:
            if on_step is not None:
                index, steps = at * step.steps + step.index, len(self.film.chunks) * step.steps
                on_step(Step(index, steps, place(film, chunk, step.state), place(film, chunk, step.denoised)))

        velocity = guide(self.evaluate, chunk.take(self.batch), sampling.guidance, self.negative)
        state = start_state(known, noise(), trajectory)
        return get_sampler(sampling.sampler)(velocity, state, trajectory, noise, report)

    def evaluate(self, versions: dict[str, Batch]) -> dict[str, State]:
        """Velocities of the current chunk, each version against its own cache."""
        return {name: self.streams[name](version) for name, version in versions.items()}


def chunk_seed(seed: int, chunk: int) -> int:
    """That of the noise of a film's `chunk`-th chunk: another step than from window to window, so that no two agree."""
    return (seed + 0x1F83D9ABFB41BD6B * chunk) % 2**62


def place(film: State, chunk: Chunk, values: State) -> State:
    """A copy of the film's tokens with those of a chunk replaced."""
    result = dict(film)
    for n, x in values.items():
        result[n] = film[n].index_copy(1, chunk.tokens[n].to(x.device), x)
    return result


def _with_latents(batch: Batch, latents: dict[str, Tensor]) -> Batch:
    return batch.replace(**{n: getattr(batch, n).replace(latent=x) for n, x in latents.items()})


def _hide(version: str, batch: Batch) -> Batch:
    """The batch as a version of guidance knows it; its text is in the cache."""
    for n in STREAMS:
        if version == f"no {n}" and getattr(batch, n) is not None:
            return batch.replace(**{n: without(getattr(batch, n))})
    return batch
