"""Valid and invalid physics under a denoiser whose preferences are known."""

import pytest
import torch

from sora2.codecs import load_codecs
from sora2.generate.checkpoint import load_model, open_codecs, read_checkpoint
from sora2.metrics import MetricError
from sora2.metrics.likelihood import Pair, denoising_loss, physics_likelihood, simulator_pairs
from sora2.toybox import Toybox, ToyboxConfig
from tests.generate.tiny import save_checkpoint


@pytest.fixture(scope="module")
def small():
    """Clips on the grid of the tiny checkpoint."""
    config = ToyboxConfig(frames=17, height=32, width=32, fps=8.0, sample_rate=8000)
    return Toybox(config).clips(range(3))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return read_checkpoint(save_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def codecs(checkpoint):
    return open_codecs(checkpoint)


class Knows:
    """A denoiser that knows some clips by heart: exact on them, and drawn towards the nearest on all others."""

    def __init__(self, codecs, clips):
        self.known = {n: torch.stack([self.tokens(codecs, c)[n] for c in clips]) for n in ("video", "audio")}

    @staticmethod
    def tokens(codecs, clip):
        video = codecs.video_shape(*clip.video.shape[:3], clip.fps, patch_size=2)
        shapes = {"video": video, "audio": codecs.audio_shape(video.seconds)}
        return {n: shapes[n].tokenize(x.float()) for n, x in codecs.encode_clip(clip).items()}

    def __call__(self, batch):
        out = {}
        for name, m in batch.modalities().items():
            if name not in self.known:
                continue
            t = m.noise_level[..., None]
            clean = []
            for row, level in zip(m.latent, t, strict=True):
                implied = (row - (1 - level) * self.known[name]) / level  # noise, if it were that clip
                best = implied.square().mean(dim=(1, 2)).argmin()
                clean.append(self.known[name][best])
            clean = torch.stack(clean)
            out[name] = (m.latent - clean) / t
        return out


def test_who_knows_the_valid_clips_finds_the_broken_ones_unlikely(codecs, small):
    pairs = simulator_pairs(small, ("gravity", "object removed", "audio shift"))
    assert len(pairs) == 9
    results = physics_likelihood(Knows(codecs, small), codecs, pairs, progress=False)
    assert {r.law for r in results} == {"gravity", "object removed", "audio shift"}
    for r in results:
        assert r.accuracy.estimate == 1.0 and r.margin.estimate > 0.1 and r.pairs == 3
    swapped = [Pair(p.law, p.invalid, p.valid) for p in pairs]
    for r in physics_likelihood(Knows(codecs, small), codecs, swapped, progress=False):
        assert r.accuracy.estimate == 0.0


def test_a_real_checkpoint_gives_the_same_loss_for_the_same_clip(checkpoint, codecs, small):
    model = load_model(checkpoint)
    one = denoising_loss(model, codecs, [small[0], small[0]], seeds=[5, 5])
    assert torch.isfinite(one).all() and one[0] == pytest.approx(float(one[1]), rel=1e-5)
    other = denoising_loss(model, codecs, [small[0]], seeds=[6])
    assert float(other[0]) != pytest.approx(float(one[0]), rel=1e-6)
    same = physics_likelihood(model, codecs, [Pair("none", small[0], small[0])], progress=False)
    assert same[0].margin.estimate == pytest.approx(0, abs=1e-5)


def test_an_unknown_law_is_named(small):
    with pytest.raises(MetricError, match="unknown law 'magic'"):
        simulator_pairs(small, ["magic"])


def test_codecs_without_text_need_no_captions(checkpoint, small):
    folder = checkpoint.folder.parent
    codecs = load_codecs(folder / "video_vae", folder / "audio_vae", text=None)
    loss = denoising_loss(Knows(codecs, small[:1]), codecs, small[:1], seeds=[0])
    assert float(loss[0]) == pytest.approx(0, abs=1e-3)
