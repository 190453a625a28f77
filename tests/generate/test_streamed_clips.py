"""Long clips of a causal checkpoint: streamed through a cache, equal to computing the whole film at every step."""

import pytest
import torch
from tiny import film as make_film
from tiny import save_checkpoint

from sora2.config import from_mapping
from sora2.diffusion.guidance import GuidanceConfig, guided_velocity
from sora2.diffusion.layout import NoiseMap
from sora2.diffusion.noise_levels import Trajectory
from sora2.diffusion.samplers import SeededNoise, euler, start_state
from sora2.generate import Pipeline, Request
from sora2.generate.request import SamplingConfig
from sora2.generate.streaming import StreamedSampler, chunk_seed, place
from sora2.model.config import AttentionConfig
from sora2.model.streaming import Film
from sora2.types import Batch, clean_modality

CHUNK = 0.5


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    layers = ({"window": (3, 1, 1), "video_hears_seconds": 0.3}, {})
    attention = {"chunk_seconds": CHUNK, "tile": (1, 1, 2), "flat_tile": 8}
    config = from_mapping(AttentionConfig, {**attention, "layers": layers})
    return Pipeline.from_checkpoint(save_checkpoint(tmp_path_factory.mktemp("causal"), attention=config))


def _film(pipeline, frames=17, known=4):
    """A batch of one request, its clean tokens (the first frame's are known) and its noise map."""
    video = pipeline.codecs.video_shape(frames, 32, 32, 8.0, patch_size=2)
    audio = pipeline.codecs.audio_shape(video.seconds)
    g = torch.Generator().manual_seed(0)
    words = torch.randn(1, 4, pipeline.codecs.text.width, generator=g)
    shapes = {"video": video, "audio": audio}
    clean = {n: torch.randn(1, s.tokens, s.token_width, generator=g) for n, s in shapes.items()}
    start = {n: torch.ones(1, s.tokens) for n, s in shapes.items()}
    start["video"][:, :known] = 0.0
    zero = {n: torch.zeros_like(x) for n, x in start.items()}
    present = {n: torch.ones_like(x, dtype=torch.bool) for n, x in start.items()}
    batch = Batch(
        text=clean_modality(words, torch.zeros(4, 3)),
        **{n: clean_modality(clean[n], s.positions()) for n, s in shapes.items()},
        video_shape=video,
        audio_shape=audio,
    )
    return batch, clean, NoiseMap(start, zero, present)


@pytest.mark.parametrize(
    ("modality", "reference", "skip"), [(1.0, 1.0, 1.0), (1.5, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.0, 2.0)]
)
def test_streamed_sampling_equals_sampling_with_the_whole_film_at_every_step(
    pipeline, modality, reference, skip
):
    batch, clean, noise_map = _film(pipeline)
    if reference != 1:
        voice = torch.randn(1, 6, clean["audio"].shape[2], generator=torch.Generator().manual_seed(8))
        batch = batch.replace(reference_audio=clean_modality(voice, batch.audio.positions[:, :6]))
    scales = (
        {"video": 3.0, "audio": 2.0},
        *(dict.fromkeys(("video", "audio"), x) for x in (modality, reference)),
    )
    guidance = GuidanceConfig(*scales, skip={"video": 1.0, "audio": skip}, skip_layers=(1,))
    sampling = SamplingConfig("euler", 2, guidance)
    model, film = pipeline.model, Film.of(batch, pipeline.model.config.attention)
    with torch.inference_mode():
        streamed = StreamedSampler(
            model, model.config, film, batch, [batch.text] * len(film.chunks), None, sampling, 100.0
        )
        got = streamed(clean, noise_map, [5])

        whole = guided_velocity(model, batch, guidance)
        state = {n: x.clone() for n, x in clean.items()}
        for at, chunk in enumerate(film.chunks):
            parts = NoiseMap(*(chunk.of(x) for x in (noise_map.start, noise_map.delay, noise_map.present)))
            trajectory = Trajectory(parts, sampling.steps, sampling.shift)

            def velocity(now, levels, chunk=chunk, state=state):
                film_levels = {n: torch.zeros(x.shape[:2]) for n, x in state.items()}
                return chunk.of(whole(place(state, chunk, now), place(film_levels, chunk, levels)))

            noise = SeededNoise(
                [chunk_seed(5, at)],
                {n: tuple(x.shape[1:]) for n, x in chunk.of(state).items()},
            )
            start = start_state(chunk.of(state), noise(), trajectory)
            state = place(state, chunk, euler(velocity, start, trajectory, noise))
    assert torch.equal(got["video"][:, :4], clean["video"][:, :4])  # known tokens keep their bits
    for n in got:
        assert not torch.allclose(got[n][:, 4:], clean[n][:, 4:])
        torch.testing.assert_close(got[n], state[n], rtol=1e-3, atol=1e-4)


def test_a_long_clip_is_one_stream(pipeline):
    seen = []
    clip = pipeline.generate(
        [Request(prompt="rain", seconds=5.0, seed=3)], on_step=lambda step, w: seen.append((step, w))
    )[0]
    assert clip.video.shape[0] == 40 and clip.audio.shape[1] == 40000
    steps = [step.index for step, _ in seen]
    assert steps == list(range(seen[0][0].steps))
    assert {w[0].frames for _, w in seen} == {41}  # no windows
    again = pipeline.generate([Request(prompt="rain", seconds=5.0, seed=3)])[0]
    assert torch.equal(clip.video, again.video) and torch.equal(clip.audio, again.audio)


def test_the_past_does_not_depend_on_how_long_the_clip_becomes(pipeline):
    """Streaming: what was made stays, however far the film goes on (up to the codec, which looks ahead in sound)."""
    short, long = (
        pipeline.generate([Request(prompt="rain", seconds=seconds, seed=3)])[0] for seconds in (4.0, 6.0)
    )
    assert (short.video[:28].int() - long.video[:28].int()).abs().max() <= 1


def test_a_clip_is_extended_by_streaming(pipeline):
    source = make_film(17)
    clip = pipeline.generate([Request(prompt="rain", video=source, extend="forward", seconds=3.0)])[0]
    assert clip.video.shape[0] == 17 + 24
    assert torch.equal(clip.video[:17], source.video)


def test_a_window_of_the_trained_length_is_sampled_at_once(pipeline):
    seen = []
    pipeline.generate([Request(prompt="rain")], on_step=lambda step, _: seen.append(step.steps))
    assert seen == [3, 3, 3]
