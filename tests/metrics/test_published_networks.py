"""Loaders of published weights, on small random checkpoints that the test writes."""

import json

import numpy as np
import pytest
import torch

from sora2.metrics import Evidence, MetricError, all_metrics
from sora2.metrics.features import get_feature
from sora2.metrics.networks import published
from sora2.metrics.networks.front_ends import imagebind_mel, vggish_examples
from sora2.metrics.networks.published import SIGNATURES
from sora2.metrics.weights import KNOWN, find_weights
from sora2.types import Clip

METRICS = all_metrics()


class ImageBind(torch.nn.Module):
    def forward(self, frames: torch.Tensor, mel: torch.Tensor):
        assert frames.shape[1:] == (3, 224, 224) and mel.shape[1:] == (1, 128, 204)
        return torch.ones(frames.shape[0], 1024), torch.ones(mel.shape[0], 1024)


class Synchformer(torch.nn.Module):
    def forward(self, frames: torch.Tensor, sound: torch.Tensor):
        assert frames.shape == (120, 3, 224, 224) and sound.shape == (76800,)
        return (torch.arange(21) == 13).float()  # the class of 0.6 s


class I3D(torch.nn.Module):
    def forward(self, video: torch.Tensor, rescale: bool, resize: bool, return_features: bool):
        assert rescale and resize and return_features
        return video.mean(dim=(1, 2, 3, 4))[:, None].expand(-1, 400)


class VGGish(torch.nn.Module):
    def forward(self, examples: torch.Tensor):
        assert examples.shape[1:] == (1, 96, 64)
        return examples.mean(dim=(1, 2, 3))[:, None].expand(-1, 128)


class RAFT(torch.nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor):
        return (second - first)[:, :2] * 0 + 5.0


class MUSIQ(torch.nn.Module):
    def forward(self, picture: torch.Tensor):
        return 100 * picture.mean()


SCRIPTS = {
    "imagebind": ImageBind,
    "synchformer": Synchformer,
    "i3d": I3D,
    "vggish": VGGish,
    "raft": RAFT,
    "musiq": MUSIQ,
}


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    for name, network in SCRIPTS.items():
        torch.jit.save(torch.jit.script(network()), str(tmp_path / f"{name}.pt"))
        monkeypatch.setenv(f"SORA2_WEIGHTS_{name.upper()}", str(tmp_path / f"{name}.pt"))
    published._script.cache_clear()


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (80, 32, 48, 3), generator=generator, dtype=torch.uint8)
    sound = 0.1 * torch.randn(2, 80000, generator=generator)
    return Clip(video=video, audio=sound, fps=16.0, sample_rate=16000, caption="a red ball", key="x")


def test_every_script_has_a_signature():
    assert set(SIGNATURES) == set(SCRIPTS) <= set(KNOWN)


def test_script_files_are_run_on_what_they_are_said_to_take(scripts, clip):
    assert METRICS["published_imagebind_av"](clip).value == pytest.approx(1)
    desync = METRICS["published_desync"](clip)
    assert desync.value == pytest.approx(0.6) and desync.details["offset"] == pytest.approx(0.6)
    short = clip.replace(video=clip.video[:33])
    assert "needs 4.8 s" in METRICS["published_desync"](short).reason
    assert METRICS["vbench_dynamic_degree"](clip).value == 1  # 7 pixels a step where 0.75 is fast
    quality = METRICS["vbench_imaging_quality"](clip.replace(video=torch.full_like(clip.video, 51)))
    assert quality.value == pytest.approx(0.2)
    assert get_feature("i3d")(Evidence(clip))[0] == pytest.approx(float(clip.video.float().mean()), rel=1e-4)
    assert len(get_feature("vggish")(Evidence(clip))) == 128


def test_a_file_that_is_no_script_or_another_network_is_named(scripts, tmp_path, monkeypatch, clip):
    monkeypatch.setenv("SORA2_WEIGHTS_RAFT", str(tmp_path / "vggish.pt"))
    published._script.cache_clear()
    with pytest.raises(MetricError, match=r"--weights raft: its forward must be \(first \(1, 3, H, W\)"):
        METRICS["vbench_dynamic_degree"](clip)
    (tmp_path / "bad.pt").write_bytes(b"no")
    monkeypatch.setenv("SORA2_WEIGHTS_MUSIQ", str(tmp_path / "bad.pt"))
    with pytest.raises(MetricError, match=r"musiq=.*bad.pt is no TorchScript file"):
        METRICS["vbench_imaging_quality"](clip)
    for name in SCRIPTS:
        monkeypatch.delenv(f"SORA2_WEIGHTS_{name.upper()}")
        with pytest.raises(MetricError, match=f"--weights {name}=PATH"):
            find_weights(name)


