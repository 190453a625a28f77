"""A sequence that several processes share gives the velocities and gradients of one that a single process has."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sora2.kernels import Rule
from sora2.model import Transformer, TransformerConfig
from sora2.model.config import AttentionConfig
from sora2.sequence import SequenceError, SequenceGroup
from sora2.types import Batch, Modality, VideoShape

PROCESSES = 3
#: None of which three processes divide, but for the heads.
TOKENS = {"text": 5, "reference_video": 4, "video": 28, "audio": 8}
DENSE = AttentionConfig()
LOCAL = AttentionConfig(
    layers=(Rule(window=(3, 1, 1), video_hears_seconds=0.3), Rule(top_k=2)), tile=(1, 2, 2), flat_tile=4
)


def make_model(attention: AttentionConfig) -> Transformer:
    config = TransformerConfig(
        width=36,
        depth=2,
        heads=3,
        text_width=8,
        video_width=12,
        audio_width=6,
        timed_text=3,
        attention=attention,
    )
    model = Transformer(config, torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():  # gates and outputs begin at zero: nothing would be compared
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


def make_batch() -> Batch:
    """Two clips: a level per token of video, padding behind the text and the sound of the second."""
    generator = torch.Generator().manual_seed(2)
    grid = torch.stack(torch.meshgrid(torch.arange(7), torch.arange(2), torch.arange(2), indexing="ij"), -1)
    found = {}
    for name, n in TOKENS.items():
        places = torch.zeros(2, n, 3)
        places[..., 0] = torch.arange(n) / n
        if name == "video":
            places = (grid.reshape(-1, 3) / torch.tensor([7.0, 2.0, 2.0])).expand(2, -1, -1)
        mask = torch.ones(2, n, dtype=torch.bool)
        if name in ("text", "audio"):
            mask[1, -2:] = False
        level = torch.rand(2, n if name == "video" else 1, generator=generator).expand(2, n)
        level = level * (name in ("video", "audio"))
        width = {"text": 8, "audio": 6}.get(name, 12)
        latent = torch.randn(2, n, width, generator=generator).double()
        found[name] = Modality(latent, places, level, mask)
    shape = VideoShape(
        frames=25, height=32, width=32, fps=12.0, temporal_stride=4, spatial_stride=8, patch_size=2
    )
    return Batch(**found, video_shape=shape)


def velocities_and_gradients(model: Transformer) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    found = model(make_batch())
    sum((v.double() * torch.linspace(-1, 1, v.numel()).view_as(v)).sum() for v in found.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: v.detach() for name, v in found.items()}, gradients


def in_each_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    for attention in (DENSE, LOCAL):
        expected, true_gradients = velocities_and_gradients(make_model(attention))
        model = make_model(attention)
        model.among = SequenceGroup.of(dist.group.WORLD)
        seen = []
        model.blocks[0].register_forward_pre_hook(lambda block, args, seen=seen: seen.append(len(args[0])))
        found, gradients = velocities_and_gradients(model)
        assert seen[0] <= 2 * sum(-(-n // PROCESSES) for n in TOKENS.values())  # a third of the tokens
        for name, velocity in expected.items():
            assert torch.allclose(found[name], velocity, atol=1e-6), (attention, name)
        assert gradients.keys() == true_gradients.keys()
        for name, gradient in gradients.items():
            dist.all_reduce(gradient)
            error = (gradient - true_gradients[name]).abs().max()
            assert error <= 1e-12 * true_gradients[name].abs().max(), (attention, name)

    model = make_model(DENSE)
    model.among = SequenceGroup.of(dist.group.WORLD)
    few = make_batch().replace(text=None, reference_video=None)
    few = few.replace(audio=Modality(*(x[:, :2] for x in vars(few.audio).values())))
    with pytest.raises(SequenceError, match=r"2 tokens of audio cannot be shared by 3 processes.*fewer"):
        model(few)
    config = TransformerConfig(width=32, depth=1, heads=2, text_width=8, video_width=12, audio_width=6)
    model = Transformer(config)
    model.among = SequenceGroup.of(dist.group.WORLD)
    with pytest.raises(SequenceError, match=r"2 heads cannot be shared by 3 processes"):
        model(make_batch())
    dist.destroy_process_group()


def test_three_processes_compute_what_one_does(tmp_path):
    """Dense, windows in tile order, chosen tiles; padding; counts that do not divide."""
    mp.spawn(in_each_process, (str(tmp_path),), PROCESSES)
