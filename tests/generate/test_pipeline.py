"""Every task end to end on a tiny random model: the known is kept exactly, the rest is new, seeds repeat."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import CLIP, film, save_checkpoint

from sora2.atomic import save_safetensors
from sora2.codecs import CodecError
from sora2.diffusion.flow import velocity_from_clean
from sora2.diffusion.guidance import GuidanceConfig
from sora2.generate import CheckpointError, Pipeline, Request, RequestError, SamplingConfig
from sora2.generate.plan import plan
from sora2.types import Clip

PLAIN = SamplingConfig(sampler="euler", steps=3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def pipeline(checkpoint):
    return Pipeline.from_checkpoint(checkpoint)


def one(pipeline, **request):
    return pipeline.generate([Request(**{"sampling": PLAIN, **request})])[0]


def differs(a, b):
    return (a != b).float().mean() > 0.5


def test_text_to_av_has_the_trained_shape_and_follows_seed_and_prompt(pipeline):
    clip = one(pipeline, prompt="a red ball", seed=3)
    assert clip.video.shape == (17, 32, 32, 3) and clip.fps == 8.0
    assert clip.audio.shape == (2, 17000) and clip.sample_rate == 8000
    again = one(pipeline, prompt="a red ball", seed=3)
    assert torch.equal(clip.video, again.video) and torch.equal(clip.audio, again.audio)
    assert not torch.equal(one(pipeline, prompt="a red ball", seed=4).audio, clip.audio)
    assert not torch.equal(one(pipeline, prompt="a blue ball", seed=3).audio, clip.audio)


def test_a_network_that_knows_the_answer_gives_the_codecs_round_trip(checkpoint):
    pipeline = Pipeline.from_checkpoint(checkpoint)
    latents = pipeline.codecs.encode_clip(film())
    shapes = {
        "video": pipeline.codecs.video_shape(17, 32, 32, 8.0, patch_size=2),
        "audio": pipeline.codecs.audio_shape(17 / 8),
    }
    truth = {n: shape.tokenize(latents[n]).unsqueeze(0) for n, shape in shapes.items()}

    def oracle(batch, cache, skip):
        streams = {n: getattr(batch, n) for n in truth}
        return {n: velocity_from_clean(m.latent, truth[n], m.noise_level) for n, m in streams.items()}

    pipeline.model = oracle
    clip = one(pipeline)
    expected = pipeline.codecs.decode_clip(
        latents["video"], latents["audio"], shapes["video"], shapes["audio"]
    )
    assert (clip.video.int() - expected.video.int()).abs().max() <= 1
    assert torch.allclose(clip.audio, expected.audio, atol=1e-4)


@pytest.mark.parametrize("seconds", [1.0, 2.0, 2.125])
def test_length_is_what_was_asked(pipeline, seconds):
    clip = one(pipeline, seconds=seconds)
    assert clip.video.shape[0] == round(seconds * 8) and clip.audio.shape[1] == round(seconds * 8000)


def test_other_size_and_rate_need_no_other_model(pipeline):
    clip = one(pipeline, size=(48, 32), fps=16.0, seconds=1.0)
    assert clip.video.shape == (16, 48, 32, 3) and clip.fps == 16.0 and clip.audio.shape[1] == 8000


@pytest.mark.parametrize(("fps", "frames"), [(8.0, 17), (16.0, 17), (4.0, 5), (6.5, 13)])
def test_at_a_lower_rate_windows_last_no_longer_than_in_training(pipeline, fps, frames):
    windows = next(plan(Request(fps=fps, seconds=5.0), pipeline.world))
    assert windows[0].frames == frames
    assert windows[0].frames <= pipeline.world.seconds * fps or fps > 8
    assert one(pipeline, fps=fps).video.shape[0] == frames


def test_a_prompt_that_is_not_read_to_its_end_is_told(pipeline):
    long = "rain " * 40
    with pytest.warns(UserWarning, match="reads 128 tokens, and not 'n rain rain .*; say less"):
        one(pipeline, prompt=long)


def test_grey_of_sixteen_bits_keeps_its_shades(pipeline, tmp_path):
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    first = one(pipeline, image=tmp_path / "deep.png").video[0, ..., 0].numpy()
    assert np.abs(first - ramp / 257).max() <= 1
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(RequestError, match=r"--image: .*floats\.tiff has numbers of 32 bits"):
        one(pipeline, image=tmp_path / "floats.tiff")


@pytest.mark.parametrize(
    "given", [{"video": True}, {"video": True, "extend": "forward"}, {"audio": True}, {"seconds": 2.0}]
)
def test_a_checkpoint_of_single_pictures_says_so(pipeline, given):
    world = replace(pipeline.world, frames=1)
    request = Request(**{k: film() if v is True else v for k, v in given.items()})
    with pytest.raises(RequestError, match="makes single pictures only"):
        next(plan(request, world))
    assert next(plan(Request(prompt="rain"), world))[0].frames == 1


def test_inpainting_the_beginning_of_a_long_film(pipeline):
    clip = one(pipeline, video=film(40), mask=(0.0, 0.0, 0.5, 1.0), seconds=2.0)
    assert clip.video.shape[0] == 16


def test_video_to_audio_returns_the_frames_untouched(pipeline):
    source = film()
    clip = one(pipeline, video=source)
    assert torch.equal(clip.video, source.video)
    assert clip.audio.shape == source.audio.shape and differs(clip.audio, source.audio)


def test_sound_made_for_a_film_depends_on_the_film(pipeline):
    assert not torch.equal(one(pipeline, video=film(seed=0)).audio, one(pipeline, video=film(seed=1)).audio)


def test_audio_to_video_returns_the_sound_untouched(pipeline):
    source = film()
    clip = one(pipeline, audio=source)
    assert torch.equal(clip.audio, source.audio) and differs(clip.video, source.video)


def test_image_to_av_starts_with_the_image(pipeline):
    source = film()
    clip = one(pipeline, image=source)
    assert torch.equal(clip.video[0], source.video[0]) and differs(clip.video[1:], source.video[1:])


@pytest.mark.parametrize("seconds", [0.5, 1.0, 4.0])
def test_extension_keeps_the_source_and_adds_what_was_asked(pipeline, seconds):
    source, more = film(13), round(seconds * 8)
    forward = one(pipeline, video=source, extend="forward", seconds=seconds)
    assert forward.video.shape[0] == 13 + more and forward.audio.shape[1] == (13 + more) * 1000
    assert torch.equal(forward.video[:13], source.video) and torch.equal(
        forward.audio[:, :13000], source.audio
    )
    backward = one(pipeline, video=source, extend="backward", seconds=seconds)
    assert backward.video.shape[0] == 13 + more
    assert torch.equal(backward.video[more:], source.video)
    assert torch.equal(backward.audio[:, more * 1000 :], source.audio)


def test_extension_continues_its_source(pipeline):
    first = one(pipeline, video=film(seed=0), extend="forward", seconds=1.0)
    second = one(pipeline, video=film(seed=1), extend="forward", seconds=1.0)
    assert not torch.equal(first.video[17:], second.video[17:])


def test_loop_is_the_source_and_a_bridge(pipeline):
    source = film()
    clip = one(pipeline, video=source, loop=True, seconds=1.0)
    assert clip.video.shape[0] == 17 + 8 and clip.audio.shape[1] == 25000
    assert torch.equal(clip.video[:17], source.video) and torch.equal(clip.audio[:, :17000], source.audio)


def test_inbetween_keeps_both_ends(pipeline):
    a, b = film(9, seed=0), film(12, seed=1)
    clip = one(pipeline, video=a, video_end=b, seconds=1.0)
    assert clip.video.shape[0] == 9 + 8 + 12
    assert torch.equal(clip.video[:9], a.video) and torch.equal(clip.video[17:], b.video)
    assert torch.equal(clip.audio[:, :9000], a.audio) and torch.equal(clip.audio[:, 17000:], b.audio)


def test_inpainting_a_region_keeps_pixels_outside_and_the_sound(pipeline):
    source = film()
    clip = one(pipeline, video=source, mask=(0.25, 0.25, 0.75, 0.5))
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:24, 8:16] = True
    assert torch.equal(clip.video[:, ~inside], source.video[:, ~inside])
    assert differs(clip.video[:, inside], source.video[:, inside])
    assert torch.equal(clip.audio, source.audio)


def test_inpainting_a_time_span_renews_both_streams_there_only(pipeline):
    source = film()
    clip = one(pipeline, video=source, time_span=(0.5, 1.0))
    assert torch.equal(clip.video[:4], source.video[:4]) and torch.equal(clip.video[8:], source.video[8:])
    assert differs(clip.video[4:8], source.video[4:8])
    assert torch.equal(clip.audio[:, :4000], source.audio[:, :4000])
    assert torch.equal(clip.audio[:, 8000:], source.audio[:, 8000:])
    assert differs(clip.audio[:, 4000:8000], source.audio[:, 4000:8000])


def test_inpainting_a_span_of_a_long_film(pipeline):
    source = film(60)
    clip = one(pipeline, video=source, time_span=(5.0, 6.0))
    assert torch.equal(clip.video[:40], source.video[:40]) and torch.equal(clip.video[48:], source.video[48:])
    with pytest.raises(RequestError, match="--time-span"):
        one(pipeline, video=source, mask=(0.0, 0.0, 0.5, 0.5))


def test_weak_remix_stays_closer_to_the_codec_round_trip(pipeline):
    source = film()
    latents = pipeline.codecs.encode_clip(source)
    shapes = pipeline.codecs.video_shape(17, 32, 32, 8.0, patch_size=2), pipeline.codecs.audio_shape(17 / 8)
    kept = pipeline.codecs.decode_clip(latents["video"], latents["audio"], *shapes)

    def distance(strength):
        clip = one(pipeline, video=source, strength=strength)
        return (clip.video.float() - kept.video.float()).abs().mean()

    assert distance(0.05) < distance(0.5) < distance(1.0)


@pytest.mark.parametrize("task", ["text_to_av", "audio_only", "staircase"])
def test_longer_than_trained_is_made_in_chunks(pipeline, task):
    clip = one(pipeline, task=task, seconds=6.0)
    assert clip.audio.shape[1] == 48000 and clip.audio.abs().sum(0)[-100:].gt(0).any()
    assert (clip.video is None) == (task == "audio_only")
    if clip.video is not None:
        assert clip.video.shape[0] == 48
        short = one(pipeline, task=task)
        assert torch.equal(clip.video[:17], short.video)  # the first window is the short clip


def test_sound_for_a_film_longer_than_trained(pipeline):
    source = film(40, sound=False)
    clip = one(pipeline, video=source)
    assert torch.equal(clip.video, source.video) and clip.audio.shape[1] == 40000
    pictures = one(pipeline, audio=film(40))
    assert pictures.video.shape[0] == 40 and torch.equal(pictures.audio, film(40).audio)


def test_image_and_silent_clips(pipeline):
    image = one(pipeline, task="image_only", prompt="a ball")
    assert image.video.shape == (1, 32, 32, 3) and image.audio is None
    silent = one(pipeline, prompt="a ball", silent=True)
    assert silent.video.shape[0] == 17 and silent.audio is None
    extended = one(pipeline, video=film(sound=False), extend="forward", seconds=1.0, silent=True)
    assert extended.video.shape[0] == 25 and extended.audio is None


def test_a_request_does_not_depend_on_its_company(pipeline):
    requests = [
        Request(prompt="a", seed=1, sampling=PLAIN),
        Request(prompt="a much longer prompt", negative_prompt="blurred", seed=2, sampling=PLAIN),
        Request(video=film(), seed=3, sampling=PLAIN),
        Request(prompt="long", seconds=4.0, seed=4, sampling=PLAIN),
    ]
    together = pipeline.generate(requests)
    for request, clip in zip(requests, together, strict=True):
        alone = pipeline.generate([request])[0]
        assert (alone.video.int() - clip.video.int()).abs().max() <= 1
        assert torch.allclose(alone.audio, clip.audio, atol=1e-4)


def test_guidance_of_one_is_the_plain_model(pipeline):
    ones = {"video": 1.0, "audio": 1.0}
    plain = dataclasses.replace(PLAIN, guidance=GuidanceConfig(text=ones, modality=ones))
    strong = dataclasses.replace(
        PLAIN, guidance=GuidanceConfig(text=ones, modality={"video": 1.0, "audio": 5.0})
    )
    calls = []
    hook = pipeline.model.register_forward_pre_hook(lambda _, args: calls.append(args[0].size))
    base = one(pipeline, prompt="a", sampling=plain)
    assert calls == [1, 1, 1]
    calls.clear()
    guided = one(pipeline, prompt="a", sampling=strong)
    assert calls == [2, 2, 2]
    hook.remove()
    assert not torch.equal(base.audio, guided.audio)


def test_sound_that_waits_is_sound_for_the_finished_pictures(pipeline):
    """Seen from the sound, pictures that are done are pictures that are given."""
    after = dataclasses.replace(PLAIN, steps=6, delay={"video": 0.0, "audio": 1.0})
    states = []
    pipeline.generate(
        [Request(prompt="a red ball", seed=3, sampling=after)], on_step=lambda s, _: states.append(s)
    )
    start, middle, end = states[0].state, states[2].state, states[-1].state
    assert torch.equal(start["audio"], middle["audio"]) and differs(start["video"], middle["video"])
    assert torch.equal(middle["video"], end["video"]) and differs(middle["audio"], end["audio"])
    given = one(pipeline, task="video_to_audio", video=film(), seed=3)
    waited = one(
        pipeline, task="video_to_audio", video=film(), seed=3, sampling=dataclasses.replace(after, steps=3)
    )
    assert torch.equal(given.audio, waited.audio)


def test_steps_can_be_watched(pipeline):
    seen = []
    pipeline.generate(
        [Request(sampling=PLAIN)], on_step=lambda step, windows: seen.append((step.index, windows[0].task))
    )
    assert seen == [(i, "text_to_av") for i in range(3)]


def test_sources_of_other_formats_are_brought_onto_the_grid(pipeline):
    odd = Clip(
        video=torch.randint(0, 255, (24, 50, 70, 3), dtype=torch.uint8),
        fps=12.0,
        audio=torch.randn(1, 44100) * 0.1,
        sample_rate=22050,
    )
    clip = one(pipeline, video=odd, extend="forward", seconds=0.5)
    assert clip.video.shape == (16 + 4, 32, 32, 3) and clip.audio.shape == (2, 20000)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"task": "image_to_av"}, "--image"),
        ({"task": "text_to_av", "video": film()}, "--video"),
        ({"image": film(), "audio": film()}, "--audio"),
        ({"video": film(sound=False), "extend": "forward"}, "no sound.*--silent"),
        ({"audio": film(sound=False)}, "--audio.*no sound"),
        ({"size": (30, 32)}, "--size 30x32.*16"),
        ({"video": film(), "loop": True, "seconds": 9.0}, "--seconds 9"),
        ({"video": film(), "time_span": (5.0, 6.0)}, "--time-span"),
        ({"video": film(2), "extend": "backward"}, "--video has 2 frames"),
        ({"video": film(), "strength": 0.0}, "--strength"),
        ({"video": film(40), "strength": 0.5}, "a shorter clip, --seconds of its beginning"),
        ({"video": film(40), "mask": (0.0, 0.0, 0.5, 1.0)}, "--seconds, or a --time-span"),
        ({"seconds": -1.0}, "--seconds"),
        ({"mask": (0.5, 0.0, 0.4, 1.0), "video": film()}, "--mask"),
        ({"task": "diffusion_forcing"}, "staircase"),
        ({"image": "nowhere.png"}, "nowhere.png"),
    ],
)
def test_bad_requests_name_the_flag(pipeline, request_, message):
    with pytest.raises(RequestError, match=message):
        one(pipeline, **request_)


def copy_of(checkpoint, tmp_path, **config):
    described = yaml.safe_load((checkpoint / "config.yaml").read_text())
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    for key, value in config.items():
        described[key] = {**described[key], **value}
    (folder / "config.yaml").write_text(yaml.safe_dump(described))
    return folder


def test_foreign_codec_is_refused(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path, codecs={"fingerprints": {"video": "0" * 16}})
    with pytest.raises(CheckpointError, match=r"video codec.*fingerprint.*0000"):
        Pipeline.from_checkpoint(folder)


def test_missing_codec_is_refused(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path, codecs={"audio": str(tmp_path / "gone" / "nothing")})
    with pytest.raises(CodecError, match="nothing"):
        Pipeline.from_checkpoint(folder)


def test_codecs_are_found_beside_a_moved_checkpoint(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path, codecs={"audio": "/elsewhere/audio_vae"})
    (folder / "audio_vae").symlink_to(checkpoint.parent / "audio_vae")
    assert Pipeline.from_checkpoint(folder).world.grid.sample_rate == CLIP["sample_rate"]


def test_sampling_follows_the_shift_of_training_unless_told(checkpoint, tmp_path):
    trained = {"levels": {"shift": {"video": 5.0, "audio": 2.0}}}
    folder = copy_of(checkpoint, tmp_path, diffusion=trained)
    assert Pipeline.from_checkpoint(folder).world.sampling.shift == trained["levels"]["shift"]
    own = {"video": 1.0, "audio": 1.0}
    (tmp_path / "other").mkdir()
    folder = copy_of(checkpoint, tmp_path / "other", diffusion=trained, sampling={"shift": own})
    assert Pipeline.from_checkpoint(folder).world.sampling.shift == own


def test_another_preset_is_refused(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="different presets"):
        Pipeline.from_checkpoint(copy_of(checkpoint, tmp_path, model={"width": 64}))


def test_token_width_of_another_codec_is_refused(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path, model={"audio_width": 12, "audio_spread": []})
    with pytest.raises(CheckpointError, match=r"model\.audio_width is 12"):
        Pipeline.from_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
def test_incomplete_or_damaged_checkpoints_are_refused(checkpoint, tmp_path, name):
    folder = copy_of(checkpoint, tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:60] + b"\x00[")
    with pytest.raises(CheckpointError, match=name):
        Pipeline.from_checkpoint(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        Pipeline.from_checkpoint(folder)


def test_low_precision_stays_close(checkpoint, pipeline):
    other = Pipeline.from_checkpoint(checkpoint, dtype=torch.bfloat16)
    a, b = one(pipeline, prompt="a"), one(other, prompt="a")
    assert (a.video.int() - b.video.int()).abs().float().mean() < 3


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_placement_through_accelerate_gives_the_same_clip(checkpoint, pipeline, device_map, tmp_path):
    placed = Pipeline.from_checkpoint(checkpoint, device_map=device_map, offload_folder=str(tmp_path))
    assert torch.equal(one(pipeline, prompt="a").audio, one(placed, prompt="a").audio)


def test_blocks_offloaded_to_disk_give_the_same_clip(checkpoint, pipeline, tmp_path):
    names = [n for n, _ in pipeline.model.named_children() if n != "blocks"]
    where = dict.fromkeys(names, "cpu") | {"blocks.0": "cpu", "blocks.1": "disk"}
    placed = Pipeline.from_checkpoint(checkpoint, device_map=where, offload_folder=str(tmp_path))
    assert next(placed.model.blocks[1].parameters()).is_meta
    assert torch.allclose(one(pipeline, prompt="a").audio, one(placed, prompt="a").audio, atol=1e-4)


def test_export_with_extra_weights_is_refused(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path)
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors") | {"extra.weight": torch.zeros(2)}
    save_safetensors(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"extra\.weight"):
        Pipeline.from_checkpoint(folder)
