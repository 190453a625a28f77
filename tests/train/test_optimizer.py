"""Muon orthogonalises what it should, leaves the rest to an AdamW that equals torch's, and learns."""

import itertools

import pytest
import torch
from torch import nn

from sora2.train.config import OptimizerConfig
from sora2.train.optimizer import MuonAdamW, build_optimizer, orthogonalize


@pytest.mark.parametrize("shape", [(16, 16), (8, 64), (64, 8)])
def test_orthogonalize_keeps_directions_and_flattens_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.4 and values.max() < 1.4
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    core = u.mT @ result @ vh.mT
    assert (core - core.diagonal().diag()).abs().max() < 0.02


def test_bf16_orthogonalize_keeps_the_direction_of_an_ill_conditioned_matrix():
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(64, 192, generator=generator), full_matrices=False)
    matrix = u * torch.logspace(0, -3, 64) @ vh
    exact, half = orthogonalize(matrix.double(), torch.float64), orthogonalize(matrix, torch.bfloat16)
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(exact.flatten(), half.double().flatten(), dim=0) > 0.99
    tall = orthogonalize(matrix.mT, torch.bfloat16)
    assert torch.equal(tall.mT, half)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_orthogonalised_together_are_as_alone(dtype):
    matrices = (
        torch.randn(3, 8, 24, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 1e-3, 30])[:, None, None]
    )
    together = orthogonalize(matrices, dtype)
    for matrix, result in zip(matrices, together, strict=True):
        assert torch.allclose(
            orthogonalize(matrix, dtype), result, atol=1e-6 if dtype == torch.float32 else 2e-2
        )


def test_a_step_of_muon_does_not_depend_on_how_many_matrices_are_orthogonalised_at_once(monkeypatch):
    def stepped():
        torch.manual_seed(0)
        sizes = [8, 16, 16, 16, 16, 16, 16, 8]  # five square matrices among others
        model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(sizes)))
        optimizer = build_optimizer(dict(model.named_parameters()), OptimizerConfig(name="muon"), outer=())
        train(optimizer, model, steps=3)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    together = stepped()
    monkeypatch.setattr("sora2.train.optimizer.STACK_NUMBERS", 2 * 16 * 16)
    assert torch.allclose(stepped(), together, atol=1e-6)


def train(optimizer, model, steps=20):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(32, 8, generator=generator)
        loss = (model(x) - x.roll(1, dims=1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 8))


def test_the_adam_part_equals_torch():
    ours, theirs = network(), network()
    train(
        MuonAdamW([{"params": list(ours.parameters()), "weight_decay": 0.1, "lr": 1e-2}], (0.9, 0.99), 1e-8),
        ours,
    )
    train(
        torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1), theirs
    )
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_muon_takes_hidden_matrices_only_and_decay_spares_vectors():
    model = network()
    optimizer = build_optimizer(
        dict(model.named_parameters()), OptimizerConfig(name="muon"), outer=("0.", "4.")
    )
    muon = [p for g in optimizer.param_groups if g["muon"] for p in g["params"]]
    assert len(muon) == 1 and muon[0] is model[2].weight
    assert all(g["weight_decay"] == 0 for g in optimizer.param_groups if g["params"][0].ndim < 2)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 6


def test_muon_learns():
    model = network()
    optimizer = build_optimizer(
        dict(model.named_parameters()), OptimizerConfig(name="muon"), outer=("0.", "4.")
    )
    for group in optimizer.param_groups:
        group["lr"] = 2e-2
    first = train(optimizer, model, 1)
    assert train(optimizer, model, 200) < 0.4 * first


def test_a_step_inside_autocast_is_the_step_outside():
    """The trainer steps inside its autocast region; in bfloat16 the iteration would not converge."""
    stepped = []
    for autocast in (False, True):
        model = network()
        config = OptimizerConfig(name="muon", muon_lr=0.01)
        optimizer = build_optimizer(dict(model.named_parameters()), config, ())
        model(torch.ones(4, 8)).square().mean().backward()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            optimizer.step()
        stepped.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*stepped)