def test_front_ends(clip):
    second = np.zeros(16000, np.float32)
    quiet = vggish_examples(second)
    assert quiet.shape == (1, 1, 96, 64) and torch.allclose(quiet, torch.tensor(0.01).log())
    tone = np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000).astype(np.float32)
    loudest = int(vggish_examples(tone)[0, 0].mean(dim=0).argmax())
    assert (
        loudest == 19
    )  # 64 bands from 185 to 2774 mel, 39.8 apart: 1000 mel (1000 Hz) lies between 19 and 20
    assert imagebind_mel(second).shape == (3, 1, 128, 204)


def test_folders_of_transformers(tmp_path, monkeypatch, clip):
    import transformers as t

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    picture = {**small, "image_size": 32, "patch_size": 16}
    letters = {c: i for i, c in enumerate([*"abcdefghijklmnopqrstuvwxyz"])}
    vocabulary = {**letters, **{f"{c}</w>": 26 + i for c, i in letters.items()}}
    vocabulary |= {"<|startoftext|>": 52, "<|endoftext|>": 53}
    folder = tmp_path / "clip"
    config = t.CLIPConfig(
        text_config={**small, "vocab_size": 54, "eos_token_id": 53, "bos_token_id": 52},
        vision_config=picture,
        projection_dim=8,
    )
    t.CLIPModel(config).save_pretrained(folder)
    t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    monkeypatch.setenv("SORA2_WEIGHTS_CLIP_B32", str(folder))
    score = METRICS["published_clip_score"](clip)
    assert score.measured and -1 <= score.value <= 1
    assert METRICS["published_clip_score"](clip.replace(caption="another one")).value != score.value
    assert METRICS["published_clip_score"](clip.replace(caption="")) is None
    assert 0 < METRICS["vbench_background_consistency"](clip).value <= 1

    t.ViTModel(t.ViTConfig(**picture)).save_pretrained(tmp_path / "dino")
    t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "dino")
    monkeypatch.setenv("SORA2_WEIGHTS_DINO_B16", str(tmp_path / "dino"))
    assert published.picture_embeddings("dino-b16", clip.video[:4].numpy()).shape == (4, 16)

    t.VideoMAEModel(t.VideoMAEConfig(**picture, num_frames=4)).save_pretrained(tmp_path / "mae")
    t.VideoMAEImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(tmp_path / "mae")
    monkeypatch.setenv("SORA2_WEIGHTS_VIDEOMAE", str(tmp_path / "mae"))
    assert len(get_feature("videomae")(Evidence(clip))) == 16

    with pytest.raises(MetricError, match=r"holds nothing that transformers\.AutoImageProcessor can read"):
        monkeypatch.setenv("SORA2_WEIGHTS_DINO_B16", str(tmp_path))
        published.picture_embeddings("dino-b16", clip.video[:1].numpy())


def test_clap_reads_a_folder_of_transformers(tmp_path, monkeypatch, clip):
    import transformers as t

    torch.manual_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz", "\u0120"]  # the last is a space, as byte-level BPE writes it
    words = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sound = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
    }
    config = t.ClapConfig(
        text_config={**text, "vocab_size": len(words), "max_position_embeddings": 90},
        audio_config={**sound, "num_hidden_layers": 2, "spec_size": 64, "num_mel_bins": 16, "window_size": 4},
        projection_dim=8,
    )
    t.ClapModel(config).save_pretrained(tmp_path)
    extractor = t.ClapFeatureExtractor(
        feature_size=16, hop_length=1920, fft_window_size=2048, truncation="rand_trunc"
    )
    extractor.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))
    monkeypatch.setenv("SORA2_WEIGHTS_CLAP", str(tmp_path))

    assert published.clap_rate() == 48000
    metric = METRICS["published_clap_score"]
    score = metric(clip)
    assert score.measured and -1 <= score.value <= 1
    assert metric(clip).value == score.value
    assert metric(clip.replace(caption="another one")).value != score.value
    assert metric(clip.replace(caption="a red ball " * 40)).measured  # longer than the tower takes
    assert metric(clip.replace(audio=clip.audio.flip(1) * torch.linspace(0, 1, 80000))).value != score.value
    assert metric(clip.replace(caption="")) is None
